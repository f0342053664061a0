// A table of a TOML file (a suite's, a cluster's, a published group's), read key by key; mistakes are named
// with file and line.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "parallel/plan.hpp"
#include "ref/error.hpp"
#include "suites/toml.hpp"

namespace lockstep {

// Every key that is asked for becomes known; finish() refuses the others, and says what is missing: a
// required key that is misspelled is both, and what helps is the word that is wrong.
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
  // For finish() to say: only then are all keys known.
  void lacks(const std::string& key) { lacking_.push_back(key); }

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
    if (table_)
      for (const auto& [key, node] : *table_)
        if (const std::string wrong(key.str());
            std::find(known_.begin(), known_.end(), wrong) == known_.end())
          fail(node, fmt::format("no key `{}` in {}{}", wrong, name_, meant(wrong)));
    if (!lacking_.empty()) missing(lacking_.front());
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
  // `memory_gb` beside `memory_gb_per_s` is what is still missing, `memory_gib`.
  std::string meant(const std::string& wrong) const {
    const std::string required = did_you_mean(wrong, lacking_);
    if (!required.empty()) return required;
    const std::string near = did_you_mean(wrong, known_);
    return near.empty() && !lacking_.empty() ? fmt::format("; {} is missing", lacking_.front()) : near;
  }

  const std::string& file_;
  std::string name_;
  const toml::table* table_;
  std::vector<std::string> known_, lacking_;
};

}  // namespace lockstep
