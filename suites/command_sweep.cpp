// lockstep sweep: what is asked for, and which plans that means.
#include <fmt/format.h>

#include "ref/error.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/sweep.hpp"
#include "suites/sweep_mpi.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string suite, out, only, isa, comm = "local", scratch;
  int threads = 0;  // 0, and an empty isa: as the suite says
  bool dry_run = false, fresh = false, retry = false;
};

void keep_matching(Enumeration& all, const std::string& part) {
  std::erase_if(all.plans, [&](const Plan& p) { return p.line().find(part) == std::string::npos; });
  std::erase_if(all.refused, [&](const auto& r) { return r.plan.line().find(part) == std::string::npos; });
}

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
  if (o.comm == "mpi" && !o.out.empty())
    throw UserError("--out needs --comm local: over MPI plans are checked, and no record is written");
  Suite suite = read_suite(o.suite);
  if (!o.isa.empty()) suite.isa = o.isa;
  if (o.threads > 0) suite.threads = o.threads;
  suite.scratch = o.scratch;
  check_isa(suite.isa);
  Enumeration all = enumerate(suite, load_model_config(suite.model));
  keep_matching(all, o.only);
  if (all.plans.empty())
    throw UserError(fmt::format("{}: no plan to run: {} refused{}; --dry-run says why", o.suite,
                                all.refused.size(), o.only.empty() ? "" : ", none with `" + o.only + "`"));
  if (o.dry_run) return list(all);
  if (o.comm == "mpi") return with_mpi([&](MpiWorld& world) { return sweep_over_mpi(world, suite, all); });
  return Sweep(suite, std::move(all), {o.out, o.fresh, o.retry}).run();
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("suite", o->suite, "a suite's TOML file (suites/README.md)")->required();
  app.add_option(
      "--out", o->out,
      "folder for run.h5 and all that it takes to go on after an end at any moment: the same command "
      "does; without it nothing is kept");
  app.add_flag("--fresh", o->fresh, "start anew: remove what an earlier sweep left in --out");
  app.add_flag("--retry", o->retry, "going on, run again what crashed, hung or had no memory");
  app.add_flag("--dry-run", o->dry_run, "list the plans, and the refused ones with their reasons");
  app.add_option("--only", o->only, "only plans whose line has this in it, e.g. \"pp=2\"");
  app.add_option("--isa", o->isa, "kernels: auto, plain, avx2, avx512; default: the suite's");
  app.add_option("--threads", o->threads, "threads of each rank; default: the suite's")
      ->check(CLI::Range(1, 1024));
  add_scratch(app, o->scratch);
  app.add_option(
         "--comm", o->comm,
         "ranks are threads of this process (local), or processes: mpirun -n N (mpi), plans of N ranks only")
      ->capture_default_str()
      ->check(CLI::IsMember({"local", "mpi"}));
  return [o] { return command_sweep(*o); };
}

const Command command("sweep", "run every plan of a suite; end in VALID or INVALID", declare);

}  // namespace
}  // namespace lockstep
