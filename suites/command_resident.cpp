// lockstep resident: does a plan lower what the process really holds in memory by as much as its formula
// says?
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "ref/error.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/resident.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string model, data, plan = "offload=optimizer to=disk", base = "dp=1", isa = "auto", scratch;
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

int resident(const Options& o) {
  check_settings(o.settings);
  check_isa(o.isa);
  const ModelConfig model = load_model_config(o.model);
  const TokenFile data(o.data);
  check_data(data, o.data, model, o.settings);
  i64 parameters = 0;
  for (const Param& p : parameter_table(model, o.settings.leaves))
    if (p.tied_to < 0) parameters += p.count();
  fmt::print("{} parameters, {} steps of {} x {} tokens\n\n{:<52}{:>14}{:>14}\n", parameters,
             o.settings.steps, o.settings.batch, o.settings.seq, "MB at the peak", "formula", "resident");
  const Launch how{.isa = o.isa, .threads = o.threads, .scratch = o.scratch};
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
  app.add_option("--within", o->within, "how far from 1 the ratio may be")->capture_default_str();
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
}  // namespace lockstep
