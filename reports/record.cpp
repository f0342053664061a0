#include "reports/record.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <thread>

#include "reports/h5.hpp"

#ifndef LOCKSTEP_FLAGS
#define LOCKSTEP_FLAGS "unknown"
#endif

namespace lockstep {
namespace {

using Plans = std::vector<PlanRecord>;
constexpr i64 kVersion = 1;

// One column of /plans: f(plan) for every plan.
template <class F>
auto column(const Plans& plans, F f) {
  std::vector<std::decay_t<decltype(std::invoke(f, plans[0]))>> values;
  for (const PlanRecord& plan : plans) values.push_back(std::invoke(f, plan));
  return values;
}

// A column of lists of unequal length: one row per plan, short rows filled with NaN.
template <class F>
void write_ragged(h5::Writer& file, const std::string& name, const Plans& plans, F list) {
  std::size_t width = 0;
  for (const PlanRecord& plan : plans) width = std::max(width, std::invoke(list, plan).size());
  std::vector<double> values(plans.size() * width, std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const std::vector<double>& row = std::invoke(list, plans[i]);
    std::copy(row.begin(), row.end(), values.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  file.write(name, {plans.size(), width}, values.data());
}

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
  const auto texts = column(plans, [&](const PlanRecord& p) { return value_or_empty(p.words, word); });
  std::vector<i64> numbers(texts.size());
  bool all = true;
  for (std::size_t i = 0; i < texts.size(); ++i) all = all && parse_integer(texts[i], &numbers[i]);
  const std::string name = "/plans/word/" + word;
  if (all)
    file.write(name, numbers);
  else
    file.write(name, texts);
}

void write_plans(h5::Writer& file, const Plans& plans) {
  file.group("/plans");
  const auto text = [&](const char* name, std::string PlanRecord::*field) {
    file.write(std::string("/plans/") + name, column(plans, field));
  };
  const auto number = [&](const char* name, auto field) {
    file.write(std::string("/plans/") + name,
               column(plans, [&](const PlanRecord& p) { return static_cast<i64>(p.*field); }));
  };
  text("plan", &PlanRecord::plan);
  text("mode", &PlanRecord::mode);
  text("status", &PlanRecord::status);
  text("numbers", &PlanRecord::numbers);
  text("messages", &PlanRecord::messages);
  text("memory", &PlanRecord::memory);
  text("hash", &PlanRecord::hash);
  number("ranks", &PlanRecord::ranks);
  number("threads", &PlanRecord::threads);
  number("timed", &PlanRecord::timed);
  number("tokens_per_step", &PlanRecord::tokens_per_step);
  number("peak_bytes", &PlanRecord::peak_bytes);
  number("arena_bytes", &PlanRecord::arena_bytes);
  number("resident_bytes", &PlanRecord::resident_bytes);
  write_ragged(file, "/plans/loss", plans, &PlanRecord::loss);
  write_ragged(file, "/plans/grad_norm", plans, &PlanRecord::grad_norm);
  write_ragged(file, "/plans/step_seconds", plans, &PlanRecord::step_seconds);

  file.group("/plans/word");
  for (const std::string& word : keys_of(plans, &PlanRecord::words)) write_word(file, plans, word);

  file.group("/plans/peak_by_kind");
  for (const std::string& kind : keys_of(plans, &PlanRecord::peak_by_kind))
    file.write("/plans/peak_by_kind/" + kind,
               column(plans, [&](const PlanRecord& p) { return value_or_empty(p.peak_by_kind, kind); }));

  file.group("/plans/traffic");
  for (const std::string& axis : keys_of(plans, &PlanRecord::traffic)) {
    const auto of_axis = [&](const PlanRecord& p) { return value_or_empty(p.traffic, axis); };
    const std::string group = "/plans/traffic/" + axis;
    file.group(group);
    file.write(group + "/messages", column(plans, [&](const PlanRecord& p) { return of_axis(p).messages; }));
    file.write(group + "/bytes", column(plans, [&](const PlanRecord& p) { return of_axis(p).bytes; }));
  }
}

// The first line that a shell command prints; empty if it fails.
[[maybe_unused]] std::string first_line_of(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return {};
  char line[256] = {};
  const bool read = std::fgets(line, sizeof line, pipe) != nullptr;
  const bool well = pclose(pipe) == 0;
  std::string text(line);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return read && well ? text : std::string{};
}

[[maybe_unused]] std::string quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// The revision it was built from; a build that did not say so asks the checkout that the program lies in.
// "-dirty" behind it: files differed from that revision.
std::string git_revision() {
#ifdef LOCKSTEP_REVISION
  return LOCKSTEP_REVISION;
#else
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "unknown";
  const std::string revision =
      first_line_of(fmt::format("git -C {} describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null",
                                quoted(program.parent_path().string())));
  return revision.empty() ? "unknown" : revision;
#endif
}

std::string compiler_name() {
#ifdef __clang__
  return __VERSION__;
#else
  return std::string("g++ ") + __VERSION__;
#endif
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t value = line.find(": ");
    if (line.starts_with("model name") && value != std::string::npos) return line.substr(value + 2);
  }
  return "unknown";
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, HOST_NAME_MAX) == 0 ? name : "unknown";
}

}  // namespace

void write_run(const RunRecord& run, const std::string& path) {
  h5::Writer file(path);
  file.attribute("format", std::string("lockstep run"));
  file.attribute("version", kVersion);
  const std::pair<const char*, std::string RunRecord::*> texts[] = {
      {"suite", &RunRecord::suite},
      {"model", &RunRecord::model},
      {"model_hash", &RunRecord::model_hash},
      {"data", &RunRecord::data},
      {"data_hash", &RunRecord::data_hash},
      {"dtype", &RunRecord::dtype},
      {"revision", &RunRecord::revision},
      {"compiler", &RunRecord::compiler},
      {"flags", &RunRecord::flags},
      {"host", &RunRecord::host},
      {"cpu", &RunRecord::cpu},
      {"isa", &RunRecord::isa},
      {"started", &RunRecord::started},
      {"verdict", &RunRecord::verdict},
      {"hash", &RunRecord::hash},
      {"reference_hash", &RunRecord::reference_hash},
  };
  for (const auto& [name, field] : texts) file.attribute(name, run.*field);
  const std::pair<const char*, i64> numbers[] = {
      {"seed", run.seed},   {"batch", run.batch},           {"seq", run.seq},
      {"steps", run.steps}, {"parameters", run.parameters}, {"cores", run.cores}};
  for (const auto& [name, value] : numbers) file.attribute(name, value);

  write_plans(file, run.plans);

  std::vector<std::string> rules;
  std::vector<i64> refused;
  for (const auto& [rule, plans] : run.refused) {
    rules.push_back(rule);
    refused.push_back(plans);
  }
  file.group("/refused");
  file.write("/refused/rule", rules);
  file.write("/refused/plans", refused);
  file.close();
}

void describe_machine(RunRecord& run) {
  run.revision = git_revision();
  run.compiler = compiler_name();
  run.flags = LOCKSTEP_FLAGS;
  run.host = host_name();
  run.cpu = cpu_name();
  run.cores = static_cast<int>(std::thread::hardware_concurrency());
  run.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace lockstep
