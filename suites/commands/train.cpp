// lockstep train: one plan over ranks of this machine, every step whole again and reported.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>

#include "parallel/comm/fabric.hpp"
#include "parallel/comm/mpi.hpp"
#include "parallel/roles.hpp"
#include "ref/error.hpp"
#include "ref/weights.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/option_checks.hpp"
#include "suites/commands/options.hpp"
#include "suites/gates/among.hpp"
#include "suites/gates/fast.hpp"
#include "suites/here.hpp"
#include "suites/planner/planner.hpp"
#include "suites/run/enough_memory.hpp"
#include "suites/run/reference.hpp"
#include "suites/run/train_report.hpp"
#include "suites/settings_list.hpp"

namespace lockstep::train_cli {
namespace {

// Runs all steps. After each one the ranks meet, and the last to come reports the step for all of them; as
// processes, rank 0 does, and only it has a report.
void train(const Prepared& p, const Launch& how, const TrainOptions& o, const Weights& initial,
           const TrainingState* resumed, TrainReport* report) {
  using Clock = std::chrono::steady_clock;
  const i64 begin = resumed ? resumed->steps : 0;
  std::optional<Assembly> assembly(std::in_place, p, 1, how.mpi);
  std::optional<StateKeeper> state;
  std::exception_ptr failed;
  i64 step = begin;
  const auto next = [&] {  // what the coming step's ranks hand in
    assembly.emplace(p, 1, how.mpi), state.reset();
    if (o.keeps(step + 1)) state.emplace(p, how.mpi);
  };
  next();
  Clock::time_point start = Clock::now();

  auto on_meeting = [&]() noexcept {
    try {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      assembly->gather();
      if (state) state->gather();
      if (report) {
        if (const std::string problem = assembly->problem(); !problem.empty())
          throw std::runtime_error(problem);
        report->step(step, *assembly, state ? &*state : nullptr, seconds);
      }
      ++step, next();
    } catch (...) {
      failed = std::current_exception();
    }
    start = Clock::now();
  };
  std::barrier meeting(how.mpi ? 1 : p.mesh.size(), on_meeting);

  launch(p, how, [&](RankView v) {
    try {
      initialise(v, resumed ? resumed->weights : initial);
      if (resumed) take_up(v, *resumed);
      for (i64 k = begin; k < p.run.settings.steps && !failed; ++k) {
        const StepResult r = v.executor.step(
            k, [&] { assembly->gradients(0, v); }, [&] { assembly->weights(0, v); });
        assembly->result(0, r, v.rank);
        if (state) state->take(v);
        meeting.arrive_and_wait();
        if (failed && how.mpi) std::rethrow_exception(failed);  // the other processes do not know it
      }
    } catch (...) {
      meeting.arrive_and_drop();  // or the others would wait for this rank for ever
      throw;
    }
  });
  if (failed) std::rethrow_exception(failed);
}

// Fast mode's gates: each step once more, from the reference's weights.
int check_fast(const Prepared& p, const TrainOptions& o, const Launch& how, const Weights& initial) {
  Settings settings = p.run.settings;
  settings.fast = false;
  Whole reference;
  FastReference float64;
  if (knows_all(how.mpi)) {
    reference = reference_run(p.run.model, settings, *p.run.data, o.isa, o.threads, initial);
    float64 = fast_reference(p.run.model, settings, *p.run.data, reference, initial);
  }
  const std::string wrong = knows_all(how.mpi) ? strays(float64, settings) : "";
  if (!agreed(how.mpi, wrong.empty())) {
    if (!wrong.empty()) fmt::print("the single device is wrong: {}\n", wrong);
    return 1;
  }
  const FastVerdict v = judge_fast(p, reference, float64,
                                   {.isa = o.isa,
                                    .threads = o.threads,
                                    .scratch = o.scratch,
                                    .accelerator = how.accelerator,
                                    .graphs = o.graphs,
                                    .mpi = how.mpi,
                                    .fabrics = how.fabrics},
                                   initial);
  if (!knows_all(how.mpi)) return 0;
  for (const auto& [gate, found] :
       {std::pair{"numbers", &v.numbers}, {"messages", &v.messages}, {"memory", &v.memory}})
    if (*found != "pass") fmt::print("not right in fast mode: {}: {}\n", gate, *found);
  if (v.pass())
    fmt::print("within the bound of fast mode: {} steps, at most {:.2g} of it ({})\n", settings.steps,
               v.worst, v.where);
  return v.pass() ? 0 : 1;
}

// Of the whole model beside the ranks' arenas: the first weights, and a step's gradients and weights for the
// hash; of the optimizer's state what is read, and what is to be written.
int whole_copies(const TrainOptions& o) {
  const bool masters = o.settings.weight_bytes < 4;  // which wait to be written in twice their room
  return 3 + (o.resume.empty() ? 0 : masters ? 4 : 3) + (o.state.empty() ? 0 : masters ? 4 : 2);
}

int train_among(MpiWorld* mpi, Fabrics* fabrics, const TrainOptions& o) {
  check_settings(o.settings);
  check_isa(o.isa);
  check_device(o.device);
  const ModelConfig model = load_model_config(o.model);
  const TokenFile data(o.data);
  check_data(data, o.data, model, o.settings);
  Settings settings = o.settings;
  settings.fast = o.fast;
  if (o.plan == "auto" && o.cluster.empty())
    throw UserError("--plan auto needs --cluster, the file that `lockstep calibrate --out FILE` writes here");
  if (o.plan != "auto" && !o.cluster.empty())
    throw UserError(
        fmt::format("--cluster is of --plan auto, and the plan is `{}`; leave one of them out", o.plan));
  const Plan plan = o.plan == "auto" ? fastest_here(model, settings, load_cluster(o.cluster))
                                     : legal_plan(o.plan, model, settings);
  const Run run{model, settings, plan, &data};
  check_job_size(mpi, run.plan.ranks(), "train");
  const Prepared prepared = prepare(run);
  refuse_deadlock(prepared);
  const Launch how{.isa = o.isa,
                   .threads = o.threads,
                   .timing = o.timing == "lazy" ? Timing::lazy : Timing::eager,
                   .mpi = mpi,
                   .scratch = o.scratch,
                   .accelerator = device_here(o.device),
                   .graphs = o.graphs,
                   .fabrics = fabrics};
  check_memory(prepared, how, whole_copies(o));
  std::optional<TrainingState> resumed;
  if (!o.resume.empty()) resumed = read_state(o.resume, run);
  Weights initial;
  if (!resumed || o.check)
    initial = o.init.empty()
                  ? fresh_weights(model, o.settings)
                  : as_stored(load_weights(o.init, parameter_table(model, o.settings.leaves)), o.settings);
  std::optional<TrainReport> report;
  if (!mpi || mpi->rank() == 0) report.emplace(run, o, initial, resumed ? &*resumed : nullptr);
  if (report)
    fmt::print("{}: {} rank{}, {} thread{} each, {}{}{}{}\n", run.plan.line(), run.plan.ranks(),
               run.plan.ranks() == 1 ? "" : "s", o.threads, o.threads == 1 ? "" : "s", isa_here(o.isa),
               dtype_of(settings) == "bf16" ? ", bf16" : "",
               o.device == "cpu" ? "" : " and " + device_here(o.device)->name(),
               fabrics ? ", " + fabrics->name() : "");
  if (report) fmt::print("{}\n", chosen_names(run.plan));
  if (report && resumed)
    fmt::print("goes on after {} steps, the last of `{}`\n", resumed->steps, resumed->plan);
  std::fflush(stdout);  // before hours of work
  train(prepared, how, o, initial, resumed ? &*resumed : nullptr, report ? &*report : nullptr);
  int status = report ? report->finish() : 0;
  if (o.check && o.fast) status = check_fast(prepared, o, how, initial);
  return mpi ? mpi->from_first(status) : status;
}

int command_train(const TrainOptions& o) {
  if (o.check && o.fast && !o.resume.empty())
    throw UserError(
        "--check --fast takes each step from the reference's weights, so there is nothing to --resume");
  if (o.timing == "lazy" && o.device != "cpu") throw UserError("--timing lazy needs --device cpu");
  check_graphs(o.graphs, o.device);
  check_comm(o.comm, o.device);
  if (o.comm == "local") return train_among(nullptr, nullptr, o);
  if (o.timing == "lazy")
    throw UserError("--timing lazy needs --comm local: over MPI inputs are read at the start");
  return with_mpi([&](MpiWorld& world) { return train_among(&world, fabrics_here(o.comm, o.device), o); });
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<TrainOptions>();
  app.add_option("--model", o->model, "config.json of a Llama")->required();
  app.add_option("--data", o->data, "token file (datasets/format.md)")->required();
  add_plan(app, o->plan);
  app.add_option("--cluster", o->cluster,
                 "cluster file for --plan auto, which takes the fastest predicted plan");
  add_settings(app, o->settings);
  add_dtype(app, o->settings);
  app.add_option("--init", o->init,
                 "safetensors file or folder to start from, instead of fresh weights; with --resume "
                 "what --check starts from");
  auto* dump = app.add_option("--dump", o->dump, "HDF5 file to write every step's gradients and weights to");
  app.add_option(
      "--save", o->save,
      "folder to write the trained model to: config.json and safetensors, as transformers reads them");
  auto* state = app.add_option("--state", o->state,
                               "folder to save the training's state in after the last step, as step-N: "
                               "weights and optimizer, to --resume from");
  app.add_option("--state-every", o->state_every, "also save after every so many steps")
      ->needs(state)
      ->check(above_zero());
  app.add_option("--resume", o->resume,
                 "continue from such a folder, under any plan; --steps counts from the training's first")
      ->excludes(dump);
  app.add_option("--shard-gb", o->shard_gb, "--save, --state: largest file of weights, in GB of 10^9 bytes")
      ->capture_default_str()
      ->check(above_zero());
  app.add_flag(
      "--check", o->check,
      "train on a single device too, and compare every bit; with --fast, hold each step to its bound");
  app.add_flag("--fast", o->fast,
               "sums in any order: dp may be any divisor of the batch, tp need not divide --leaves");
  add_kernels(app, o->isa, o->threads);
  add_device(app, o->device);
  add_graphs(app, o->graphs);
  add_scratch(app, o->scratch);
  add_comm(app, o->comm);
  app.add_option("--timing", o->timing, "messages are done at their start (eager) or at their wait (lazy)")
      ->capture_default_str()
      ->check(CLI::IsMember({"eager", "lazy"}));
  return [o] { return command_train(*o); };
}

const Command command("train", "train with one plan; print losses and the run's hash", declare);

}  // namespace
}  // namespace lockstep::train_cli
