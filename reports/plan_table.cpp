#include "reports/plan_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
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

struct ReadColumn {
  const h5::Reader& file;
  PlanRecord& plan;

  template <class Field>
  void operator()(const char* name, Field PlanRecord::*field) const {
    const auto values = read<Field>(std::string("/plans/") + name);
    if (values.size() != 1)
      throw UserError(fmt::format("'{}' holds {} plans, not one", file.path(), values.size()));
    plan.*field = static_cast<Field>(values[0]);
  }
  void operator()(const char* name, std::vector<double> PlanRecord::*list) const {
    plan.*list = file.read<double>(std::string("/plans/") + name).values;
  }

 private:
  template <class Field>
  std::vector<Stored<Field>> read(const std::string& name) const {
    if constexpr (std::is_same_v<Field, std::string>)
      return file.strings(name);
    else
      return file.read<Stored<Field>>(name).values;
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

std::string read_word(const h5::Reader& file, const std::string& word) {
  const std::string name = "/plans/word/" + word;
  if (file.holds_strings(name)) return file.strings(name).at(0);
  return fmt::format("{}", file.scalar<i64>(name));
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

PlanRecord read_plan(const h5::Reader& file) {
  PlanRecord plan;
  each_column(ReadColumn{file, plan});
  for (const std::string& word : file.list("/plans/word")) plan.words[word] = read_word(file, word);
  for (const std::string& kind : file.list("/plans/peak_by_kind"))
    plan.peak_by_kind[kind] = file.scalar<i64>("/plans/peak_by_kind/" + kind);
  for (const std::string& part : file.list("/plans/simulated"))
    plan.simulated[part] = file.scalar<double>("/plans/simulated/" + part);
  for (const std::string& axis : file.list("/plans/traffic")) {
    const std::string group = "/plans/traffic/" + axis;
    plan.traffic[axis] = {file.scalar<i64>(group + "/messages"), file.scalar<i64>(group + "/bytes")};
  }
  return plan;
}

}  // namespace lockstep
