// lockstep sweep: what is asked for, and which plans that means.
#include "suites/sweep/sweep.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "suites/commands/command.hpp"
#include "suites/commands/suite_options.hpp"
#include "suites/here.hpp"

namespace lockstep::sweep_cli {
namespace {

struct Options {
  SuiteOptions which;
  std::string out, verdict, cluster;
  bool dry_run = false, fresh = false, retry = false;
};

int list(const Enumeration& all) {
  for (const Plan& p : all.plans) fmt::print("{}\n", p.line());
  for (const auto& [rule, count] : all.by_rule()) {
    fmt::print("\nrefused by {}: {}\n", rule, count);
    for (const auto& r : all.refused)
      if (r.refusal.rule == rule) fmt::print("  {}: {}\n", r.plan.line(), r.refusal.why);
  }
  fmt::print("\n");
  for (const auto& c : all.covered)
    fmt::print("covered by {} plans: {} of {} legal {}{}\n", all.covering, c.covered, c.legal, c.what,
               c.undecided ? fmt::format(", {} undecided", c.undecided) : "");
  fmt::print("{} plans, {} refused\n", all.plans.size(), all.refused.size());
  return 0;
}

int command_sweep(const Options& o) {
  check_one_sweep();
  auto [suite, all] = chosen_plans(o.which, /*to_list=*/o.dry_run);
  if (!o.cluster.empty()) suite.cluster = o.cluster;
  if (o.dry_run) return list(all);
  check_file("--verdict", o.verdict);
  return Sweep(suite, std::move(all),
               {.out = o.out,
                .fresh = o.fresh,
                .retry = o.retry,
                .jobs = o.which.jobs,
                .verdict_file = o.verdict})
      .run();
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_suite(app, o->which);
  app.add_option("--out", o->out,
                 "folder for run.h5 and what a resumed sweep needs: after any interruption the same command "
                 "continues; without --out nothing is kept");
  app.add_option("--cluster", o->cluster,
                 "predict the steps of timed plans too, on this machine as `lockstep calibrate` wrote it; "
                 "default: the suite's, or none");
  app.add_option("--verdict", o->verdict, "write the last line to this file, and do not print it");
  app.add_flag("--fresh", o->fresh, "start anew: remove what an earlier sweep left in --out");
  app.add_flag("--retry", o->retry, "when resuming, run again plans that crashed, hung or had no memory");
  app.add_flag("--dry-run", o->dry_run, "list the plans, and the refused ones with their reasons");
  return [o] { return command_sweep(*o); };
}

const Command command("sweep", "run every plan of a suite; end in VALID or INVALID", declare);

}  // namespace
}  // namespace lockstep::sweep_cli
