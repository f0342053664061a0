#include "suites/planner/answer/plan_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "ref/error.hpp"
#include "ref/params.hpp"
#include "reports/h5.hpp"
#include "reports/record.hpp"
#include "suites/planner/answer/plan_timeline.hpp"

namespace lockstep {
namespace {

constexpr i64 kVersion = 1;

std::string text_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) throw UserError(fmt::format("{}: cannot be read", path));
  return text;
}

i64 parameters(const Question& q) {
  i64 sum = 0;
  for (const Param& p : parameter_table(q.model, q.settings.leaves))
    if (p.tied_to < 0) sum += p.count();
  return sum;
}

// Rows of weighed plans, as three tables have them.
void write_weighed(h5::Writer& file, const std::string& group, const std::vector<const Weighed*>& rows) {
  std::vector<std::string> plans;
  std::vector<double> seconds;
  for (const Weighed* w : rows) plans.push_back(w->plan), seconds.push_back(w->seconds);
  file.write(group + "/plan", plans);
  file.write(group + "/seconds", seconds);
  file.group(group + "/bytes");
  for (std::size_t m = 0; m < std::size(kMedia); ++m) {
    std::vector<double> bytes;
    for (const Weighed* w : rows) bytes.push_back(w->needs[m]);
    file.write(fmt::format("{}/bytes/{}", group, kMedia[m]), bytes);
  }
}

void write_question(h5::Writer& file, const Asked& asked, const Question& q, const Choices& c) {
  file.attribute("format", std::string("lockstep planner"));
  file.attribute("version", kVersion);
  RunRecord here;
  describe_machine(here);
  for (const auto& [name, text] : {std::pair{"model", asked.model},
                                   {"model_config", model_config_text(q.model)},
                                   {"cluster", q.cluster.name},
                                   {"cluster_path", asked.cluster},
                                   {"cluster_text", text_of_file(cluster_file(asked.cluster))},
                                   {"words", asked.words},
                                   {"again", asked.again},
                                   {"revision", here.revision},
                                   {"compiler", here.compiler},
                                   {"flags", here.flags},
                                   {"host", here.host},
                                   {"cpu", here.cpu},
                                   {"started", here.started}})
    file.attribute(name, text);
  for (const auto& [name, number] : {std::pair{"devices", q.cluster.devices},
                                     {"devices_per_node", q.cluster.per_node},
                                     {"batch", q.settings.batch},
                                     {"seq", q.settings.seq},
                                     {"leaves", q.settings.leaves},
                                     {"weight_bytes", i64{q.settings.weight_bytes}},
                                     {"gradient_bytes", i64{q.settings.gradient_bytes}},
                                     {"activation_bytes", i64{q.settings.activation_bytes}},
                                     {"parameters", parameters(q)},
                                     {"combinations", c.walked.combinations},
                                     {"legal", c.walked.legal},
                                     {"fit", static_cast<i64>(c.fit.size())},
                                     {"misfits", c.misfits}})
    file.attribute(name, number);
  const std::array<double, 3> have = has(q.cluster);
  for (std::size_t m = 0; m < have.size(); ++m) file.attribute(fmt::format("has_{}", kMedia[m]), have[m]);
  file.attribute("model_flops", model_flops(q.model, q.settings));
  file.attribute("peak_flops", q.cluster.flops * static_cast<double>(q.cluster.devices));
  file.attribute("weighing_seconds", c.seconds);
  file.attribute("least_lack", c.least);
  file.attribute("most_lack", c.most);
  file.attribute("closest", c.closest ? c.closest->plan : std::string{});
  file.attribute("alike", c.fit.empty() ? std::string{} : alike_text(c));
}

void write_counts(h5::Writer& file, const Choices& c) {
  std::vector<std::string> words, values;
  std::vector<i64> counts;
  file.group("/refused");
  for (const auto& [rule, n] : c.walked.refused) words.push_back(rule), counts.push_back(n);
  file.write("/refused/rule", words);
  file.write("/refused/plans", counts);
  words.clear(), counts.clear();
  for (const auto& [word, by_value] : c.walked.axes)
    for (const auto& [value, n] : by_value)
      words.push_back(word), values.push_back(value), counts.push_back(n);
  file.group("/legal");
  file.write("/legal/word", words);
  file.write("/legal/value", values);
  file.write("/legal/plans", counts);
}

void write_best(h5::Writer& file, const Choices& c) {
  std::vector<std::string> words, values;
  std::vector<const Weighed*> rows;
  for (const auto& [word, by_value] : c.best)
    for (const auto& [value, w] : by_value)
      words.push_back(word), values.push_back(value), rows.push_back(&w);
  file.group("/best");
  file.write("/best/word", words);
  file.write("/best/value", values);
  write_weighed(file, "/best", rows);
}

// A column for each name that any row has; rows without it have 0.
void write_by_name(h5::Writer& file, const std::string& group,
                   const std::vector<std::map<std::string, double>>& rows) {
  std::set<std::string> names;
  for (const auto& row : rows)
    for (const auto& [name, value] : row) names.insert(name);
  file.group(group);
  for (const std::string& name : names) {
    std::vector<double> column;
    for (const auto& row : rows) column.push_back(row.count(name) ? row.at(name) : 0);
    file.write(group + "/" + name, column);
  }
}

void write_top(h5::Writer& file, const Question& q, const Choices& c, std::size_t top) {
  const std::vector<const Weighed*> plans = distinct(c);
  const std::size_t n = std::min(top, plans.size());
  Composer composer(q.model, q.settings, q.cluster);
  std::vector<const Weighed*> rows;
  std::vector<i64> stages, fullest;
  std::vector<double> together, beside;
  std::vector<std::map<std::string, double>> memory, time;
  std::vector<std::string> why, beginnings, endings;
  Prediction won;
  for (std::size_t i = 0; i < n; ++i) {
    const Weighed& w = *plans[i];
    const Plan plan = Plan::parse(w.plan);
    const Prediction p = composer.predict(plan);
    if (i == 0) won = p;
    const Held held = held_by(w.plan, p, q);
    rows.push_back(&w), stages.push_back(static_cast<i64>(p.stages.size())), fullest.push_back(held.stage);
    together.push_back(held.together), beside.push_back(held.beside);
    for (std::size_t k = memory.emplace_back().size(); k < held.kinds.size(); ++k)
      if (held.kinds[k]) memory.back()[kind_name(static_cast<Kind>(k))] = static_cast<double>(held.kinds[k]);
    time.emplace_back();
    for (const auto& [kind, seconds] : time_by_kind(p)) time.back()[kind] = seconds;
    why.push_back(i == 0 ? why_text(c, q)
                         : fmt::format("{:.1f} % slower than the first: {}\n",
                                       100 * (w.seconds / c.fit[0].seconds - 1), losses(won, p)));
    const std::vector<Timeline> timeline = timelines_on(plan, q);
    beginnings.push_back(timeline.empty() ? std::string{} : json_of(timeline.front()));
    endings.push_back(timeline.size() < 2 ? std::string{} : json_of(timeline.back()));
  }
  file.group("/top");
  write_weighed(file, "/top", rows);
  file.write("/top/stages", stages);
  file.write("/top/fullest_stage", fullest);
  file.write("/top/together", together);
  file.write("/top/beside", beside);
  write_by_name(file, "/top/memory", memory);
  write_by_name(file, "/top/time", time);
  file.write("/top/why", why);
  file.write("/top/timeline", beginnings);
  file.write("/top/timeline_end", endings);
}

}  // namespace

void write_plan_file(const Asked& asked, const Question& q, const Choices& c, std::size_t top,
                     const std::string& path) {
  h5::Writer file(path);
  write_question(file, asked, q, c);
  std::vector<const Weighed*> rows;
  for (const Weighed& w : c.fit) rows.push_back(&w);
  file.group("/plans");
  write_weighed(file, "/plans", rows);
  std::vector<double> speed;
  for (const Weighed& w : c.fit)
    speed.push_back(static_cast<double>(q.settings.batch * q.settings.seq) / w.seconds);
  file.write("/plans/tokens_per_second", speed);
  write_counts(file, c);
  write_best(file, c);
  write_top(file, q, c, top);
  file.close();
}

}  // namespace lockstep
