#include "suites/planner/published/question.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "ref/error.hpp"
#include "suites/planner/prediction.hpp"

namespace lockstep {
namespace {

void set_words(Plan& plan, const std::string& text) {
  std::istringstream in(text);
  for (std::string item; in >> item;) {
    const std::size_t eq = item.find('=');
    if (eq == std::string::npos) throw UserError("a rule's plan: `" + item + "` should read word=value");
    plan.set(item.substr(0, eq), item.substr(eq + 1));
  }
}

// What a row must say; the first column that is empty.
std::string unsaid(const PublishedRow& row) {
  for (const char* column : {"layers", "hidden", "heads", "ffn", "vocab", "seq", "gpus", "gpu_type", "dp",
                             "tp", "pp", "micro_batch", "global_batch"})
    if (row.text(column).empty()) return column;
  return "";
}

bool names(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The mesh, schedule, ZeRO and checkpointing that the columns name by words of ours.
std::optional<Plan> plan_of(const PublishedRow& row, const std::string& words, std::string& why) {
  Plan plan = Plan::parse("");
  for (const auto& [word, column] : {std::pair{"dp", "dp"}, std::pair{"tp", "tp"}, std::pair{"pp", "pp"},
                                     std::pair{"micro", "micro_batch"}, std::pair{"zero", "zero"}})
    if (!row.text(column).empty()) plan.set(word, row.text(column));
  if (row.whole("vpp", 1) > 1) set_words(plan, "schedule=interleaved virtual=" + row.text("vpp"));
  const std::string &kept = row.text("act_ckpt"), &offload = row.text("offload");
  const bool said = names(words, "ckpt="), moved = names(words, "offload=") || names(words, "activations=");
  if (!kept.empty() && !said) {
    if (kept != "none" && kept != "full") return why = "act_ckpt " + kept, std::nullopt;
    plan.set("ckpt", kept);
  }
  if (!offload.empty() && offload != "none" && !moved) return why = "offload " + offload, std::nullopt;
  set_words(plan, words);
  return plan;
}

ModelConfig model_of(const PublishedGroup& g, const PublishedRow& row, i64 tp) {
  ModelConfig m;
  m.layers = row.whole("layers", 0), m.hidden = row.whole("hidden", 0), m.heads = row.whole("heads", 0);
  m.kv_heads = row.whole("kv_heads", m.heads);
  m.head_dim = row.whole("head_dim", m.heads ? m.hidden / m.heads : 0);
  const i64 ffn = row.whole("ffn", 0), multiple = g.vocab_multiple * tp;
  m.intermediate = g.gpt ? swiglu_width(ffn, tp) : ffn;
  m.vocab = (row.whole("vocab", 0) + multiple - 1) / multiple * multiple;
  m.max_position = row.whole("seq", 0);
  const std::string& tied = row.text("tied");
  m.tied = tied.empty() ? g.tied : tied == "1" || tied == "true";
  return m;
}

}  // namespace

i64 swiglu_width(i64 f, i64 tp) { return (2 * f + 3 * tp / 2) / (3 * tp) * tp; }

PublishedRow read_by_rules(const PublishedGroup& g, const PublishedRow& row, std::string& plan,
                           std::string& skip) {
  PublishedRow read = row;
  for (const RowRule& rule : g.rules) {
    if (!rule.when.has_words_of(read)) continue;
    for (const auto& [column, word] : rule.set) {
      read.words.erase(column);
      if (!word.empty()) read.words[column] = word;
    }
    if (!rule.plan.empty()) plan += " " + rule.plan;
    if (skip.empty()) skip = rule.skip;
  }
  return read;
}

std::optional<PublishedQuestion> ask(const PublishedGroup& g, const PublishedRow& row,
                                     const std::string& words, std::string& why) {
  const auto not_scored = [&](const std::string& reason) {
    why = reason;
    return std::nullopt;
  };
  // There are several kinds, and ours, which exchanges heads for tokens, is none of the usual ones.
  if (row.whole("cp", 1) > 1 && !names(words, "cp="))
    return not_scored("context parallelism, not said to exchange heads");
  if (names(row.text("dtype"), "fp8")) return not_scored("fp8");
  if (const std::string column = unsaid(row); !column.empty()) return not_scored("no " + column + " said");
  std::optional<Plan> plan = plan_of(row, words, why);
  if (!plan) return std::nullopt;
  PublishedQuestion q{
      model_of(g, row, plan->number("tp")), {}, *plan, row.text("gpu_type"), row.whole("gpus", 0), {}};
  const auto cluster = g.clusters.find(q.gpu_type);
  if (cluster == g.clusters.end())
    throw UserError(fmt::format("{}: no [cluster.{}] in {}", row.place(), q.gpu_type, g.file));
  q.settings = settings_on(cluster->second, {});
  q.settings.batch = row.whole("global_batch", 0), q.settings.seq = row.whole("seq", 0);
  if (q.plan.ranks() != q.gpus) return not_scored(fmt::format("dp x tp x pp x cp is not the number of GPUs"));
  if (const auto refusal = refuse_anywhere(q.plan, q.model, q.settings))
    return not_scored("rule " + refusal->rule);
  const auto number = [&](const char* column) { return static_cast<double>(row.whole(column, 0)); };
  q.counted = {number("layers"), number("hidden"), static_cast<double>(q.model.kv_heads * q.model.head_dim),
               number("ffn"),    number("vocab"),  number("seq"),
               g.gpt ? 2 : 3};
  const std::string& kept = q.plan.text("ckpt");
  q.recomputed = kept == "full"                               ? Recomputed::layers
                 : kept == "attention" || kept == "selective" ? Recomputed::attention
                                                              : Recomputed::nothing;
  return q;
}

}  // namespace lockstep
