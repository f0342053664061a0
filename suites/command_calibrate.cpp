// lockstep calibrate: measures this machine and writes it down as a cluster, for lockstep plan.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "kernels/cores.hpp"
#include "parallel/engine.hpp"
#include "ref/error.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/planner/cluster_text.hpp"
#include "suites/planner/measure.hpp"
#include "suites/progress.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string out, device = "cpu", dtype, links;
  MeasureHow how;
};

// Beside the cluster's file: all that was measured, one by one.
std::string beside(const std::string& out) {
  return std::filesystem::path(out).replace_extension(".h5").string();
}

// What one GPU cannot be asked: how many there are, and what joins them.
void take_links(const Cluster& from, Cluster& c) {
  c.devices = from.devices, c.per_node = from.per_node;
  c.node = from.node, c.network = from.network;
  c.communicator = from.communicator;
}

// The command that measures the same.
std::string command_line(const Options& o) {
  std::string line = fmt::format("lockstep calibrate --isa {} --threads {}", isa_here(o.how.isa), o.how.threads);
  if (o.how.accelerator) line += fmt::format(" --device {} --dtype {}", o.device, o.dtype);
  if (!o.links.empty()) line += fmt::format(" --links {}", o.links);
  return line;
}

int calibrate(Options& o) {
  check_isa(o.how.isa);
  if (o.device == "cpu" && !(o.dtype.empty() && o.links.empty()))
    throw UserError(fmt::format("calibrate: {} is of a GPU's: it needs --device cuda",
                                o.dtype.empty() ? "--links" : "--dtype"));
  if (o.dtype.empty()) o.dtype = o.device == "cpu" ? "float32" : "bf16";
  std::optional<Cluster> links;
  if (!o.links.empty()) links = load_cluster(o.links);
  o.how.accelerator = device_here(o.device);
  o.how.bf16 = o.dtype == "bf16";
  // A rank whose threads share cores is slower than any that would be planned with.
  if (const int here = cores(); o.how.threads > here)
    throw UserError(fmt::format("calibrate: --threads {} are more than the {} core{} here", o.how.threads,
                                here, here == 1 ? "" : "s"));
  std::FILE* file = std::fopen(o.out.c_str(), "w");
  if (!file) throw UserError(fmt::format("{}: cannot be written", o.out));
  Calibration found;
  const std::vector<MeasureStep> steps = measure_steps(o.how, found);
  std::vector<double> shares;
  for (const MeasureStep& step : steps) shares.push_back(step.share);
  Progress progress(std::move(shares));
  for (const MeasureStep& step : steps) {
    progress.begin(step.what);
    step.run();
    progress.end(step.what);
  }
  progress.finish();
  if (links) take_links(*links, found.cluster);
  const std::string text =
      cluster_text(found.cluster, fmt::format("Measured by `{}`.", command_line(o)));
  const bool written = std::fputs(text.c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) throw UserError(fmt::format("{}: cannot be written", o.out));
  load_cluster(o.out);  // what is written can be read
  write_measurements(beside(o.out), o.how, found.notes);
  fmt::print("calibrated: {}, and what was measured, one by one: {}\n", o.out, beside(o.out));
  if (o.how.accelerator && !links)
    fmt::print("it is a cluster of one device; --links FILE takes over from a cluster's file what joins more\n");
  return 0;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--out", o->out, "the cluster's file, as `lockstep plan --cluster` reads it")->required();
  add_device(app, o->device);
  app.add_option("--dtype", o->dtype, "of a GPU's weights and activations: bf16 (the default), float32")
      ->check(CLI::IsMember({"float32", "bf16"}));
  app.add_option("--links", o->links,
                 "a cluster's file: of a GPU's, the devices and what joins them are taken over from it");
  add_kernels(app, o->how.isa, o->how.threads);
  add_scratch(app, o->how.scratch);
  app.add_flag("--quick", o->how.quick, "few sizes: to try it out");
  return [o] { return calibrate(*o); };
}

const Command command("calibrate", "measure this machine's kernels, messages, copies and disk", declare);

}  // namespace
}  // namespace lockstep
