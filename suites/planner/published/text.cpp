// What `lockstep published` prints.
#include <fmt/format.h>

#include <algorithm>

#include "suites/bytes.hpp"
#include "suites/planner/published/published.hpp"
#include "suites/text_table.hpp"

namespace lockstep {
namespace {

std::string percent(double part) { return fmt::format("{:.2f}", 100 * part); }

std::string bar_text(const PublishedGroup& g, const std::string& source) {
  const auto it = g.bars.find(source);
  if (it == g.bars.end()) return "-";
  const Bar& b = it->second;
  std::string text;
  for (const auto& [name, value] :
       {std::pair{"mean", &b.mean}, std::pair{"median", &b.median}, std::pair{"worst", &b.worst},
        std::pair{"memory mean", &b.memory_mean}, std::pair{"memory median", &b.memory_median},
        std::pair{"memory worst", &b.memory_worst}, std::pair{"regret", &b.regret}})
    if (*value) text += fmt::format("{}{} < {}", text.empty() ? "" : ", ", name, **value);
  for (const auto& [name, value] :
       {std::pair{"rank", &b.rank}, std::pair{"precision", &b.precision}, std::pair{"recall", &b.recall}})
    if (*value) text += fmt::format("{}{} > {}", text.empty() ? "" : ", ", name, **value);
  return text;
}

void add(TextTable& table, const PublishedGroup& g, const SourceScore& s) {
  const auto some = [](const auto& list, double value) { return list.empty() ? "-" : percent(value); };
  table.add({s.source, fmt::to_string(s.rows), fmt::to_string(s.scored), fmt::to_string(s.fitted),
             some(s.errors, mean_of(s.errors)), some(s.errors, median_of(s.errors)),
             some(s.errors, largest_of(s.errors)), some(s.memory_errors, median_of(s.memory_errors)),
             some(s.ranked, s.median_regret()),
             s.ranked.empty() ? "-" : fmt::format("{:.3f}", s.median_rank()),
             s.fits ? fmt::format("{:.1f}/{:.1f}", 100 * s.fits->precision(), 100 * s.fits->recall()) : "-",
             bar_text(g, s.source), s.missed.empty() ? g.bars.count(s.source) ? "met" : "-" : "MISSED"});
}

// The worst of the rows that nothing was fitted on, where they are more than a quarter off.
std::string far_off(const ScoredGroup& scored, const std::string& source) {
  constexpr double kFar = 0.25;
  constexpr std::size_t kMost = 8;
  std::vector<const ScoredRow*> far;
  for (const ScoredRow& s : scored.rows)
    if (s.row.text("source") == source && s.predicted > 0 && !s.fitted && s.error() > kFar) far.push_back(&s);
  std::stable_sort(far.begin(), far.end(),
                   [](const ScoredRow* a, const ScoredRow* b) { return a->error() > b->error(); });
  std::string text;
  if (far.size() > kMost)
    text += fmt::format("  {} rows are more than 25 % off; the worst {} (all: --rows)\n", far.size(), kMost);
  for (std::size_t i = 0; i < std::min(far.size(), kMost); ++i)
    text += fmt::format("  {} is off by {:+.1f} %: {:.4g} predicted, {:.4g} published, {} `{}`\n",
                        far[i]->row.place(), 100 * (far[i]->predicted / far[i]->published - 1),
                        far[i]->predicted, far[i]->published, far[i]->row.text("model"), far[i]->plan);
  return text;
}

std::string notes(const ScoredGroup& scored, const SourceScore& s) {
  std::string text;
  for (const std::string& bar : s.missed) text += "  MISSED: " + bar + "\n";
  for (const auto& [why, rows] : s.unscored) text += fmt::format("  {} rows not scored: {}\n", rows, why);
  if (s.contradictory)
    text += fmt::format("  {} rows of runs that are published both as done and as out of memory\n",
                        s.contradictory);
  if (!s.fitted_errors.empty())
    text += fmt::format("  mean error of the {} rows fitted on: {} %\n", s.fitted_errors.size(),
                        percent(mean_of(s.fitted_errors)));
  text += far_off(scored, s.source);
  return text.empty() ? "" : s.source + "\n" + text;
}

std::string fitted_text(const PublishedGroup& g) {
  std::string text;
  for (const FittedRows& f : g.fitted) text += "  fitted: " + f.what + "\n";
  return text;
}

}  // namespace

std::string scores_text(const std::vector<ScoredGroup>& groups) {
  std::string out;
  for (const bool gpt : {false, true}) {
    TextTable table({"source", "rows", "scored", "fitted", "mean", "median", "worst", "memory", "regret",
                     "rank", "fits", "bar", "verdict"},
                    1);
    std::string below;
    for (const ScoredGroup& scored : groups) {
      if (scored.group->gpt != gpt) continue;
      below += fmt::format("{} ({})\n{}", scored.group->name, scored.group->file, fitted_text(*scored.group));
      for (const SourceScore& s : scored.sources) {
        add(table, *scored.group, s);
        below += notes(scored, s);
      }
    }
    if (table.rows() == 0) continue;
    out +=
        gpt ? "GPT-shaped: an MLP of two matmuls of width f is priced as a SwiGLU of width 2f/3, which has "
              "its weights and operations\n"
            : "Llama-shaped\n";
    out += table.text(false) + "\n" + below + "\n";
  }
  return out +
         "mean, median, worst: error in % of the published figure, of rows that no constant was fitted on\n"
         "memory: the peak's error, median; fits: precision and recall of what is said to fit, in %\n"
         "regret: % of the best published tokens/s lost by our first choice; rank: Spearman's correlation;\n"
         "both by (model, GPUs, sequence), the median\n";
}

std::string rows_text(const ScoredGroup& scored) {
  TextTable table({"row", "source", "model", "plan", "metric", "predicted", "published", "error", "memory",
                   "published", "fits", "fitted"},
                  5);
  const auto gib = [](double bytes) { return bytes > 0 ? fmt::format("{:.1f}", bytes / kGiB) : ""; };
  const auto yes = [](const std::optional<bool>& b) { return !b ? "" : *b ? "yes" : "no"; };
  for (const ScoredRow& s : scored.rows) {
    const bool said = s.predicted > 0;
    table.add({fmt::to_string(s.row.number), s.row.text("source"), s.row.text("model"),
               s.unscored.empty() ? s.plan : "not scored: " + s.unscored, s.row.text("metric"),
               said ? fmt::format("{:.5g}", s.predicted) : "",
               said ? fmt::format("{:.5g}", s.published) : s.row.text("value"),
               said ? fmt::format("{:+.2f} %", 100 * (s.predicted / s.published - 1)) : "", gib(s.memory),
               gib(s.memory_published), yes(s.fits), s.fitted ? "fitted" : ""});
  }
  std::string out = table.text(false);
  for (const SourceScore& s : scored.sources)
    for (const Ranked& r : s.ranked)
      out += fmt::format("{}: {}: {} plans, regret {:.2f} %, rank correlation {:.3f}\n", s.source, r.which,
                         r.plans, 100 * r.regret, r.rank);
  return out;
}

}  // namespace lockstep
