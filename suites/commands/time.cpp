// lockstep time: how long a plan's step takes, and what part of the device's peak that is. Nothing is
// compared: on a model that is too large for a reference on one core, after `lockstep gate` has held the
// plan's words to one.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "kernels/cores.hpp"
#include "parallel/comm/mpi.hpp"
#include "parallel/device/engine.hpp"
#include "ref/error.hpp"
#include "ref/weights.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/option_checks.hpp"
#include "suites/commands/options.hpp"
#include "suites/here.hpp"
#include "suites/planner/measure/kernel_times.hpp"
#include "suites/planner/planner.hpp"
#include "suites/run/enough_memory.hpp"
#include "suites/run/reference.hpp"
#include "suites/settings_list.hpp"
#include "suites/timing/stopwatch.hpp"

namespace lockstep::time_cli {
namespace {

struct Options {
  std::string model, data, plan = "dp=1", isa = "auto", device = "cpu", comm = "local", scratch;
  int threads = 1;
  double peak = 0;  // TFLOP/s of a device
  bool exact = false, kernels = false, graphs = false;
  std::string csv;
  Settings settings;
};

// By each process of a job, or by this one alone.
int time_among(MpiWorld* mpi, Fabrics* fabrics, const Options& o) {
  const ModelConfig model = load_model_config(o.model);
  const TokenFile data(o.data);
  check_data(data, o.data, model, o.settings);
  Settings settings = o.settings;
  settings.fast = !o.exact;
  const Run run{model, settings, legal_plan(o.plan, model, settings), &data};
  check_job_size(mpi, run.plan.ranks(), "time");
  const Prepared prepared = prepare(run);
  refuse_deadlock(prepared);
  const Launch how{.isa = o.isa,
                   .threads = o.threads,
                   .mpi = mpi,
                   .scratch = o.scratch,
                   .accelerator = device_here(o.device),
                   .graphs = o.graphs,
                   .fabrics = fabrics};
  const int steps = static_cast<int>(settings.steps);
  // A process makes its rank's weights itself, a tensor at a time; several ranks share whole ones, made once.
  const bool shared = !mpi && run.plan.ranks() > 1;
  check_memory(prepared, how, shared ? 1 : 0);
  check_file("--csv", o.csv);
  const Weights initial = shared ? fresh_weights(model, settings) : Weights{};
  const Timed timed = time_steps(prepared, how, initial, {.least = steps, .most = steps});
  const bool suffice = mpi ? mpi->cores_suffice(o.threads) : run.plan.ranks() * o.threads <= cores();
  if (mpi && mpi->rank() > 0) return 0;
  const double seconds = median(timed.step_seconds);
  const double rate = model_flops(model, settings) / seconds / run.plan.ranks() / 1e12;
  fmt::print("{}, {}{}: {}\n", run.plan.line(), dtype_of(settings), o.exact ? "" : ", fast",
             how.accelerator ? how.accelerator->name() : isa_here(o.isa));
  fmt::print("median step {:.6f} s of {}, {:.1f} tokens/s, {:.3f} model TFLOP/s a rank", seconds, steps,
             static_cast<double>(settings.batch * settings.seq) / seconds, rate);
  if (o.peak > 0) fmt::print(", {:.2f} % of {:g}", 100 * rate / o.peak, o.peak);
  if (!how.accelerator && !suffice)
    fmt::print("; {} threads had not a core each", run.plan.ranks() * o.threads);
  fmt::print("; timed, not checked\n");
  if (!o.kernels && o.csv.empty()) return 0;
  const auto engine = how.accelerator ? how.accelerator->engine(0, cpu_ops(o.isa), settings.fast) : nullptr;
  const KernelTimes times = kernel_times(prepared, engine.get(), o.isa, o.threads);
  if (o.kernels) fmt::print("{}", kernel_table(times, seconds, o.peak * 1e12));
  if (!o.csv.empty()) write_kernel_csv(times, o.csv);
  return 0;
}

int command_time(const Options& o) {
  check_settings(o.settings);
  check_isa(o.isa);
  check_graphs(o.graphs, o.device);
  check_device(o.device);
  check_comm(o.comm, o.device);
  if (o.comm == "local") return time_among(nullptr, nullptr, o);
  if (o.kernels || !o.csv.empty())
    throw UserError("--kernels and --csv time one process's kernels: they need --comm local");
  return with_mpi([&](MpiWorld& world) { return time_among(&world, fabrics_here(o.comm, o.device), o); });
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--model", o->model, "config.json of a Llama")->required();
  app.add_option("--data", o->data, "token file (datasets/format.md)")->required();
  add_plan(app, o->plan);
  add_settings(app, o->settings);
  add_dtype(app, o->settings);
  app.add_flag("--exact", o->exact, "time exact mode; else fast mode");
  app.add_option("--peak", o->peak, "TFLOP/s of a device, to say what part of it the model's operations are")
      ->check(above_zero());
  app.add_flag("--kernels", o->kernels,
               "time each kernel of the step alone, too, and say how near its bound it is");
  app.add_option("--csv", o->csv, "write those times to this file");
  add_kernels(app, o->isa, o->threads);
  add_device(app, o->device);
  add_comm(app, o->comm);
  add_graphs(app, o->graphs);
  add_scratch(app, o->scratch);
  return [o] { return command_time(*o); };
}

const Command command("time", "time one plan's steps, and say what part of a device's peak they reach",
                      declare);

}  // namespace
}  // namespace lockstep::time_cli
