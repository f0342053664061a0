// lockstep show: what one rank of a plan does in a step and what it costs; or a step in time. Computes
// nothing.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "parallel/roles.hpp"
#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/options.hpp"
#include "suites/settings_list.hpp"
#include "suites/sweep/record_of.hpp"
#include "suites/timing/nominal_costs.hpp"
#include "suites/timing/timeline.hpp"

namespace lockstep::show_cli {
namespace {

struct Options {
  std::string model, plan = "dp=1";
  int rank = 0;
  bool summary = false, gantt = false;
  Settings settings;
};

void print_summary(const Prepared& p, int rank) {
  const Run& run = p.run;
  const Peaks traced = peaks(p.traces[rank]);
  const Price formula = price(run.plan, run.model, run.settings, rank);
  fmt::print("peak bytes of {}\n  {:<12}{:>14}{:>14}\n", place(p.mesh, rank), "", "trace", "formula");
  for (int k = 0; k < static_cast<int>(Kind::count); ++k)
    fmt::print("  {:<12}{:>14}{:>14}{}\n", kind_name(static_cast<Kind>(k)), traced.by_kind[k],
               formula.peak[k], traced.by_kind[k] == formula.peak[k] ? "" : "  differ");
  fmt::print("  {:<12}{:>14}   all kinds at one time, but for disk\n  {:<12}{:>14}   as laid out\n",
             "together", traced.total, "arena",
             p.layout(rank, Medium::device).bytes + p.layout(rank, Medium::host).bytes);
  fmt::print("\nmessages of one step (a send counts, its receive does not)\n  {:<12}{:>14}{:>14}\n", "axis",
             "messages", "bytes");
  for (const auto& [axis, t] : traffic(p, rank, 1))
    fmt::print("  {:<12}{:>14}{:>14}\n", axis, t.messages, t.bytes);
  fmt::print("\n{}\n", p.deadlock.empty() ? "no deadlock among all ranks" : "deadlock: " + p.deadlock);
}

// A step as it would go at nominal rates, of one rank of each stage.
void print_gantt(const Prepared& p) {
  const Timeline t = timeline_of(p, nominal_costs());
  fmt::print("{}\n", text_of(t, 100));
  fmt::print(
      "digits: forward, by microbatch; a, b, ...: backward, or its input gradients; A, B, ...: weight\n"
      "gradients; U: the update; =: messages and copies\n\n");
  fmt::print("a step of {:.3g} ms, simulated with {}\n", 1e3 * t.seconds, nominal_text());
  for (const auto& [part, seconds] : t.parts)
    if (seconds > 0) fmt::print("  {:<12}{:>6.1f} %\n", part, 100 * seconds / t.seconds);
}

int show(const Options& o) {
  check_settings(o.settings);
  const ModelConfig model = load_model_config(o.model);
  const Plan plan = legal_plan(o.plan, model, o.settings);
  if (o.rank < 0 || o.rank >= plan.ranks())
    throw UserError(
        fmt::format("rank {} is not in `{}`; its ranks are 0 to {}", o.rank, plan.line(), plan.ranks() - 1));
  Settings settings = o.settings;
  settings.fast |= o.gantt;  // nobody trains in the other mode
  const Prepared p = prepare({model, settings, plan});
  if (o.gantt) {
    refuse_deadlock(p);
    fmt::print("{}\n{}\n\n", plan.line(), chosen_names(plan));
    print_gantt(p);
    return 0;
  }
  fmt::print("{}: {}\n{}\n\n", plan.line(), place(p.mesh, o.rank), chosen_names(plan));
  if (!o.summary) fmt::print("{}\n", program(p.traces[o.rank], p.layouts[o.rank]));
  print_summary(p, o.rank);
  return 0;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--model", o->model, "config.json of a Llama")->required();
  add_plan(app, o->plan);
  auto* rank = app.add_option("--rank", o->rank, "whose program")->capture_default_str();
  auto* summary = app.add_flag("--summary", o->summary, "memory and messages only, not the program");
  app.add_flag("--gantt", o->gantt,
               "instead: a step in time at nominal rates, in fast mode, and what its time goes to")
      ->excludes(summary)
      ->excludes(rank);
  add_settings(app, o->settings);
  add_dtype(app, o->settings);
  return [o] { return show(*o); };
}

const Command command("show", "print a rank's program, its memory and its messages; computes nothing",
                      declare);

}  // namespace
}  // namespace lockstep::show_cli
