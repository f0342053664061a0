#include "suites/sweep/suite.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "suites/section.hpp"
#include "suites/settings_list.hpp"
#include "suites/toml_file.hpp"

namespace lockstep {
namespace {

constexpr i64 kMostSteps = 1000000;
constexpr i64 kMostCombinations = 100000;

// A plan's own complaint, with the place in the file.
template <class Action>
void located(const Section& section, const toml::node& at, const Action& action) {
  try {
    action();
  } catch (const UserError& e) {
    section.fail(at, e.what());
  }
}

void read_run(Section run, const std::filesystem::path& folder, Suite& suite) {
  for (const auto& [key, path] : {std::pair{"model", &suite.model}, std::pair{"data", &suite.data}}) {
    run.read(key, *path);
    if (path->empty()) run.lacks(key);
    *path = (folder / *path).lexically_normal().string();
  }
  for (const Setting& s : settings_list())
    std::visit([&](auto field) { run.read(s.name, suite.settings.*field); }, s.field);
  std::string dtype = "float32";
  run.read("dtype", dtype);
  if (const toml::node* at = run.find("dtype")) located(run, *at, [&] { set_dtype(suite.settings, dtype); });
  run.read("cluster", suite.cluster);
  if (!suite.cluster.empty()) suite.cluster = (folder / suite.cluster).lexically_normal().string();
  run.read("isa", suite.isa);
  run.read("device", suite.device);
  std::string mode = "exact";
  run.read("mode", mode);
  if (mode != "exact" && mode != "fast")
    run.fail(*run.find("mode"),
             fmt::format("mode is \"{}\"; it can be \"exact\", or \"fast\": plans that only fast "
                         "mode can sum are run too, in that mode alone",
                         mode));
  suite.fast = mode == "fast";
  std::string scaling = "strong";
  run.read("scaling", scaling);
  if (scaling != "strong" && scaling != "weak")
    run.fail(*run.find("scaling"),
             fmt::format("scaling is \"{}\"; it can be \"strong\", or \"weak\": batch is then of one replica",
                         scaling));
  suite.weak = scaling == "weak";
  run.read("threads", suite.threads, 1, 1024);
  run.read("timed_steps", suite.repeats.least, 1, kMostSteps);
  suite.repeats.most = std::max(suite.repeats.most, suite.repeats.least);
  run.read("timed_steps_most", suite.repeats.most, suite.repeats.least, kMostSteps);
  run.read("timed_spread", suite.repeats.spread, 0, 1);
  run.finish();
}

std::string axis_value(const Section& axes, const std::string& word, const toml::node& node) {
  if (node.is_integer()) return fmt::format("{}", *node.value<i64>());
  if (node.is_string()) return *node.value<std::string>();
  axes.fail(node, fmt::format("{}: a value must be a whole number or a text, not {}", word,
                              Section::type_of(node)));
}

// The words of a plan that are keys of this table, each with the values it is to take; "*": all that it has.
std::vector<SuiteAxis> read_words(Section& axes) {
  std::vector<SuiteAxis> list;
  Plan probe = Plan::parse("");
  for (const Word& word : plan_words()) {
    const toml::node* node = axes.find(word.name);
    if (!node) continue;
    SuiteAxis axis{word.name, {}};
    auto add = [&](const toml::node& value) {
      axis.values.push_back(axis_value(axes, word.name, value));
      located(axes, value, [&] { probe.set(word.name, axis.values.back()); });
    };
    if (const toml::array* values = node->as_array())
      for (const toml::node& value : *values) add(value);
    else if (node->value<std::string>() == "*" && !word.values.empty())
      axis.values = word.values;
    else
      add(*node);
    if (axis.values.empty()) axes.fail(*node, fmt::format("{} needs at least one value", word.name));
    list.push_back(std::move(axis));
  }
  return list;
}

void read_grid(Section axes, const toml::table& table, Suite& suite) {
  suite.grids.push_back(read_words(axes));
  axes.finish();
  double plans = 1;
  for (const SuiteAxis& axis : suite.grids.back()) plans *= static_cast<double>(axis.values.size());
  if (plans > kMostCombinations)
    axes.fail(
        table,
        fmt::format("these axes have {:.0f} combinations; at most {} are run, and [cover] chooses few plans "
                    "of many",
                    plans, kMostCombinations));
}

void read_cover(Section cover, const toml::table& table, Suite& suite) {
  CoverOrder order;
  order.axes = read_words(cover);
  for (const SuiteAxis& axis : order.axes) {
    const toml::node& node = *table.get(axis.word);
    if (std::set<std::string>(axis.values.begin(), axis.values.end()).size() < axis.values.size())
      cover.fail(node, fmt::format("{}: a value is said twice", axis.word));
    if (axis.values.size() > 64)
      cover.fail(node,
                 fmt::format("{} has {} values; at most 64 can be covered", axis.word, axis.values.size()));
  }
  std::string others;
  cover.read("others", others);
  if (!others.empty() && others != "*")
    cover.fail(*table.get("others"),
               fmt::format("others is \"{}\"; it can only be \"*\": every value of each "
                           "further word that has a list of them",
                           others));
  for (const Word& word : plan_words())
    if (!others.empty() && !word.values.empty() && !table.contains(word.name))
      order.axes.push_back({word.name, word.values});
  cover.read("plans", order.plans, 0, 100000);
  cover.read("seed", order.seed, 0, 1000000000);
  cover.finish();
  if (order.axes.empty()) cover.fail(table, "[cover] needs at least one word of a plan, with its values");
  suite.cover = order;
}

// One [axes], or several [[axes]].
void read_axes(const Section& file, const toml::node& node, const std::string& path, Suite& suite) {
  if (const toml::table* table = node.as_table()) return read_grid({path, "[axes]", table}, *table, suite);
  const toml::array* list = node.as_array();
  if (!list || !list->is_homogeneous<toml::table>())
    file.fail(node, "axes must be a table or a list of tables: write [axes] or [[axes]]");
  for (const toml::node& entry : *list)
    read_grid({path, "[[axes]]", entry.as_table()}, *entry.as_table(), suite);
}

void read_also(const Section& file, const toml::node& node, const std::string& path, Suite& suite) {
  const toml::array* list = node.as_array();
  if (!list) file.fail(node, "also must be a list of tables: write [[also]], and a plan below it");
  for (const toml::node& entry : *list) {
    if (!entry.is_table())
      file.fail(entry, "also must be a list of tables: write [[also]], and a plan below it");
    Section also(path, "[[also]]", entry.as_table());
    std::string plan;
    also.read("plan", plan);
    also.finish();
    if (plan.empty()) file.fail(entry, "plan is missing in [[also]]");
    located(file, entry, [&] { suite.also.push_back(Plan::parse(plan)); });
  }
}

void read_expected(Section expect, Suite& suite) {
  expect.read("plans", suite.expected_plans);
  if (const toml::node* at = expect.find("plans"); at && suite.expected_plans < 1)
    expect.fail(*at, fmt::format("plans is {}; it must be 1 or more", suite.expected_plans));
  expect.read("hash", suite.expected_hash);
  const toml::node* hash = expect.find("hash");
  if (hash && suite.expected_hash.find_first_not_of("0123456789abcdef") != std::string::npos)
    expect.fail(*hash, "hash must be how a hash begins, of the digits 0 to 9 and a to f");
  expect.finish();
}

}  // namespace

Suite read_suite(const std::string& path) {
  const toml::table tree = read_toml(path, "name a suite's TOML file");
  Suite suite;
  suite.name = std::filesystem::path(path).stem().string(), suite.path = path;
  Section file(path, "a suite", &tree);
  const toml::table *run = file.table("run"), *limits = file.table("limits"), *cover = file.table("cover"),
                    *expect = file.table("expect");
  const toml::node *axes = file.find("axes"), *also = file.find("also");
  file.finish();
  read_run({path, "[run]", run}, std::filesystem::path(path).parent_path(), suite);
  if (axes) read_axes(file, *axes, path, suite);
  if (cover) read_cover({path, "[cover]", cover}, *cover, suite);
  Section limit(path, "[limits]", limits);
  limit.read("ranks", suite.max_ranks, 1, kMaxRanks);
  limit.read("seconds", suite.max_seconds, 0, 1e9);
  limit.read("memory", suite.max_memory, 0, 1e6);
  limit.finish();
  read_expected({path, "[expect]", expect}, suite);
  if (also) read_also(file, *also, path, suite);
  if (suite.grids.empty() && !suite.cover && suite.also.empty()) file.missing("[axes], [cover] or [[also]]");
  try {
    check_settings(suite.settings);
  } catch (const UserError& e) {
    throw UserError(path + ": " + e.what());
  }
  return suite;
}

std::map<std::string, i64> Enumeration::by_rule() const {
  std::map<std::string, i64> count;
  for (const Refused& r : refused) ++count[r.refusal.rule];
  return count;
}

namespace {

// How often the search for a cover was refused by a rule, and what the rule said first.
struct Asked {
  i64 times;
  std::string why;
};
std::string why_nothing(const std::map<std::string, Asked>& refusals) {
  if (refusals.empty()) return "[cover] has no two axes to show values of together; [axes] takes one";
  const auto most = std::max_element(refusals.begin(), refusals.end(), [](const auto& a, const auto& b) {
    return a.second.times < b.second.times;
  });
  return fmt::format("no plan of [cover] is legal; most are refused by {}: {}", most->first,
                     most->second.why);
}

}  // namespace

Enumeration enumerate(const Suite& suite, const ModelConfig& model) {
  auto judge = [&](const Plan& plan) -> std::optional<Refusal> {
    if (plan.ranks() <= suite.max_ranks) return refuse(plan, model, suite.admitting(plan));
    return Refusal{"limit-ranks",
                   fmt::format("{} ranks, but the suite's limit is {}", plan.ranks(), suite.max_ranks),
                   {"dp", "tp", "pp", "cp"}};
  };

  std::vector<Plan> all;
  for (const std::vector<SuiteAxis>& grid : suite.grids) {
    std::vector<Plan> plans{Plan::parse("")};
    for (const SuiteAxis& axis : grid) {
      std::vector<Plan> longer;
      for (const Plan& plan : plans)
        for (const std::string& value : axis.values) longer.emplace_back(plan).set(axis.word, value);
      plans = std::move(longer);
    }
    all.insert(all.end(), plans.begin(), plans.end());
  }
  Enumeration result;
  if (suite.cover) {
    std::map<std::string, Asked> refusals;  // by rule
    CoveringArray cover = covering_array(*suite.cover, [&](const Plan& plan) {
      auto refusal = judge(plan);
      if (refusal) ++refusals.try_emplace(refusal->rule, Asked{0, refusal->why}).first->second.times;
      return refusal;
    });
    if (cover.plans.empty()) throw UserError("suite " + suite.name + ": " + why_nothing(refusals));
    all.insert(all.end(), cover.plans.begin(), cover.plans.end());
    result.covered = std::move(cover.counts);
    result.covering = cover.needed;
  }
  all.insert(all.end(), suite.also.begin(), suite.also.end());

  std::set<std::string> seen;
  for (const Plan& plan : all) {
    if (!seen.insert(plan.line()).second) continue;
    if (const auto refusal = judge(plan))
      result.refused.push_back({plan, *refusal});
    else
      result.plans.push_back(plan);
  }
  result.in_suite = static_cast<i64>(result.plans.size());
  return result;
}

}  // namespace lockstep
