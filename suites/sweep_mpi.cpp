#include "suites/sweep_mpi.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <optional>

#include "ref/error.hpp"
#include "suites/command_options.hpp"
#include "suites/gates/gates.hpp"
#include "suites/locate.hpp"
#include "suites/reference.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

// What is wrong with the messages of this process's rank; the other ranks' are their own to judge.
std::string judge_mine(const Prepared& p, int rank, const std::vector<Posted>& mine) {
  std::vector<std::vector<Posted>> posted = p.posted;
  posted[rank] = lasting(p, mine);
  return judge_messages(p, posted);
}

// On rank 0: the first thing wrong on any rank, or "pass".
std::string judge_plan(MpiWorld& world, Fabrics* fabrics, const Prepared& p, const Suite& suite,
                       const Weights& initial, const Whole* reference) {
  if (!p.deadlock.empty()) return "messages: deadlock: " + p.deadlock;
  Assembly assembly(p, suite.settings.steps, &world);
  std::string messages;
  launch(p,
         {.isa = suite.isa,
          .threads = suite.threads,
          .mpi = &world,
          .scratch = suite.scratch,
          .accelerator = device_here(suite.device),
          .fabrics = fabrics},
         [&](RankView v) {
           initialise(v, initial);
           for (i64 k = 0; k < suite.settings.steps; ++k) {
             const StepResult r = v.executor.step(
                 k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); });
             assembly.result(k, r, v.rank);
             if (k == 0) messages = judge_mine(p, v.rank, v.device.posted());
           }
         });
  assembly.gather();
  std::string found = "pass";
  if (reference) {
    if (const std::string problem = assembly.problem(); !problem.empty())
      found = "numbers: " + problem;
    else if (const auto difference = locate(*reference, assembly.whole(), assembly.holdings(), p.mesh))
      found = "numbers: " + difference->text();
    else if (assembly.whole().hash() != reference->hash())
      found = "numbers: hash " + assembly.whole().hash();
  }
  world.gather(messages, [&](int, const std::string& theirs) {
    if (found == "pass" && theirs != "pass") found = "messages: " + theirs;
  });
  return found;
}

}  // namespace

int sweep_over_mpi(MpiWorld& world, Fabrics* fabrics, const Suite& suite, const Enumeration& all) {
  std::vector<Plan> plans;
  std::copy_if(all.plans.begin(), all.plans.end(), std::back_inserter(plans),
               [&](const Plan& p) { return p.ranks() == world.size(); });
  if (plans.empty())
    throw UserError(fmt::format("no plan of {} that may run needs {} ranks, as many as the job has",
                                suite.name, world.size()));
  const ModelConfig model = load_model_config(suite.model);
  const TokenFile data(suite.data);
  if (suite.weak)
    throw UserError(
        "a suite of weak scaling is run without --comm mpi: each batch has a reference of its own");
  check_data(data, suite.data, model, suite.settings);
  const Weights initial = fresh_weights(model, suite.settings);

  const bool first =
      world.rank() == 0;  // it alone compares and speaks, in plain lines: mpirun is no terminal
  std::optional<Whole> reference;
  if (first) {
    reference = reference_run(model, suite.settings, data, suite.isa, suite.threads, initial);
    if (const std::string why = vacuous(*reference, suite.settings); !why.empty())
      throw UserError("the reference would prove nothing: " + why);
  }
  int failed = 0;
  for (const Plan& plan : plans) {
    const Prepared prepared = prepare({model, suite.settings, plan, &data});
    const std::string found =
        judge_plan(world, fabrics, prepared, suite, initial, first ? &*reference : nullptr);
    if (!first) continue;
    if (found != "pass") ++failed;
    fmt::print("{} {}{}\n", found == "pass" ? "ok    " : "FAILED", plan.line(),
               found == "pass" ? "" : ": " + found);
    std::fflush(stdout);
  }
  if (first) {
    if (failed > 0)
      fmt::print("INVALID: {} of {} plans failed over {} processes\n", failed, plans.size(), world.size());
    else
      fmt::print("VALID: {} plans over {} processes, one hash {}\n", plans.size(), world.size(),
                 reference->hash().substr(0, 16));
  }
  return world.from_first(failed > 0 ? 1 : 0);
}

}  // namespace lockstep
