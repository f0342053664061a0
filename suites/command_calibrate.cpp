// lockstep calibrate: measures this machine and writes it down as a cluster, for lockstep plan.
#include <fmt/format.h>

#include <cstdio>

#include "ref/error.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/planner/measure.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string out;
  MeasureHow how;
};

int calibrate(const Options& o) {
  check_isa(o.how.isa);
  std::FILE* file = std::fopen(o.out.c_str(), "w");
  if (!file) throw UserError(fmt::format("{}: cannot be written", o.out));
  const Cluster c = measure(o.how, [](const std::string& what) {
    fmt::print("  {}\n", what);
    std::fflush(stdout);
  });
  const std::string text =
      cluster_text(c, fmt::format("Measured by `lockstep calibrate --isa {} --threads {}`.",
                                  isa_here(o.how.isa), o.how.threads));
  const bool written = std::fputs(text.c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) throw UserError(fmt::format("{}: cannot be written", o.out));
  load_cluster(o.out);  // what is written can be read
  fmt::print("calibrated: {}\n", o.out);
  return 0;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--out", o->out, "the cluster's file, as `lockstep plan --cluster` reads it")->required();
  add_kernels(app, o->how.isa, o->how.threads);
  add_scratch(app, o->how.scratch);
  app.add_flag("--quick", o->how.quick, "few sizes: to try it out");
  return [o] { return calibrate(*o); };
}

const Command command("calibrate", "measure this machine's kernels, messages, copies and disk", declare);

}  // namespace
}  // namespace lockstep
