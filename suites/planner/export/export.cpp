#include "suites/planner/export/export.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "ref/error.hpp"
#include "ref/write_aside.hpp"
#include "suites/bytes.hpp"

namespace lockstep {
namespace {

// In a function, because exporters register from other files' static constructors.
std::map<std::string, const Exporter*>& registered() {
  static std::map<std::string, const Exporter*> list;
  return list;
}

const std::string& fallback(const std::string& name) {
  const auto& words = plan_words();
  return std::find_if(words.begin(), words.end(), [&](const Word& w) { return w.name == name; })->fallback;
}

}  // namespace

Exporter::Exporter(std::string n, Write w, std::string c)
    : name(std::move(n)), write(w), comment(std::move(c)) {
  registered()[name] = this;
}

std::vector<std::string> export_names() {
  std::vector<std::string> names;
  for (const auto& [name, e] : registered()) names.push_back(name);
  return names;
}

const Exporter& exporter(const std::string& name) {
  if (const auto it = registered().find(name); it != registered().end()) return *it->second;
  throw UserError(
      fmt::format("plan: no export to `{}`; there are {}", name, fmt::join(export_names(), ", ")));
}

Exported exported(const Exporter& e, const Question& q, const Plan& plan, const std::string& note) {
  WordSet asked = 0;
  Plan listened = plan;
  listened.note_reads(&asked);
  Exported x = e.write(q, listened);
  for (const auto& [word, value] : plan.words())
    if (!(asked & word_bit(word)) && value != fallback(word))
      x.missing.push_back(
          fmt::format("{}={}: the export to {} does not know this word", word, value, e.name));
  for (const std::string& what : q.left_out)
    x.missing.push_back(fmt::format("of the model, which is taken for a Llama: {}", what));
  x.usage.push_back(
      fmt::format("{}{} steps with a learning rate of {:g} after {} of warm-up: yours to say, here "
                  "by --steps, --lr, --warmup, --total",
                  says_steps(q.settings) && says_rate(q.settings) ? "" : "SET THIS: ", q.settings.steps,
                  q.settings.lr, q.settings.warmup));
  if (e.comment.empty()) return x;
  std::string head = fmt::format("{} `{}` for {}, by lockstep plan\n", e.comment, plan.line(), e.name);
  if (!note.empty()) head += fmt::format("{} {}\n", e.comment, note);
  for (const std::string& line : x.usage) head += fmt::format("{}   {}\n", e.comment, line);
  for (const std::string& gap : x.missing) head += fmt::format("{} not expressed: {}\n", e.comment, gap);
  x.text = head + x.text;
  return x;
}

Plan as_written(const Exporter& e, const Question& q, Plan plan) {
  for (const auto& [word, value] : e.write(q, plan).instead) plan.set(word, value);
  return plan;
}

namespace {

// What is predicted of the plan that is run there. That it does not fit is said and not refused: whoever
// names a plan may know better than a prediction.
void foretell(const Exporter& e, const Question& q, const Plan& plan) {
  const Plan written = as_written(e, q, plan);
  const Prediction p = predicted(written.line(), q);
  if (written.line() != plan.line())
    fmt::print(stderr, "as it is written, `{}`: {:.0f} tokens/s predicted, the plan {:.0f}\n", written.line(),
               tokens_per_second(q, p.seconds), tokens_per_second(q, predicted(plan.line(), q).seconds));
  const std::array<double, 3> needs = held_by(written.line(), p, q).needs, have = has(q.cluster);
  for (std::size_t m = 0; m < have.size(); ++m)
    if (needs[m] > have[m])
      fmt::print(stderr, "IT DOES NOT FIT, as predicted: {:.1f} GiB needed of a {} that has {:.1f}\n",
                 needs[m] / kGiB, kMedia[m], have[m] / kGiB);
}

}  // namespace

int write_export(const std::string& system, const std::string& file, const Question& q, const Plan& plan,
                 const std::string& note) {
  const Exporter& e = exporter(system);
  const Exported x = exported(e, q, plan, note);
  fmt::print(stderr, "`{}` for {}\n", plan.line(), system);
  if (!note.empty()) fmt::print(stderr, "{}\n", note);
  foretell(e, q, plan);
  for (const std::string& line : x.usage) fmt::print(stderr, "  {}\n", line);
  for (const std::string& gap : x.missing) fmt::print(stderr, "not expressed: {}\n", gap);
  if (file.empty()) {
    fmt::print("{}", x.text);
    return 0;
  }
  if (!write_aside(file, [&](std::ostream& out) { out << x.text; }))
    throw UserError(fmt::format("plan: cannot write {}; its folder must exist and have room", file));
  fmt::print("{}\n", file);
  return 0;
}

i64 microbatches(const Settings& s, const Plan& p) { return s.batch / (p.number("dp") * p.number("micro")); }

i64 layer_elements(const ModelConfig& m, int tp) {
  const i64 heads = m.heads / tp, kv_heads = std::max<i64>(m.kv_heads / tp, 1);
  return m.hidden * (m.head_dim * (2 * heads + 2 * kv_heads) + 3 * m.intermediate / tp + 2);
}

int machines(const Cluster& c, const Plan& p) {
  return static_cast<int>((p.ranks() + c.per_node - 1) / c.per_node);
}

i64 schedule_steps(const Settings& s) { return s.total ? s.total : s.steps; }

bool says_steps(const Settings& s) { return s.total > 0 || s.steps != Settings{}.steps; }
bool says_rate(const Settings& s) { return s.lr != Settings{}.lr; }

std::string says_word(const Plan& p, const std::string& word) { return word + "=" + p.text(word); }

void say_one_stage(const Plan& p, Exported& x) {
  if (p.number("pp") > 1 || p.text("schedule") == "1f1b") return;
  x.missing.push_back(fmt::format("{} with pp=1: microbatches are accumulated one after the other",
                                  says_word(p, "schedule")));
  x.instead["schedule"] = "1f1b";
}

void say_groups(const Plan& p, const char* system, std::vector<std::string>& missing) {
  const int replicas = p.number("replicas"), dp = p.number("dp"), cp = p.number("cp");
  if (dp % replicas != 0)
    cannot_run(fmt::format("{}'s {} groups of replicas divide dp={}, segments of a sequence apart", system,
                           replicas, dp),
               p, "--words \"replicas=1\"");
  if (replicas > 1 && cp > 1)
    missing.push_back(
        fmt::format("replicas={} with cp={}: a group of the plan has one segment, {}'s shares over "
                    "neighbours of all segments",
                    replicas, cp, system));
}

std::string torchrun(const Cluster& c, const Plan& p) {
  const int nodes = machines(c, p);
  // Without these torchrun waits for the other nodes at 127.0.0.1.
  return fmt::format("torchrun --nnodes {} --nproc-per-node {}{}", nodes, p.ranks() / nodes,
                     nodes > 1 ? " --node-rank NODE --master-addr HOST --master-port PORT" : "");
}

void say_nodes(const Cluster& c, const Plan& p, std::vector<std::string>& usage, const char* number,
               const char* address, const char* port) {
  if (const int nodes = machines(c, p); nodes > 1)
    usage.push_back(fmt::format(
        "on each of the {} nodes, and yours to say: its number from 0 ({}), the address of node 0 ({}) and a "
        "free port there ({})",
        nodes, number, address, port));
}

void cannot_run(const std::string& why, const Plan& plan, const std::string& words) {
  throw UserError(fmt::format("plan: {}, and the plan is `{}`; {} chooses among plans that can be exported",
                              why, plan.line(), words));
}

}  // namespace lockstep
