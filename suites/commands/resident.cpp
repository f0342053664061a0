// lockstep resident: does a plan lower what the process really holds in memory by as much as its formula
// says? With a cluster: does a process hold what is predicted, plan by plan?
#include "suites/run/resident.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/option_checks.hpp"
#include "suites/commands/options.hpp"
#include "suites/here.hpp"
#include "suites/planner/measure/process_memory.hpp"
#include "suites/planner/prediction.hpp"
#include "suites/settings_list.hpp"

namespace lockstep::resident_cli {
namespace {

struct Options {
  std::string model, data, plan = "offload=optimizer to=disk", base = "dp=1", isa = "auto", scratch, cluster;
  std::string plans =
      "dp=1; ckpt=full; dp=2; dp=2 zero=1; dp=2 zero=2; dp=2 zero=3; tp=2; tp=2 sp=1; pp=2; "
      "offload=optimizer to=host; offload=optimizer to=disk";
  int threads = 1;
  double within = 0.05;
  Settings settings;
};

struct Memory {
  i64 formula = 0, resident = 0;  // bytes, of all ranks
};

std::optional<Memory> measure(const Run& run, const Launch& how) {
  Memory m;
  for (int rank = 0; rank < run.plan.ranks(); ++rank) {
    const Price formula = price(run.plan, run.model, run.settings, rank);
    for (int k = 0; k < static_cast<int>(Kind::count); ++k)
      if (medium_of(static_cast<Kind>(k)) != Medium::disk) m.formula += formula.peak[k];
  }
  const std::optional<i64> resident = peak_resident_bytes(run, how);
  if (!resident) return {};
  m.resident = *resident;
  fmt::print("{:<52}{:>14.1f}{:>14.1f}\n", run.plan.line(), m.formula / 1e6, m.resident / 1e6);
  std::fflush(stdout);
  return m;
}

// Exit status 1: one of the plans is further off than `within`.
int judge(const Options& o, Run run, const Launch& how) {
  const Cluster cluster = load_cluster(o.cluster);
  run.settings = settings_on(cluster, run.settings);
  fmt::print("{:>12}{:>12}{:>12}{:>12}{:>12}{:>9}   plan\n", "MB: arenas", "staging", "beside", "predicted",
             "resident", "error");
  double worst = 0;
  int plans = 0;
  std::istringstream lines(o.plans);
  for (std::string line; std::getline(lines, line, ';'); ++plans) {
    run.plan = legal_plan(line, run.model, run.settings);
    const ProcessMemory said = process_memory(prepare(run), cluster);
    const std::optional<i64> found = peak_resident_bytes(run, how, true);
    if (!found) return 3;
    const double error = said.all() / static_cast<double>(*found) - 1;
    worst = std::max(worst, std::abs(error));
    fmt::print("{:>12.1f}{:>12.1f}{:>12.1f}{:>12.1f}{:>12.1f}{:>7.2f} %   {}\n", said.arenas / 1e6,
               said.staging / 1e6, said.beside / 1e6, said.all() / 1e6, static_cast<double>(*found) / 1e6,
               100 * error, run.plan.line());
    std::fflush(stdout);
  }
  const bool holds = plans > 0 && worst <= o.within;
  fmt::print("\n{}: {} plans, resident memory predicted within {:.2f} %; {:g} % is asked\n",
             holds ? "VALID" : "INVALID", plans, 100 * worst, 100 * o.within);
  return holds ? 0 : 1;
}

int resident(const Options& o) {
  check_settings(o.settings);
  check_isa(o.isa);
  const ModelConfig model = load_model_config(o.model);
  const TokenFile data(o.data);
  check_data(data, o.data, model, o.settings);
  i64 parameters = 0;
  for (const Param& p : parameter_table(model, o.settings.leaves))
    if (p.tied_to < 0) parameters += p.count();
  fmt::print("{} parameters, {} steps of {} x {} tokens\n\n", parameters, o.settings.steps, o.settings.batch,
             o.settings.seq);
  const Launch how{.isa = o.isa, .threads = o.threads, .scratch = o.scratch};
  if (!o.cluster.empty()) return judge(o, {model, o.settings, Plan::parse(""), &data}, how);
  fmt::print("{:<52}{:>14}{:>14}\n", "MB at the peak", "formula", "resident");
  const auto base = measure({model, o.settings, legal_plan(o.base, model, o.settings), &data}, how);
  const auto plan = measure({model, o.settings, legal_plan(o.plan, model, o.settings), &data}, how);
  if (!base || !plan) return 3;
  const double said = static_cast<double>(base->formula - plan->formula);
  const double found = static_cast<double>(base->resident - plan->resident);
  const bool holds = std::abs(found - said) <= o.within * std::abs(said);
  fmt::print(
      "{:<52}{:>14.1f}{:>14.1f}\n\n{}: resident memory is lowered by {:.4f} of what the formula says; "
      "within {:g} is asked\n",
      "lowered by", said / 1e6, found / 1e6, holds ? "VALID" : "INVALID", found / said, o.within);
  return holds ? 0 : 1;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--model", o->model, "config.json of a Llama")->required();
  app.add_option("--data", o->data, "token file (datasets/format.md)")->required();
  add_plan(app, o->plan);
  app.add_option("--base", o->base, "the plan it is compared with")->capture_default_str();
  app.add_option("--within", o->within, "how far from 1 the ratio may be, from 0 up")
      ->capture_default_str()
      ->check(zero_or_more());
  app.add_option(
      "--cluster", o->cluster,
      "of `lockstep calibrate`: instead, what each of --plans is predicted to hold, and what it does");
  app.add_option("--plans", o->plans, "with --cluster: plans, with ; between them")->capture_default_str();
  add_settings(app, o->settings);
  add_dtype(app, o->settings);
  add_kernels(app, o->isa, o->threads);
  add_scratch(app, o->scratch);
  return [o] { return resident(*o); };
}

const Command command("resident",
                      "train with two plans; compare what the system says they hold with the formulas",
                      declare);

}  // namespace
}  // namespace lockstep::resident_cli
