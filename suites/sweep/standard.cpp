#include "suites/sweep/standard.hpp"

#include <fmt/format.h>

#include <chrono>

#include "suites/progress.hpp"
#include "suites/run/reference_file.hpp"
#include "suites/settings_list.hpp"
#include "suites/sweep/record_of.hpp"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Everything that the reference's numbers depend on.
std::string key_of(const Standard& s) {
  const RunRecord run = record_of(s.suite, s.model, s.data);
  std::string key =
      fmt::format("{} model={} data={} build={}", run.dtype, run.model_hash, run.data_hash, build_identity());
  for (const Setting& setting : settings_list())
    std::visit([&](auto field) { key += fmt::format(" {}={}", setting.name, s.settings.*field); },
               setting.field);
  return key;
}

}  // namespace

Made make(Standard& s, const std::string& folder_file, bool keep) {
  s.initial = fresh_weights(s.model, s.settings);
  std::string file = folder_file;
  if (!file.empty() && s.suite.weak) file += fmt::format(".{}", s.settings.batch);
  const std::string key = file.empty() ? "" : key_of(s);
  Made made{};
  auto kept =
      file.empty() ? std::nullopt : kept_reference(file, key, parameter_table(s.model, s.settings.leaves));
  made.was_kept = kept.has_value();
  if (!kept) {
    const Clock::time_point start = Clock::now();
    kept.emplace();
    PartProgress progress("the reference on one device");
    kept->whole = reference_run(s.model, s.settings, s.data, s.suite.isa, s.suite.threads, s.initial,
                                [&](double part) { progress.at(part); });
    made.together = kept->seconds = since(start);
    if (keep && !file.empty()) keep_reference(file, key, *kept);
  }
  made.run = kept->seconds;
  s.reference = std::move(kept->whole);
  const Clock::time_point start = Clock::now();
  s.float64 = fast_reference(s.model, s.settings, s.data, s.reference, s.initial);
  made.together += since(start);
  s.reference_hash = s.reference.hash();
  return made;
}

}  // namespace lockstep
