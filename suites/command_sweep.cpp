// lockstep sweep: every plan of a suite against one device. Ends in one line, VALID or INVALID.
#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include "ref/error.hpp"
#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/gates/gates.hpp"
#include "suites/progress.hpp"
#include "suites/record_of.hpp"
#include "suites/reference.hpp"
#include "suites/settings_list.hpp"
#include "suites/stopwatch.hpp"
#include "suites/sweep_mpi.hpp"

namespace lockstep {
namespace {

struct Options {
  std::string suite, out, only, isa, comm = "local", scratch;
  int threads = 0;  // 0, and an empty isa: as the suite says
  bool dry_run = false;
};

volatile std::sig_atomic_t interrupted = 0;

// The first signal ends the sweep after the present plan, with a record of what was done; the second at once.
void listen_for_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void keep_matching(Enumeration& all, const std::string& part) {
  std::erase_if(all.plans, [&](const Plan& p) { return p.line().find(part) == std::string::npos; });
  std::erase_if(all.refused, [&](const auto& r) { return r.plan.line().find(part) == std::string::npos; });
}

std::map<std::string, i64> by_rule(const Enumeration& all) {
  std::map<std::string, i64> count;
  for (const auto& r : all.refused) ++count[r.refusal.rule];
  return count;
}

int list(const Enumeration& all) {
  for (const Plan& p : all.plans) fmt::print("{}\n", p.line());
  for (const auto& [rule, count] : by_rule(all)) {
    fmt::print("\nrefused by {}: {}\n", rule, count);
    for (const auto& r : all.refused)
      if (r.refusal.rule == rule) fmt::print("  {}: {}\n", r.plan.line(), r.refusal.why);
  }
  fmt::print("\n");
  for (const auto& c : all.covered)
    fmt::print("covered: {} of {} legal {}{}\n", c.covered, c.legal, c.what,
               c.undecided ? fmt::format(", {} undecided", c.undecided) : "");
  fmt::print("{} plans, {} refused\n", all.plans.size(), all.refused.size());
  return 0;
}

// The gate that a plan failed, and what it found.
std::string complaint(const PlanRecord& p) {
  for (const auto& [gate, found] :
       {std::pair{"numbers", &p.numbers}, {"messages", &p.messages}, {"memory", &p.memory}})
    if (*found != "pass") return fmt::format("{}: {}: {}", p.plan, gate, *found);
  return p.plan;
}

class Sweep {
 public:
  Sweep(const Suite& suite, Enumeration plans, const std::string& out)
      : suite_(suite),
        model_(load_model_config(suite.model)),
        data_(suite.data),
        all_(std::move(plans)),
        out_(out),
        progress_(static_cast<int>(all_.plans.size())) {
    check_data(data_, suite.data, model_, suite.settings);
    record_ = record_of(suite, model_, data_);
    record_.isa = isa_here(suite.isa);
    record_.refused = by_rule(all_);
  }

  int run() {
    introduce();
    if (!out_.empty()) {
      std::error_code ignored;  // the writer's complaint says it better
      std::filesystem::create_directories(out_, ignored);
      save("INVALID: not finished");
    }
    initial_ = fresh_weights(model_, suite_.settings);
    reference_ = reference_run(model_, suite_.settings, data_, suite_.isa, suite_.threads, initial_);
    record_.reference_hash = reference_.hash();
    progress_.say(fmt::format("reference: hash {}, loss {:.4f} to {:.4f}",
                              record_.reference_hash.substr(0, 16), reference_.steps.front().loss,
                              reference_.steps.back().loss));
    if (const std::string why = vacuous(reference_, suite_.settings); !why.empty())
      return end("INVALID: the reference would prove nothing: " + why, 1);

    for (const Plan& plan : all_.plans) {
      if (interrupted) break;
      progress_.begin(plan.line());
      record_.plans.push_back(check(plan));
      if (const PlanRecord& p = record_.plans.back(); p.status != "ok")
        progress_.say("FAILED " + complaint(p));
      progress_.end();
      save("INVALID: not finished");
    }
    return conclude();
  }

 private:
  void introduce() {
    const Settings& s = suite_.settings;
    std::string rules;
    for (const auto& [rule, count] : record_.refused)
      rules += fmt::format("{}{} {}", rules.empty() ? " by " : ", ", rule, count);
    progress_.say(fmt::format("{}: {} steps of {} x {} tokens, {} kernels; {} plans, {} refused{}",
                              suite_.name, s.steps, s.batch, s.seq, record_.isa, all_.plans.size(),
                              all_.refused.size(), rules));
  }

  PlanRecord check(const Plan& plan) {
    const Prepared prepared = prepare({model_, suite_.settings, plan, &data_});
    Verdict verdict = judge(
        prepared, reference_,
        {.isa = suite_.isa, .threads = suite_.threads, .fresh = true, .scratch = suite_.scratch}, initial_);
    if (verdict.numbers == "pass" && verdict.hash != record_.reference_hash)
      verdict.numbers = fmt::format("hash {} instead of {}", verdict.hash, record_.reference_hash);
    PlanRecord p = record_of(prepared, verdict, suite_.threads);
    // Ranks that share a core would time the operating system.
    if (verdict.pass() && p.ranks * p.threads <= record_.cores) {
      Timed timed =
          time_steps(prepared, {.isa = suite_.isa, .threads = suite_.threads, .scratch = suite_.scratch},
                     initial_, suite_.timed_steps);
      p.timed = true;
      p.step_seconds = std::move(timed.step_seconds);
      p.resident_bytes = timed.resident_bytes;
    }
    return p;
  }

  void save(const std::string& verdict) {
    record_.verdict = verdict;
    if (!out_.empty()) write_run(record_, out_ + "/run.h5");
  }

  int conclude() {
    const std::size_t done = record_.plans.size(), all = all_.plans.size();
    const PlanRecord* first = nullptr;
    std::size_t failed = 0;
    for (const PlanRecord& p : record_.plans) {
      if (p.status == "ok") continue;
      if (!first) first = &p;
      ++failed;
    }
    if (failed > 0)
      return end(fmt::format("INVALID: {} of {} plans failed: {}", failed, done, complaint(*first)), 1);
    if (done < all) return end(fmt::format("INVALID: interrupted after {} of {} plans", done, all), 1);
    record_.hash = record_.reference_hash;
    return end(fmt::format("VALID: {} plans, one hash {}, {} refused, {:.0f} s", all,
                           record_.hash.substr(0, 16), all_.refused.size(), progress_.seconds()),
               0);
  }

  int end(const std::string& verdict, int status) {
    progress_.finish();
    save(verdict);
    fmt::print("{}\n", verdict);
    return status;
  }

  const Suite& suite_;
  const ModelConfig model_;
  const TokenFile data_;
  const Enumeration all_;
  const std::string out_;
  Progress progress_;
  RunRecord record_;
  Weights initial_;  // the same for every plan: made once
  Whole reference_;
};

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
  listen_for_signals();
  return Sweep(suite, std::move(all), o.out).run();
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("suite", o->suite, "a suite's TOML file (suites/README.md)")->required();
  app.add_option("--out", o->out, "folder to write run.h5 into; without it nothing is kept");
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
