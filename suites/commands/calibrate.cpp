// lockstep calibrate: measures this machine and writes it down as a cluster, for lockstep plan.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "kernels/cores.hpp"
#include "parallel/comm/mpi.hpp"
#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/options.hpp"
#include "suites/here.hpp"
#include "suites/planner/cluster_text.hpp"
#include "suites/planner/measure/measure.hpp"
#include "suites/planner/measure/measure_nccl.hpp"
#include "suites/progress.hpp"

namespace lockstep::calibrate_cli {
namespace {

struct Options {
  std::string out, device = "cpu", comm = "local", dtype, links;
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
std::string command_line(const Options& o, int ranks) {
  std::string line = o.comm == "local" ? "" : fmt::format("mpirun -n {} ", ranks);
  line += fmt::format("lockstep calibrate --isa {} --threads {}", isa_here(o.how.isa), o.how.threads);
  if (o.comm != "local") line += fmt::format(" --comm {}", o.comm);
  if (o.how.accelerator) line += fmt::format(" --device {}", o.device);
  if (o.how.accelerator || o.how.bf16) line += fmt::format(" --dtype {}", o.dtype);
  if (!o.links.empty()) line += fmt::format(" --links {}", o.links);
  if (o.how.quick) line += " --quick";
  return line;
}

void show_and_run(const std::vector<MeasureStep>& steps) {
  std::vector<double> shares;
  for (const MeasureStep& step : steps) shares.push_back(step.share);
  Progress progress(std::move(shares));
  for (const MeasureStep& step : steps) {
    progress.begin(step.what);
    step.run();
    progress.end(step.what);
  }
  progress.finish();
}

// By this process, or by each of a job's: the first one measures its own device, all of them what joins them.
int calibrate_among(MpiWorld* job, Fabrics* fabrics, Options& o) {
  o.how.accelerator = device_here(o.device);
  const bool first = !job || job->rank() == 0;
  Calibration found;
  const std::vector<MeasureStep> alone = first ? measure_steps(o.how, found) : std::vector<MeasureStep>{};
  OnRanks ranks;
  std::vector<MeasureStep> together;
  if (job) {
    ranks = over_nccl(*job, *o.how.accelerator, *fabrics, o.how.isa);
    together = link_steps(ranks, job->size() / job->ranks_here(), job->ranks_here(), o.how.quick, found);
  }
  if (!first) {
    job->from_first(std::string());  // until its device is measured
    for (const MeasureStep& step : together) step.run();
    return 0;
  }
  std::FILE* file = std::fopen(o.out.c_str(), "w");
  if (!file) throw UserError(fmt::format("{}: cannot be written", o.out));
  std::vector<MeasureStep> steps = alone;
  if (job) steps.push_back({"the other ranks", 0.1, [&] { job->from_first(std::string()); }});
  steps.insert(steps.end(), together.begin(), together.end());
  show_and_run(steps);
  if (!o.links.empty()) take_links(load_cluster(o.links), found.cluster);
  const std::string text =
      cluster_text(found.cluster, fmt::format("Measured by `{}`.", command_line(o, job ? job->size() : 1)));
  const bool written = std::fputs(text.c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) throw UserError(fmt::format("{}: cannot be written", o.out));
  load_cluster(o.out);  // what is written can be read
  write_measurements(beside(o.out), o.how, found.notes);
  fmt::print("calibrated: {}, and what was measured, one by one: {}\n", o.out, beside(o.out));
  if (o.how.accelerator && found.cluster.devices == 1)
    fmt::print(
        "it is a cluster of one device: --comm nccl measures what joins several, --links FILE takes it over "
        "from a cluster's file\n");
  return 0;
}

int calibrate(Options& o) {
  check_isa(o.how.isa);
  const bool cpu = o.device == "cpu";
  if (cpu && !o.links.empty()) throw UserError("calibrate: --links is of a GPU's: it needs --device cuda");
  if (o.dtype.empty()) o.dtype = cpu ? "float32" : "bf16";
  o.how.bf16 = o.dtype == "bf16";
  if (!o.links.empty() && o.comm != "local")
    throw UserError("calibrate: --comm nccl measures what --links takes over; leave one of them out");
  if (!o.links.empty()) load_cluster(o.links);
  // A rank whose threads share cores is slower than any that would be planned with.
  if (const int here = cores(); o.how.threads > here)
    throw UserError(fmt::format("calibrate: --threads {} are more than the {} core{} here", o.how.threads,
                                here, here == 1 ? "" : "s"));
  if (o.comm == "local") {
    check_started_once("start it once, or with --comm nccl");
    return calibrate_among(nullptr, nullptr, o);
  }
  check_comm(o.comm, o.device);
  return with_mpi([&](MpiWorld& job) {
    Fabrics* fabrics = fabrics_here(o.comm, o.device);
    const int here = job.from_first(job.ranks_here());
    if (job.ranks_here() != here || job.rank() % here != job.rank_here())
      throw UserError(
          "calibrate: every node must have as many ranks as the others, and neighbours among them "
          "(mpirun --map-by slot)");
    return calibrate_among(&job, fabrics, o);
  });
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--out", o->out, "the cluster's file, as `lockstep plan --cluster` reads it")->required();
  add_device(app, o->device);
  app.add_option("--comm", o->comm,
                 "nccl: each process of mpirun -n RANKS has a GPU, and what joins those is measured too")
      ->capture_default_str()
      ->check(CLI::IsMember({"local", "nccl"}));
  app.add_option("--dtype", o->dtype,
                 "of weights and activations: float32 (the default), bf16 (a GPU's default)")
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
}  // namespace lockstep::calibrate_cli
