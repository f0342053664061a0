#include "suites/commands/suite_options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <sstream>

#include "kernels/ops.hpp"
#include "parallel/comm/comm.hpp"
#include "parallel/device/disk.hpp"
#include "ref/error.hpp"
#include "suites/commands/options.hpp"
#include "suites/here.hpp"
#include "suites/sweep/shard.hpp"

namespace lockstep {
namespace {

void keep_matching(Enumeration& all, const std::string& parts) {
  std::erase_if(all.plans, [&](const Plan& p) { return !matches(p, parts); });
  std::erase_if(all.refused, [&](const auto& r) { return !matches(r.plan, parts); });
}

}  // namespace

void add_suite(CLI::App& app, SuiteOptions& o) {
  app.add_option("suite", o.suite, "a suite's TOML file (suites/README.md)")->required();
  auto* only = app.add_option(
      "--only", o.only, "only plans with these words, e.g. \"dp=2 zero=1\", or with this in their line");
  auto* plan =
      app.add_option("--plan", o.plan, "this one plan, of the suite or not, by the suite's settings");
  plan->excludes(only);
  // A verdict over the last of them would be taken for one over all.
  for (CLI::Option* question : {only, plan}) question->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  app.add_option("--isa", o.isa, "kernels: " + isa_names() + "; default: the suite's");
  app.add_option("--device", o.device, "what computes: cpu, cuda; default: the suite's");
  app.add_option("--threads", o.threads, "threads of each rank; default: the suite's")
      ->check(CLI::Range(1, 1024));
  app.add_option("--jobs", o.jobs,
                 "plans at once that are judged and not timed; default: one per core, at most "
                 "eight, on a GPU two")
      ->check(CLI::Range(1, 1024));
  app.add_option("--limit-ranks", o.most_ranks, "refuse plans of more ranks; default: the suite's limit")
      ->check(CLI::Range(1, kMaxRanks));
  app.add_option(
         "--launch", o.launch,
         "what starts a plan's ranks as processes, on any hosts, with {ranks} for their number: \"mpirun "
         "-n {ranks}\", \"srun --input=0 -n {ranks}\"; without it ranks are threads of this process")
      ->check([](const std::string& said) { return said.empty() ? "what is to start the ranks?" : ""; });
  app.add_option(
         "--comm", o.comm,
         "what carries the messages of ranks that are processes: mpi (the default), or nccl, from GPU to "
         "GPU, a rank each")
      ->check(CLI::IsMember({"mpi", "nccl"}));
  add_scratch(app, o.scratch, /*here=*/false);
  add_plan_words(app);
}

namespace {

void check_launch(const SuiteOptions& o, const Suite& suite) {
  if (o.launch.empty() && !o.comm.empty())
    throw UserError(fmt::format(
        "--comm {0} is for ranks that are processes: --launch \"mpirun -n {{ranks}}\" --comm {0}", o.comm));
  if (o.comm == "nccl" && suite.device != "cuda")
    throw UserError(fmt::format("--comm nccl carries messages between GPUs: it needs --device cuda, not {}",
                                suite.device));
  if (o.launch.empty()) return;
  if (o.launch.find(kRanks) == std::string::npos)
    throw UserError(fmt::format("--launch \"{}\" does not say where the number of ranks goes: write {} there",
                                o.launch, kRanks));
  if (o.jobs > 0)
    throw UserError("--jobs is for ranks that are threads: what --launch starts has the machines for itself");
}

// Of ranks that are elsewhere, only they know.
void check_scratch(const Suite& suite, const std::vector<Plan>& plans) {
  const auto uses_disk = [](const Plan& p) { return matches(p, "disk"); };
  if (!suite.launch.empty() || std::none_of(plans.begin(), plans.end(), uses_disk)) return;
  const bool said = !suite.scratch.empty();
  if (const std::string folder = said ? suite.scratch : temporary_folder(); !is_folder_to_write(folder))
    throw UserError(fmt::format(
        "{} is {}, which is no folder that can be written to; some plans keep state on disk{}",
        said ? "--scratch" : "TMPDIR", folder, said ? "" : ", and --scratch names another folder for it"));
}

// UserError: a word or value that nobody knows.
void check_only(const std::string& only) {
  std::istringstream parts(only);
  for (std::string part; parts >> part;) {
    if (part.find('=') == std::string::npos) continue;
    try {
      Plan::parse(part);
    } catch (const UserError& e) {
      throw UserError(fmt::format("--only {}: {}", part, e.what()));
    }
  }
}

// No plan is left. UserError: why.
[[noreturn]] void refuse_none(const SuiteOptions& o, const Enumeration& all) {
  check_only(o.only);
  std::string why = all.refused.empty() ? "" : fmt::format("{} refused", all.refused.size());
  if (!o.only.empty()) why += fmt::format("{}no other has `{}`", why.empty() ? "" : ", and ", o.only);
  throw UserError(fmt::format("{}: no plan to run{}{}; `lockstep sweep {} --dry-run{}` says which there are",
                              o.suite, why.empty() ? "" : ": ", why, o.suite,
                              o.most_ranks > 0 ? fmt::format(" --limit-ranks {}", o.most_ranks) : ""));
}

i64 least_batch(const Suite& suite, const std::vector<Plan>& plans) {
  i64 least = std::numeric_limits<i64>::max();
  for (const Plan& p : plans) least = std::min(least, suite.settings_of(p).batch);
  return least;
}

// Some of a suite's plans: those that were asked for, of which this part.
void choose(const SuiteOptions& o, Suite& suite, Enumeration& all, bool to_list) {
  const std::size_t before = all.plans.size();
  // Under weak scaling the hash is of the smallest batch, which not every part of the suite has.
  const i64 least = least_batch(suite, all.plans);
  if (!o.only.empty()) {
    keep_matching(all, o.only);
    all.part = fmt::format("of {}: --only \"{}\"", before, o.only);
    all.in_suite = 0;
  }
  if (all.plans.empty() && !to_list) refuse_none(o, all);
  if (!o.shard.empty()) {
    deal(all, *shard_of(o.shard));
    all.part =
        fmt::format("{} --shard {}", all.part.empty() ? fmt::format("of {}:", before) : all.part, o.shard);
  }
  if (least_batch(suite, all.plans) != least) suite.expected_hash.clear();
}

}  // namespace

void check_one_sweep() {
  check_started_once(
      "start one, which starts the ranks of its plans itself (--launch \"mpirun -n {ranks}\")");
}

Chosen chosen_plans(const SuiteOptions& o, bool to_list) {
  Chosen chosen{read_suite(o.suite), {}};
  Suite& suite = chosen.suite;
  if (!o.isa.empty()) suite.isa = o.isa;
  if (!o.device.empty()) suite.device = o.device;
  if (o.threads > 0) suite.threads = o.threads;
  suite.scratch = o.scratch;
  if (o.most_ranks > 0) suite.max_ranks = o.most_ranks, suite.expected_plans = 0;
  check_isa(suite.isa);
  check_launch(o, suite);
  suite.launch = o.launch, suite.comm = !o.comm.empty() ? o.comm : o.launch.empty() ? "local" : "mpi";
  // A list needs none; of a job it is the hosts that have it, or not.
  if (o.launch.empty() && !to_list) check_device(suite.device);
  const ModelConfig model = load_model_config(suite.model);
  if (!o.plan.empty()) {
    const Plan plan = Plan::parse(o.plan);
    chosen.all.plans.push_back(legal_plan(o.plan, model, suite.admitting(plan)));
    chosen.all.part = "--plan";
    if (suite.weak) suite.expected_hash.clear();  // of the smallest batch, which may be another
    check_scratch(suite, chosen.all.plans);
    return chosen;
  }
  chosen.all = enumerate(suite, model);
  choose(o, suite, chosen.all, to_list);
  if (!to_list) check_scratch(suite, chosen.all.plans);
  return chosen;
}

}  // namespace lockstep
