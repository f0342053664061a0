// lockstep compare: two dumps of a training run, bit for bit; or one, of any trainer, against float64; or two
// runs of sweeps, plan by plan.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "kernels/cores.hpp"
#include "ref/error.hpp"
#include "reports/dump.hpp"
#include "reports/h5.hpp"
#include "reports/readable.hpp"
#include "suites/certify/certify.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/option_checks.hpp"
#include "suites/progress.hpp"
#include "suites/sweep/compare_runs.hpp"

namespace lockstep::compare_cli {
namespace {

struct Options {
  std::string a, b;
  RunsAsked asked;
  bool complete = false;
};

// A sweep's folder stands for the run in it.
std::string file_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    throw UserError(fmt::format(
        "'{}' does not exist; name a dump, or a sweep's folder or the run.h5 in it (lockstep sweep --out)",
        path));
  if (!std::filesystem::is_directory(path)) return path;
  const std::string run = path + "/run.h5";
  if (!std::filesystem::exists(run))
    throw UserError(
        fmt::format("'{}' holds no run.h5; name the folder of a sweep (lockstep sweep --out)", path));
  return run;
}

bool is_run(const std::string& path) {
  const h5::Reader file(path);
  return file.has_attribute("format") && file.attribute("format") == "lockstep run";
}

int command_compare(const Options& o) {
  const std::string a = file_of(o.a), b = o.b.empty() ? o.b : file_of(o.b);
  for (const std::string& path : {a, b})
    if (!path.empty()) check_readable(path);
  const bool run = is_run(a), other = !b.empty() && is_run(b);
  if (o.complete && (run || !b.empty())) throw UserError("--complete is for one dump, held to float64");
  if (run && b.empty())
    throw UserError(fmt::format("'{}' is a run of a sweep; name a second one to compare it with", a));
  if (run && other) {
    const RunComparison result = compare_runs(read_run(a), read_run(b), o.asked);
    fmt::print("{}", result.text);
    return result.well ? 0 : 1;
  }
  if (run || other)
    throw UserError(fmt::format("'{}' is a run of a sweep and '{}' is not; compare two runs, or two dumps",
                                run ? a : b, run ? b : a));
  if (o.asked.slower || o.asked.all || o.asked.allow_missing)
    throw UserError("--slower, --all and --allow-missing are for two runs of sweeps, not for dumps");
  if (b.empty()) {
    Certificate certificate;
    {
      PartProgress progress("steps");
      certificate = certify(a, cores(), [&](double part) { progress.at(part); });
    }
    const bool lacks = certificate.right && o.complete && !certificate.complete;
    fmt::print("{}{}\n", certificate.text, lacks ? "; incomplete, which --complete makes a fault" : "");
    return certificate.right && !lacks ? 0 : 1;
  }
  const Comparison result = compare_dumps(a, b);
  fmt::print("{}\n", result.text);
  return result.equal ? 0 : 1;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option(
         "a", o->a,
         "a dump (lockstep train --dump, or any trainer's: suites/certify/dump_step.py), or a sweep's "
         "run: its folder, or the run.h5 in it")
      ->required();
  app.add_option(
      "b", o->b,
      "another dump of the same model, to be equal bit for bit; without it each step of the first is held "
      "to float64, within what rounding does in float32 or bf16; or a later run, to be held to the first "
      "plan by "
      "plan");
  app.add_flag("--complete", o->complete,
               "of one dump, for CI: fail also if something could not be judged, or not be told apart");
  app.add_option("--slower", o->asked.slower,
                 "of two sweeps, for CI: fail if a plan's median step is slower by more than this many "
                 "percent, and by more than the medians' 95 % intervals allow")
      ->check(zero_or_more());
  app.add_flag("--allow-missing", o->asked.allow_missing,
               "of two sweeps: do not fail if the later one lacks plans of the first");
  app.add_flag("--all", o->asked.all, "of two sweeps: print every row, not the first 20");
  return [o] { return command_compare(*o); };
}

const Command command("compare",
                      "say whether two dumps are equal, whether one is right, or what differs in two sweeps",
                      declare);

}  // namespace
}  // namespace lockstep::compare_cli
