// lockstep job: what a sweep with --launch has its launcher start, one process a rank. Rank 0 reads a plan a
// line from standard input and writes its record to standard output; all of them judge and time it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>

#include "parallel/comm/mpi.hpp"
#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/options.hpp"
#include "suites/commands/suite_options.hpp"
#include "suites/here.hpp"
#include "suites/sweep/check_plan.hpp"
#include "suites/sweep/job_command.hpp"
#include "suites/sweep/launched_worker.hpp"

namespace lockstep::job_cli {
namespace {

struct Options {
  std::string suite, comm = "mpi", isa, device, scratch, reference;
  int threads = 1, ranks = 1;
  bool untimed = false;
};

// "4 x node1, 4 x node2", on rank 0.
std::string hosts_of(MpiWorld& world) {
  std::vector<std::pair<std::string, int>> hosts;
  world.gather(host_name(), [&](int, const std::string& host) {
    const auto same = [&](const auto& known) { return known.first == host; };
    const auto at = std::find_if(hosts.begin(), hosts.end(), same);
    ++(at != hosts.end() ? *at : hosts.emplace_back(host, 0)).second;
  });
  std::string text;
  for (const auto& [host, ranks] : hosts)
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", ranks, host);
  return text;
}

void say(const MpiWorld& world, const std::string& line) {
  if (world.rank() > 0) return;
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

int serve(MpiWorld& world, Fabrics* fabrics, const Suite& suite, const Options& o) {
  if (world.size() != o.ranks)
    throw UserError(
        fmt::format("the launcher started {} process{} and not {}: where {} stands in --launch, it "
                    "takes the number of ranks",
                    world.size(), world.size() == 1 ? "" : "es", o.ranks, kRanks));
  const ModelConfig model = load_model_config(suite.model);
  const TokenFile data(suite.data);
  const Job job{world, fabrics, world.cores_suffice(suite.threads), hosts_of(world)};
  if (suite.device != "cpu")
    device_here(suite.device);  // one that is not here is said before any plan is asked
  say(world, kJobReady + job.hosts);
  std::map<i64, Standard> standards;  // by batch
  for (;;) {
    std::string line;
    if (world.rank() == 0) std::getline(std::cin, line);
    line = world.from_first(line);
    if (line.empty()) return 0;
    const Plan plan = Plan::parse(line);
    const Settings settings = suite.settings_of(plan);
    const auto [at, is_new] =
        standards.try_emplace(settings.batch, Standard{suite, settings, model, data, !o.untimed, &job});
    if (is_new && world.rank() == 0) make(at->second, o.reference, /*keep=*/false);
    const PlanRecord record = check_plan(plan, at->second);
    if (world.rank() == 0)
      say(world, kJobAnswer + hexadecimal(answer_of(at->second.reference_hash, bytes_of(record))));
  }
}

int command_job(const Options& o) {
  return with_mpi([&](MpiWorld& world) {
    Suite suite = read_suite(o.suite);
    suite.isa = o.isa, suite.device = o.device, suite.threads = o.threads, suite.scratch = o.scratch;
    suite.comm = o.comm;
    check_isa(suite.isa);
    return serve(world, fabrics_here(o.comm, o.device), suite, o);
  });
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("suite", o->suite, "a suite's TOML file")->required();
  app.add_option("--ranks", o->ranks, "processes that there should be")->required();
  app.add_option("--reference", o->reference, "where the sweep keeps its single-device run");
  app.add_flag("--untimed", o->untimed, "judge only");
  add_comm(app, o->comm);
  add_kernels(app, o->isa, o->threads);
  add_device(app, o->device);
  add_scratch(app, o->scratch);
  return [o] { return command_job(*o); };
}

const Command command("job", "what sweep and gate with --launch start, a process a rank; not for people",
                      declare);

}  // namespace
}  // namespace lockstep::job_cli
