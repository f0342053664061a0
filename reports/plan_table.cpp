#include "reports/plan_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "ref/error.hpp"
#include "reports/plan_columns.hpp"

namespace lockstep {
namespace {

using Plans = std::vector<PlanRecord>;

// How a field is stored: texts and fractions as they are, whole numbers as int64.
template <class Field>
using Stored = std::conditional_t<std::is_integral_v<Field>, i64, Field>;

template <class F>
auto values_of(const Plans& plans, F f) {
  std::vector<Stored<std::decay_t<decltype(std::invoke(f, plans[0]))>>> values;
  for (const PlanRecord& plan : plans) values.push_back(std::invoke(f, plan));
  return values;
}

struct WriteColumn {
  h5::Writer& file;
  const Plans& plans;

  template <class Field>
  void operator()(const char* name, Field PlanRecord::*field) const {
    file.write(std::string("/plans/") + name, values_of(plans, field));
  }
  // A column of lists of unequal length: one row per plan, short rows filled with NaN.
  void operator()(const char* name, std::vector<double> PlanRecord::*list) const {
    std::size_t width = 0;
    for (const PlanRecord& plan : plans) width = std::max(width, (plan.*list).size());
    std::vector<double> values(plans.size() * width, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t i = 0; i < plans.size(); ++i)
      std::copy((plans[i].*list).begin(), (plans[i].*list).end(), values.data() + i * width);
    file.write(std::string("/plans/") + name, {plans.size(), width}, values.data());
  }
};

[[noreturn]] void wrong_size(const h5::Reader& file, const std::string& name, std::size_t plans) {
  throw UserError(fmt::format("'{}' is damaged: array '{}' has not {} row{}; write it anew", file.path(),
                              name, plans, plans == 1 ? "" : "s"));
}

// A column as it is stored, one value a plan.
template <class T>
std::vector<T> column(const h5::Reader& file, const std::string& name, std::size_t plans) {
  std::vector<T> values;
  if constexpr (std::is_same_v<T, std::string>)
    values = file.strings(name);
  else
    values = file.read<T>(name).values;
  if (values.size() != plans) wrong_size(file, name, plans);
  return values;
}

struct ReadColumn {
  const h5::Reader& file;
  const std::set<std::string>& kept;
  Plans& plans;

  template <class Field>
  void operator()(const char* name, Field PlanRecord::*field) const {
    if (!kept.count(name)) return;
    const auto values = column<Stored<Field>>(file, std::string("/plans/") + name, plans.size());
    for (std::size_t i = 0; i < plans.size(); ++i) plans[i].*field = static_cast<Field>(values[i]);
  }
  void operator()(const char* name, std::vector<double> PlanRecord::*list) const {
    if (!kept.count(name)) return;
    const h5::Array<double> rows = file.read<double>(std::string("/plans/") + name);
    if (rows.shape.size() != 2 || rows.shape[0] != plans.size())
      wrong_size(file, std::string("/plans/") + name, plans.size());
    for (std::size_t i = 0; i < plans.size(); ++i) {
      std::vector<double>& values = plans[i].*list;
      const auto begin = rows.values.begin() + static_cast<std::ptrdiff_t>(i * rows.shape[1]);
      values.assign(begin, begin + static_cast<std::ptrdiff_t>(rows.shape[1]));
      // One row is as long as it is: a NaN at its end is a loss that was none.
      while (plans.size() > 1 && !values.empty() && std::isnan(values.back())) values.pop_back();
    }
  }
};

// Every key that any plan has in the map `field`, in order.
template <class F>
std::set<std::string> keys_of(const Plans& plans, F field) {
  std::set<std::string> keys;
  for (const PlanRecord& plan : plans)
    for (const auto& [key, value] : std::invoke(field, plan)) keys.insert(key);
  return keys;
}

template <class Map>
typename Map::mapped_type value_or_empty(const Map& map, const std::string& key) {
  const auto found = map.find(key);
  return found == map.end() ? typename Map::mapped_type{} : found->second;
}

bool parse_integer(const std::string& text, i64* value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc{} && stop == end;
}

// Integers where every plan's value is one, so that a reader can compare and sort them; else text.
void write_word(h5::Writer& file, const Plans& plans, const std::string& word) {
  const auto texts = values_of(plans, [&](const PlanRecord& p) { return value_or_empty(p.words, word); });
  std::vector<i64> numbers(texts.size());
  bool all = true;
  for (std::size_t i = 0; i < texts.size(); ++i) all = all && parse_integer(texts[i], &numbers[i]);
  const std::string name = "/plans/word/" + word;
  if (all)
    file.write(name, numbers);
  else
    file.write(name, texts);
}

std::vector<std::string> read_word(const h5::Reader& file, const std::string& word, std::size_t plans) {
  const std::string name = "/plans/word/" + word;
  if (file.holds_strings(name)) return column<std::string>(file, name, plans);
  std::vector<std::string> texts;
  for (i64 value : column<i64>(file, name, plans)) texts.push_back(fmt::format("{}", value));
  return texts;
}

// Every row; of the columns those that are `kept`.
Plans read_rows(const h5::Reader& file, const std::set<std::string>& kept) {
  Plans plans(file.strings("/plans/plan").size());
  each_column(ReadColumn{file, kept, plans});
  const auto members = [&](const std::string& group) {
    return kept.count(group) ? file.list("/plans/" + group) : std::vector<std::string>{};
  };
  // Sets one thing of every plan from a column.
  const auto spread = [&](const auto& values, auto set) {
    for (std::size_t i = 0; i < plans.size(); ++i) set(plans[i], values[i]);
  };
  for (const std::string& word : members("word"))
    spread(read_word(file, word, plans.size()), [&](PlanRecord& p, const auto& v) { p.words[word] = v; });
  for (const std::string& kind : members("peak_by_kind"))
    spread(column<i64>(file, "/plans/peak_by_kind/" + kind, plans.size()),
           [&](PlanRecord& p, i64 v) { p.peak_by_kind[kind] = v; });
  for (const std::string& part : members("simulated"))
    spread(column<double>(file, "/plans/simulated/" + part, plans.size()),
           [&](PlanRecord& p, double v) { p.simulated[part] = v; });
  for (const std::string& axis : members("traffic")) {
    const std::string group = "/plans/traffic/" + axis;
    spread(column<i64>(file, group + "/messages", plans.size()),
           [&](PlanRecord& p, i64 v) { p.traffic[axis].messages = v; });
    spread(column<i64>(file, group + "/bytes", plans.size()),
           [&](PlanRecord& p, i64 v) { p.traffic[axis].bytes = v; });
  }
  return plans;
}

}  // namespace

void write_plans(h5::Writer& file, const Plans& plans) {
  file.group("/plans");
  each_column(WriteColumn{file, plans});

  file.group("/plans/word");
  for (const std::string& word : keys_of(plans, &PlanRecord::words)) write_word(file, plans, word);

  file.group("/plans/peak_by_kind");
  for (const std::string& kind : keys_of(plans, &PlanRecord::peak_by_kind))
    file.write("/plans/peak_by_kind/" + kind,
               values_of(plans, [&](const PlanRecord& p) { return value_or_empty(p.peak_by_kind, kind); }));

  file.group("/plans/simulated");
  for (const std::string& part : keys_of(plans, &PlanRecord::simulated))
    file.write("/plans/simulated/" + part,
               values_of(plans, [&](const PlanRecord& p) { return value_or_empty(p.simulated, part); }));

  file.group("/plans/traffic");
  for (const std::string& axis : keys_of(plans, &PlanRecord::traffic)) {
    const auto of_axis = [&](const PlanRecord& p) { return value_or_empty(p.traffic, axis); };
    const std::string group = "/plans/traffic/" + axis;
    file.group(group);
    file.write(group + "/messages",
               values_of(plans, [&](const PlanRecord& p) { return of_axis(p).messages; }));
    file.write(group + "/bytes", values_of(plans, [&](const PlanRecord& p) { return of_axis(p).bytes; }));
  }
}

std::vector<PlanRecord> read_plans(const h5::Reader& file) {
  const std::vector<std::string> names = file.list("/plans");
  std::set<std::string> kept(names.begin(), names.end());
  kept.insert("status");  // has no default that would be true
  return read_rows(file, kept);
}

PlanRecord read_plan(const h5::Reader& file) {
  std::set<std::string> every = {"word", "peak_by_kind", "simulated", "traffic"};
  each_column([&](const char* name, auto) { every.insert(name); });
  const Plans plans = read_rows(file, every);
  if (plans.size() != 1)
    throw UserError(fmt::format("'{}' holds {} plans, not one", file.path(), plans.size()));
  return plans[0];
}

}  // namespace lockstep
