#include "suites/planner/published/group.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "suites/bytes.hpp"
#include "suites/planner/cluster_table.hpp"
#include "suites/section.hpp"
#include "suites/toml_file.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

void check_column(const Section& section, const toml::node& at, const std::string& column) {
  const std::vector<std::string>& known = published_columns();
  if (std::find(known.begin(), known.end(), column) == known.end())
    section.fail(at, fmt::format("no column `{}`{}", column, did_you_mean(column, known)));
}

std::string word_of(const Section& section, const std::string& key, const toml::node& node) {
  if (node.is_integer()) return fmt::to_string(*node.value<i64>());
  return section.text(key, node);
}

std::vector<std::string> words_of(const Section& section, const std::string& key, const toml::node& node) {
  std::vector<std::string> words;
  if (const toml::array* list = node.as_array())
    for (const toml::node& word : *list) words.push_back(word_of(section, key, word));
  else
    words.push_back(word_of(section, key, node));
  return words;
}

RowSelector read_selector(Section& section) {
  RowSelector s;
  if (const toml::table* when = section.table("when"))
    for (const auto& [key, node] : *when) {
      const std::string column(key.str());
      check_column(section, node, column);
      s.words[column] = words_of(section, column, node);
    }
  return s;
}

template <class Read>
void each_table(Section& top, const std::string& file, const std::string& key, const Read& read) {
  const toml::node* node = top.find(key);
  if (!node) return;
  const toml::array* list = node->as_array();
  if (!list || !list->is_homogeneous<toml::table>()) top.fail(*node, fmt::format("write [[{}]]", key));
  for (const toml::node& table : *list) {
    Section section(file, fmt::format("[[{}]]", key), table.as_table());
    read(section);
    section.finish();
  }
}

RowRule read_rule(Section& section) {
  RowRule rule;
  rule.when = read_selector(section);
  section.read("plan", rule.plan);
  section.read("skip", rule.skip);
  if (const toml::table* set = section.table("set"))
    for (const auto& [key, node] : *set) {
      check_column(section, node, std::string(key.str()));
      rule.set[std::string(key.str())] = word_of(section, std::string(key.str()), node);
    }
  return rule;
}

FittedRows read_fitted(Section& section) {
  FittedRows f;
  f.which = read_selector(section);
  section.read("what", f.what);
  section.read("every", f.which.every);
  section.read("first", f.which.first);
  if (const toml::node* node = section.find("rows")) {
    const toml::array* list = node->as_array();
    if (!list || !list->is_homogeneous<i64>())
      section.fail(*node, "rows must be a list of whole numbers, of rows from 1");
    for (const toml::node& n : *list) f.which.rows.push_back(*n.value<i64>());
  }
  return f;
}

Bar read_bar(Section section) {
  Bar bar;
  for (const auto& [key, value] :
       {std::pair{"mean", &bar.mean}, std::pair{"median", &bar.median}, std::pair{"worst", &bar.worst},
        std::pair{"memory_mean", &bar.memory_mean}, std::pair{"memory_median", &bar.memory_median},
        std::pair{"memory_worst", &bar.memory_worst}, std::pair{"regret", &bar.regret},
        std::pair{"rank", &bar.rank}, std::pair{"precision", &bar.precision},
        std::pair{"recall", &bar.recall}}) {
    double number = -1;
    section.read(key, number);
    if (number >= 0) *value = number;
  }
  section.finish();
  return bar;
}

// What a table does not say it takes from another, table by table.
void complete(toml::table& table, const toml::table& base) {
  for (const auto& [key, node] : base) {
    toml::node* mine = table.get(key);
    if (!mine)
      table.insert(key, node);
    else if (mine->is_table() && node.is_table())
      complete(*mine->as_table(), *node.as_table());
  }
}

// [cluster.<gpu_type>] with what its `like`, another group's, and its `base` say besides.
void complete(toml::table& table, const std::string& file, Section& section) {
  if (const toml::node* like = table.get("like")) {
    const std::string name = section.text("like", *like);
    const std::size_t dot = std::min(name.find('.'), name.size());
    const std::string other = name.substr(0, dot) + ".toml",
                      type = name.substr(std::min(dot + 1, name.size()));
    const std::string there = (fs::path(file).parent_path() / other).string();
    toml::table from = read_toml(there);
    toml::table* clusters = from["cluster"].as_table();
    toml::table* cluster = clusters ? clusters->get_as<toml::table>(type) : nullptr;
    if (!cluster)
      section.fail(*like, fmt::format("like is \"{}\"; it must name a group and a gpu_type of it, such as "
                                      "vtrain.a100",
                                      name));
    table.erase("like");
    complete(*cluster, there, section);
    complete(table, *cluster);
  }
  if (const toml::node* base = table.get("base")) {
    const fs::path beside = fs::path(file).parent_path().parent_path() / "clusters";
    const toml::table from = read_toml((beside / section.text("base", *base)).lexically_normal().string());
    table.erase("base");
    complete(table, from);
  }
}

void read_clusters(PublishedGroup& g, Section& top, toml::table& file) {
  const toml::table* all = top.table("cluster");
  if (!all) return top.lacks("[cluster.<gpu_type>]");
  for (auto& [key, node] : *file.get("cluster")->as_table()) {
    toml::table* table = node.as_table();
    if (!table) top.fail(node, fmt::format("write [cluster.{}]", key.str()));
    complete(*table, g.file, top);
    g.clusters[std::string(key.str())] = read_cluster(*table, g.file);
  }
}

}  // namespace

bool RowSelector::has_words_of(const PublishedRow& row) const {
  return std::all_of(words.begin(), words.end(), [&](const auto& wanted) {
    return std::find(wanted.second.begin(), wanted.second.end(), row.text(wanted.first)) !=
           wanted.second.end();
  });
}

PublishedGroup load_published_group(const std::string& path) {
  PublishedGroup g;
  g.file = path;
  toml::table file = read_toml(path);
  if (file.get_as<toml::table>("device"))
    throw UserError(fmt::format("{}: this is a cluster, and no group of published rows", path));
  Section top(g.file, "the file", &file);
  top.read("name", g.name);
  if (g.name.empty()) top.lacks("name");
  std::string shape, unit = "GiB", memory = "process";
  const auto one_of = [&](const char* key, std::string& value, const std::vector<std::string>& allowed) {
    top.read(key, value);
    if (value.empty()) return top.lacks(key);
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
      top.fail(*file.get(key),
               fmt::format("{} is \"{}\"; it must be {}", key, value, fmt::join(allowed, " or ")));
  };
  one_of("shape", shape, {"gpt", "llama"});
  one_of("memory_unit", unit, {"GiB", "GB"});
  one_of("memory", memory, {"process", "arena"});
  g.gpt = shape == "gpt";
  g.memory_unit = unit == "GiB" ? kGiB : 1e9;
  g.memory_of_process = memory == "process";
  top.read("vocab_multiple", g.vocab_multiple);
  if (g.vocab_multiple < 1) top.fail(*file.get("vocab_multiple"), "vocab_multiple must be 1 or more");
  if (const toml::node* node = top.find("tied")) {
    if (!node->is_boolean()) top.fail(*node, "tied must be true or false");
    g.tied = *node->value<bool>();
  }
  if (const toml::table* status = top.table("status")) {
    Section section(g.file, "[status]", status);
    if (const toml::node* node = section.find("fits")) g.fits = words_of(section, "fits", *node);
    if (const toml::node* node = section.find("full")) g.full = words_of(section, "full", *node);
    section.finish();
  }
  each_table(top, g.file, "row", [&](Section& section) { g.rules.push_back(read_rule(section)); });
  each_table(top, g.file, "fitted", [&](Section& section) { g.fitted.push_back(read_fitted(section)); });
  if (const toml::table* bars = top.table("bar"))
    for (const auto& [source, node] : *bars) {
      if (!node.is_table()) top.fail(node, fmt::format("write [bar.{}]", source.str()));
      g.bars[std::string(source.str())] =
          read_bar({g.file, fmt::format("[bar.{}]", source.str()), node.as_table()});
    }
  read_clusters(g, top, file);
  top.finish();
  g.rows = read_published_rows(fs::path(path).replace_extension(".csv").string());
  for (const auto& [source, bar] : g.bars)
    if (std::none_of(g.rows.begin(), g.rows.end(),
                     [&](const PublishedRow& row) { return row.text("source") == source; }))
      throw UserError(fmt::format("{}: [bar.{}] is of a source that has no rows", path, source));
  return g;
}

}  // namespace lockstep
