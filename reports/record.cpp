#include "reports/record.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "kernels/cores.hpp"
#include "ref/error.hpp"
#include "reports/plan_table.hpp"

#ifndef LOCKSTEP_FLAGS
#define LOCKSTEP_FLAGS "unknown"
#endif

namespace lockstep {
namespace {

constexpr i64 kVersion = 1;
const std::string kRunFormat = "lockstep run", kPlanFormat = "lockstep plan";

// A run's root attributes by name: one list for writing and reading.
template <class Visitor>
void each_attribute(Visitor&& attribute) {
  attribute("suite", &RunRecord::suite);
  attribute("model", &RunRecord::model);
  attribute("model_hash", &RunRecord::model_hash);
  attribute("data", &RunRecord::data);
  attribute("data_hash", &RunRecord::data_hash);
  attribute("dtype", &RunRecord::dtype);
  attribute("revision", &RunRecord::revision);
  attribute("compiler", &RunRecord::compiler);
  attribute("flags", &RunRecord::flags);
  attribute("host", &RunRecord::host);
  attribute("cpu", &RunRecord::cpu);
  attribute("isa", &RunRecord::isa);
  attribute("device", &RunRecord::device);
  attribute("launch", &RunRecord::launch);
  attribute("comm", &RunRecord::comm);
  attribute("simulated_with", &RunRecord::simulated_with);
  attribute("predicted_with", &RunRecord::predicted_with);
  attribute("started", &RunRecord::started);
  attribute("verdict", &RunRecord::verdict);
  attribute("hash", &RunRecord::hash);
  attribute("reference_hash", &RunRecord::reference_hash);
  attribute("seed", &RunRecord::seed);
  attribute("batch", &RunRecord::batch);
  attribute("seq", &RunRecord::seq);
  attribute("steps", &RunRecord::steps);
  attribute("parameters", &RunRecord::parameters);
  attribute("cores", &RunRecord::cores);
}

i64 whole_number(const h5::Reader& file, const std::string& name) {
  const std::string text = file.attribute(name);
  i64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    throw UserError(
        fmt::format("'{}' is damaged: attribute '{}' is no whole number; write it anew", file.path(), name));
  return value;
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

}  // namespace

std::string complaint(const PlanRecord& p) {
  if (p.status == "ok") return {};
  if (!p.ended.empty()) return fmt::format("{}: {}", p.status, p.ended);
  for (const auto& [gate, found] : {std::pair{"numbers", &p.numbers},
                                    {"messages", &p.messages},
                                    {"memory", &p.memory},
                                    {"fast", &p.fast}})
    if (*found != "pass" && *found != "not run" && *found != kNotPossible)
      return fmt::format("{}: {}", gate, *found);
  return p.status;
}

void write_run(const RunRecord& run, const std::string& path) {
  h5::Writer file(path);
  file.attribute("format", kRunFormat);
  file.attribute("version", kVersion);
  each_attribute([&](const char* name, auto field) {
    if constexpr (std::is_same_v<decltype(field), std::string RunRecord::*>)
      file.attribute(name, run.*field);
    else
      file.attribute(name, i64{run.*field});
  });

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

RunRecord read_run(const std::string& path) {
  const h5::Reader file(path);
  if (!file.has_attribute("format") || file.attribute("format") != kRunFormat)
    throw UserError(fmt::format("'{}' is not a run file (reports/schema.md says what one is)", path));
  if (const i64 version = whole_number(file, "version"); version != kVersion)
    throw UserError(fmt::format("'{}' is a run file of version {}; this program reads version {}", path,
                                version, kVersion));
  RunRecord run;
  const std::vector<std::string> names = file.attributes();
  each_attribute([&](const char* name, auto field) {
    if (std::find(names.begin(), names.end(), name) == names.end()) return;
    if constexpr (std::is_same_v<decltype(field), std::string RunRecord::*>)
      run.*field = file.attribute(name);
    else
      run.*field = static_cast<std::decay_t<decltype(run.*field)>>(whole_number(file, name));
  });
  run.plans = read_plans(file);
  const std::vector<std::string> rules = file.strings("/refused/rule");
  const std::vector<i64> refused = file.read<i64>("/refused/plans").values;
  if (rules.size() != refused.size())
    throw UserError(
        fmt::format("'{}' is damaged: {} rules, and {} numbers of plans they refused; write it anew", path,
                    rules.size(), refused.size()));
  for (std::size_t i = 0; i < rules.size(); ++i) run.refused[rules[i]] = refused[i];
  return run;
}

void write_plan(const PlanRecord& plan, const std::string& identity, const std::string& path) {
  h5::Writer file(path);
  file.attribute("format", kPlanFormat);
  file.attribute("version", kVersion);
  file.attribute("identity", identity);
  write_plans(file, {plan});
  file.close();
}

PlanRecord read_plan(const std::string& identity, const std::string& path) {
  const h5::Reader file(path);
  if (!file.has_attribute("format") || file.attribute("format") != kPlanFormat)
    throw UserError(fmt::format("'{}' is not a plan's file (reports/schema.md says what one is)", path));
  if (file.attribute("identity") != identity) throw UserError(fmt::format("'{}' is of another sweep", path));
  return read_plan(file);
}

// Files of a revision may differ from it unseen, so it does not say by itself which program this is.
std::string build_identity(const std::vector<std::string>& objects) {
  const auto hash_of = [](const std::filesystem::path& file, XXH64_hash_t seed) {
    std::ifstream in(file, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
  };
  std::error_code error;
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  XXH64_hash_t hash = hash_of("/proc/self/exe", 0);
  for (const std::string& object : objects) hash = hash_of(folder / object, hash);
  return fmt::format("{} ({:016x})", git_revision(), hash);
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, HOST_NAME_MAX) == 0 ? name : "unknown";
}

void describe_machine(RunRecord& run) {
  run.revision = git_revision();
  run.compiler = compiler_name();
  run.flags = LOCKSTEP_FLAGS;
  run.host = host_name();
  run.cpu = processor_name();
  run.cores = cores();
  run.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace lockstep
