// lockstep train: one plan over ranks of this machine, every step whole again: printed, hashed, and as asked
// written to a dump or held to the single-device reference.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <barrier>
#include <chrono>
#include <exception>
#include <filesystem>
#include <optional>

#include "parallel/comm/fabric.hpp"
#include "parallel/comm/mpi.hpp"
#include "ref/error.hpp"
#include "ref/weights.hpp"
#include "reports/dump.hpp"
#include "suites/above_zero.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/enough_memory.hpp"
#include "suites/gates/among.hpp"
#include "suites/gates/fast.hpp"
#include "suites/locate.hpp"
#include "suites/planner/planner.hpp"
#include "suites/reference.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string model, data, plan = "dp=1", init, dump, save, isa = "auto", timing = "eager", comm = "local",
                           device = "cpu", scratch, cluster;
  int threads = 1;
  double shard_gb = 5;
  bool check = false, fast = false, graphs = false;
  Settings settings;
};

// Everything that is done with a step once it is whole.
class Report {
 public:
  Report(const Run& run, const Options& o, const Weights& initial)
      : run_(run), table_(parameter_table(run.model, run.settings.leaves)) {
    if (o.check && !run.settings.fast)
      reference_.emplace(run.model, run.settings, *run.data, o.isa, o.threads, initial);
    if (!o.save.empty()) prepare_folder(o);
    if (o.dump.empty()) return;
    dump_.emplace(o.dump, run.model, run.settings, run.plan.line());
    for (std::size_t i = 0; i < table_.size(); ++i)
      if (table_[i].tied_to < 0) dump_->initial_weight(table_[i], initial[i].data());
  }

  void step(i64 k, const Assembly& assembly, double seconds) {
    const Whole::Step& s = assembly.whole().steps[0];
    const double tokens = static_cast<double>(run_.settings.batch * run_.settings.seq);
    fmt::print("step {}  loss {:.6f}  gradient norm {:.6f}  lr {:.3g}  {:.0f} tokens/s\n", k, s.loss,
               s.grad_norm, learning_rate(run_.settings, k), tokens / seconds);
    std::fflush(stdout);
    hash_.add(table_, s);
    if (dump_) dump_step(k, s);
    if (!folder_.empty() && k + 1 == run_.settings.steps)
      save_weights(folder_, table_, s.weight, shard_bytes_);
    if (reference_ && !difference_) compare(k, assembly);
  }

  // Exit status of the command.
  int finish() {
    if (dump_) dump_->close();
    if (!folder_.empty()) fmt::print("weights: {}\n", folder_);
    fmt::print("hash {}\n", hash_.text());
    if (!reference_) return 0;
    if (difference_)
      fmt::print("not equal to the single device: {}\n", difference_->text());
    else
      fmt::print("equal to the single device: {} steps, bit for bit\n", run_.settings.steps);
    return difference_ ? 1 : 0;
  }

 private:
  // What cannot be written is said before the training, not after.
  void prepare_folder(const Options& o) {
    folder_ = o.save, shard_bytes_ = static_cast<i64>(o.shard_gb * 1e9);
    std::error_code ignored;  // the next line's complaint says it better
    std::filesystem::create_directories(folder_, ignored);
    save_model_config(folder_ + "/config.json", o.model, run_.model);
  }

  void dump_step(i64 k, const Whole::Step& s) {
    const Settings& set = run_.settings;
    StepDump d;
    d.loss = s.loss, d.grad_norm = s.grad_norm, d.lr = learning_rate(set, k);
    d.tokens.resize(static_cast<std::size_t>(set.batch * set.seq));
    d.labels.resize(d.tokens.size());
    for (i64 i = 0; i < set.batch; ++i)
      sample(*run_.data, set, k, i, &d.tokens[i * set.seq], &d.labels[i * set.seq]);
    dump_->step(k, d);
    // Pads are the last rows, so the unpadded tensor is the front of the stored one.
    for (std::size_t i = 0; i < table_.size(); ++i)
      if (table_[i].tied_to < 0) dump_->gradient(k, table_[i], s.gradient[i].data());
    for (std::size_t i = 0; i < table_.size(); ++i)
      if (table_[i].tied_to < 0) dump_->weight(k, table_[i], s.weight[i].data());
  }

  void compare(i64 k, const Assembly& assembly) {
    const Whole expected{table_, {reference_->step()}};
    difference_ = locate(expected, assembly.whole(), assembly.holdings(), run_.mesh());
    if (difference_) difference_->first.step = k;
  }

  const Run& run_;
  const std::vector<Param> table_;
  RunHash hash_;
  std::string folder_;  // for the trained weights; empty: none
  i64 shard_bytes_ = 0;
  std::optional<DumpWriter> dump_;
  std::optional<Reference> reference_;
  std::optional<Finding> difference_;
};

// Runs all steps. After each one the ranks meet, and the last to come reports the step for all of them; as
// processes, rank 0 does, and only it has a report.
void train(const Prepared& p, const Launch& how, const Weights& initial, Report* report) {
  using Clock = std::chrono::steady_clock;
  std::optional<Assembly> assembly(std::in_place, p, 1, how.mpi);
  std::exception_ptr failed;
  i64 step = 0;
  Clock::time_point start = Clock::now();

  auto on_meeting = [&]() noexcept {
    try {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      assembly->gather();
      if (report) {
        if (const std::string problem = assembly->problem(); !problem.empty())
          throw std::runtime_error(problem);
        report->step(step++, *assembly, seconds);
      }
      assembly.emplace(p, 1, how.mpi);
    } catch (...) {
      failed = std::current_exception();
    }
    start = Clock::now();
  };
  std::barrier meeting(how.mpi ? 1 : p.mesh.size(), on_meeting);

  launch(p, how, [&](RankView v) {
    try {
      initialise(v, initial);
      for (i64 k = 0; k < p.run.settings.steps && !failed; ++k) {
        const StepResult r = v.executor.step(
            k, [&] { assembly->gradients(0, v); }, [&] { assembly->weights(0, v); });
        assembly->result(0, r, v.rank);
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
int check_fast(const Prepared& p, const Options& o, const Launch& how, const Weights& initial) {
  Settings settings = p.run.settings;
  settings.fast = false;
  Whole reference;
  FastReference float64;
  if (knows_all(how.mpi)) {
    reference = reference_run(p.run.model, settings, *p.run.data, o.isa, o.threads, initial);
    float64 = fast_reference(p.run.model, settings, *p.run.data, reference, initial);
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
// hash.
constexpr int kWholeCopies = 3;

int train_among(MpiWorld* mpi, Fabrics* fabrics, const Options& o) {
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
  const Plan plan = o.plan == "auto" ? fastest_here(model, settings, load_cluster(o.cluster))
                                     : legal_plan(o.plan, model, settings);
  const Run run{model, settings, plan, &data};
  check_job_size(mpi, run.plan.ranks(), "train");
  const Prepared prepared = prepare(run);
  if (!prepared.deadlock.empty()) throw std::runtime_error("deadlock: " + prepared.deadlock);
  const Launch how{.isa = o.isa,
                   .threads = o.threads,
                   .timing = o.timing == "lazy" ? Timing::lazy : Timing::eager,
                   .mpi = mpi,
                   .scratch = o.scratch,
                   .accelerator = device_here(o.device),
                   .graphs = o.graphs,
                   .fabrics = fabrics};
  check_memory(prepared, how, kWholeCopies);
  const Weights initial =
      o.init.empty() ? fresh_weights(model, o.settings)
                     : as_stored(load_weights(o.init, parameter_table(model, o.settings.leaves)), o.settings);
  std::optional<Report> report;
  if (!mpi || mpi->rank() == 0) report.emplace(run, o, initial);
  if (report)
    fmt::print("{}: {} rank{}, {} thread{} each, {}{}{}{}\n", run.plan.line(), run.plan.ranks(),
               run.plan.ranks() == 1 ? "" : "s", o.threads, o.threads == 1 ? "" : "s", isa_here(o.isa),
               dtype_of(settings) == "bf16" ? ", bf16" : "",
               o.device == "cpu" ? "" : " and " + device_here(o.device)->name(),
               fabrics ? ", " + fabrics->name() : "");
  std::fflush(stdout);  // before hours of work
  train(prepared, how, initial, report ? &*report : nullptr);
  int status = report ? report->finish() : 0;
  if (o.check && o.fast) status = check_fast(prepared, o, how, initial);
  return mpi ? mpi->from_first(status) : status;
}

int command_train(const Options& o) {
  if (o.timing == "lazy" && o.device != "cpu") throw UserError("--timing lazy needs --device cpu");
  check_graphs(o.graphs, o.device);
  check_comm(o.comm, o.device);
  if (o.comm == "local") return train_among(nullptr, nullptr, o);
  if (o.timing == "lazy")
    throw UserError("--timing lazy needs --comm local: over MPI inputs are read at the start");
  return with_mpi([&](MpiWorld& world) { return train_among(&world, fabrics_here(o.comm, o.device), o); });
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--model", o->model, "config.json of a Llama")->required();
  app.add_option("--data", o->data, "token file (datasets/format.md)")->required();
  add_plan(app, o->plan);
  app.add_option("--cluster", o->cluster, "of --plan auto, which takes the fastest predicted plan");
  add_settings(app, o->settings);
  add_dtype(app, o->settings);
  app.add_option("--init", o->init, "safetensors file or folder to start from, instead of fresh weights");
  app.add_option("--dump", o->dump, "HDF5 file to write every step's gradients and weights to");
  app.add_option(
      "--save", o->save,
      "folder to write the trained model to: config.json and safetensors, as transformers reads them");
  app.add_option("--shard-gb", o->shard_gb, "--save: largest file of weights, in GB of 10^9 bytes")
      ->capture_default_str()
      ->check(above_zero());
  app.add_flag(
      "--check", o->check,
      "train on a single device too, and compare every bit; with --fast, hold each step to its bound");
  app.add_flag("--fast", o->fast,
               "sums in any order: dp may be any divisor of the batch, tp any of the heads");
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
}  // namespace lockstep
