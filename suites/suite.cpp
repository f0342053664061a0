#include "suites/suite.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "ref/error.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

constexpr i64 kMostSteps = 1000000;

// One table of the file. Every key that is asked for becomes known; finish() refuses the others.
class Section {
 public:
  Section(const std::string& file, const std::string& name, const toml::table* table)
      : file_(file), name_(name), table_(table) {}

  [[noreturn]] void fail(const toml::node& at, const std::string& what) const {
    throw UserError(fmt::format("{}:{}: {}", file_, at.source().begin.line, what));
  }
  [[noreturn]] void missing(const std::string& key) const {
    throw UserError(fmt::format("{}: {} is missing in {}", file_, key, name_));
  }

  const toml::node* find(const std::string& key) {
    known_.push_back(key);
    return table_ ? table_->get(key) : nullptr;
  }
  std::string text(const std::string& key, const toml::node& node) const {
    if (!node.is_string()) fail(node, fmt::format("{} must be a text in quotes, not {}", key, type_of(node)));
    return *node.value<std::string>();
  }
  void read(const std::string& key, std::string& value) {
    if (const toml::node* node = find(key)) value = text(key, *node);
  }
  void read(const std::string& key, i64& value) {
    const toml::node* node = find(key);
    if (node && !node->is_integer())
      fail(*node, fmt::format("{} must be a whole number, not {}", key, type_of(*node)));
    if (node) value = *node->value<i64>();
  }
  void read(const std::string& key, double& value) {
    const toml::node* node = find(key);
    if (node && !node->is_number())
      fail(*node, fmt::format("{} must be a number, not {}", key, type_of(*node)));
    if (node) value = *node->value<double>();
  }
  void read(const std::string& key, int& value, i64 least, i64 most) {
    i64 number = value;
    read(key, number);
    if (number < least || number > most)
      fail(*table_->get(key), fmt::format("{} is {}; it must be from {} to {}", key, number, least, most));
    value = static_cast<int>(number);
  }
  void read(const std::string& key, double& value, double least, double most) {
    read(key, value);
    if (!(least <= value && value <= most))
      fail(*table_->get(key), fmt::format("{} is {}; it must be from {} to {}", key, value, least, most));
  }
  const toml::table* table(const std::string& key) {
    const toml::node* node = find(key);
    if (node && !node->is_table()) fail(*node, fmt::format("{0} must be a table: write [{0}]", key));
    return node ? node->as_table() : nullptr;
  }

  void finish() const {
    if (!table_) return;
    for (const auto& [key, node] : *table_)
      if (const std::string wrong(key.str()); std::find(known_.begin(), known_.end(), wrong) == known_.end())
        fail(node,
             fmt::format("no key `{}` in {}; did you mean `{}`?", wrong, name_, nearest(wrong, known_)));
  }

  static std::string type_of(const toml::node& node) {
    std::string type;
    node.visit([&](const auto& n) {
      using Node = std::decay_t<decltype(n)>;
      type = toml::is_string<Node>                                     ? "a text"
             : toml::is_integer<Node> || toml::is_floating_point<Node> ? "a number"
             : toml::is_boolean<Node>                                  ? "true or false"
             : toml::is_array<Node>                                    ? "a list"
             : toml::is_table<Node>                                    ? "a table"
                                                                       : "a date or time";
      if constexpr (toml::is_integer<Node> || toml::is_floating_point<Node>)
        type = fmt::format("{}", n.get());
      if constexpr (toml::is_string<Node>) type = fmt::format("\"{}\"", n.get());
    });
    return type;
  }

 private:
  const std::string& file_;
  std::string name_;
  const toml::table* table_;
  std::vector<std::string> known_;
};

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
    if (path->empty()) run.missing(key);
    *path = (folder / *path).lexically_normal().string();
  }
  for (const Setting& s : settings_list())
    std::visit([&](auto field) { run.read(s.name, suite.settings.*field); }, s.field);
  run.read("isa", suite.isa);
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

void read_grid(Section axes, Suite& suite) {
  std::vector<SuiteAxis>& grid = suite.grids.emplace_back();
  Plan probe = Plan::parse("");
  for (const Word& word : plan_words()) {
    const toml::node* node = axes.find(word.name);
    if (!node) continue;
    SuiteAxis axis{word.name, {}};
    const toml::array one;
    const toml::array* list = node->as_array();
    auto add = [&](const toml::node& value) {
      axis.values.push_back(axis_value(axes, word.name, value));
      located(axes, value, [&] { probe.set(word.name, axis.values.back()); });
    };
    if (!list)
      add(*node);
    else
      for (const toml::node& value : *list) add(value);
    if (axis.values.empty()) axes.fail(*node, fmt::format("{} needs at least one value", word.name));
    grid.push_back(std::move(axis));
  }
  axes.finish();
}

// One [axes], or several [[axes]].
void read_axes(const Section& file, const toml::node& node, const std::string& path, Suite& suite) {
  if (const toml::table* table = node.as_table()) return read_grid({path, "[axes]", table}, suite);
  const toml::array* list = node.as_array();
  if (!list || !list->is_homogeneous<toml::table>())
    file.fail(node, "axes must be a table or a list of tables: write [axes] or [[axes]]");
  for (const toml::node& entry : *list) read_grid({path, "[[axes]]", entry.as_table()}, suite);
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

toml::table parse(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    throw UserError(fmt::format("{}: this suite cannot be read; it must be an existing TOML file", path));
  try {
    return toml::parse_file(path);
  } catch (const toml::parse_error& e) {
    throw UserError(fmt::format("{}:{}: not TOML: {}", path, e.source().begin.line, e.description()));
  }
}

}  // namespace

Suite read_suite(const std::string& path) {
  const toml::table tree = parse(path);
  Suite suite;
  suite.name = std::filesystem::path(path).stem().string();
  Section file(path, "a suite", &tree);
  const toml::table *run = file.table("run"), *limits = file.table("limits");
  const toml::node *axes = file.find("axes"), *also = file.find("also");
  file.finish();
  read_run({path, "[run]", run}, std::filesystem::path(path).parent_path(), suite);
  if (axes) read_axes(file, *axes, path, suite);
  Section limit(path, "[limits]", limits);
  limit.read("ranks", suite.max_ranks, 1, 64);
  limit.read("seconds", suite.max_seconds, 0, 1e9);
  limit.read("memory", suite.max_memory, 0, 1e6);
  limit.finish();
  if (also) read_also(file, *also, path, suite);
  if (suite.grids.empty() && suite.also.empty()) file.missing("[axes] or [[also]]");
  check_settings(suite.settings);
  return suite;
}

std::map<std::string, i64> Enumeration::by_rule() const {
  std::map<std::string, i64> count;
  for (const Refused& r : refused) ++count[r.refusal.rule];
  return count;
}

Enumeration enumerate(const Suite& suite, const ModelConfig& model) {
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
  all.insert(all.end(), suite.also.begin(), suite.also.end());

  Enumeration result;
  std::set<std::string> seen;
  for (const Plan& plan : all) {
    if (!seen.insert(plan.line()).second) continue;
    std::optional<Refusal> refusal;
    if (plan.ranks() > suite.max_ranks)
      refusal = {"limit-ranks",
                 fmt::format("{} ranks, but the suite's limit is {}", plan.ranks(), suite.max_ranks)};
    else
      refusal = refuse(plan, model, suite.settings);
    if (refusal)
      result.refused.push_back({plan, *refusal});
    else
      result.plans.push_back(plan);
  }
  return result;
}

}  // namespace lockstep
