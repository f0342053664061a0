#include "suites/sweep/sweep.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>  // and program_invocation_name
#include <csignal>
#include <fstream>
#include <sstream>

#include "kernels/cores.hpp"
#include "ref/error.hpp"
#include "suites/here.hpp"
#include "suites/run/machine_memory.hpp"
#include "suites/settings_list.hpp"
#include "suites/sweep/job_command.hpp"
#include "suites/sweep/launched_worker.hpp"
#include "suites/sweep/record_of.hpp"

namespace lockstep {
namespace {

constexpr int kMostJobs = 8, kMostOnGpu = 2;  // processes on one GPU take turns: one computes, one gets ready
constexpr const char* kNotFinished = "INVALID: not finished";

volatile std::sig_atomic_t interrupted = 0;

// The first signal ends the sweep after the present plans, with a record of what was done; a second one, of
// whichever kind, at once.
void listen_for_signals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) {
    if (interrupted) {
      std::signal(signal, SIG_DFL), std::raise(signal);
      return;
    }
    interrupted = 1;
    const int was = errno;
    constexpr char kSays[] = "\ninterrupted: ends when the plans under way do; a second time ends at once\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kSays, sizeof kSays - 1);
    errno = was;
  };
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

}  // namespace

Sweep::Sweep(const Suite& suite, Enumeration plans, const SweepOptions& options)
    : suite_(suite),
      model_(load_model_config(suite.model)),
      data_(suite.data),
      all_(std::move(plans)),
      options_(options),
      progress_(static_cast<int>(all_.plans.size())) {
  for (const Plan& plan : all_.plans) {
    const Settings settings = suite.settings_of(plan);
    if (standards_.count(settings.batch)) continue;
    check_data(data_, suite.data, model_, settings);
    standards_.emplace(settings.batch, Standard{suite_, settings, model_, data_, options.timed});
  }
  run_ = lockstep::record_of(suite, model_, data_);
  run_.isa = isa_here(suite.isa), run_.device = suite.device;
  run_.launch = suite.launch, run_.comm = suite.comm;
  run_.refused = all_.by_rule();
  run_.verdict = kNotFinished;
  if (options.timed && !suite.cluster.empty()) {
    cluster_ = cluster_of_sweep(suite.cluster, suite.settings);
    std::ostringstream text;
    text << std::ifstream(cluster_file(suite.cluster)).rdbuf();
    run_.predicted_with = text.str();
  }
  if (!options.out.empty()) folder_.emplace(options.out, identity(), options.fresh);
}

Identity Sweep::identity() const {
  std::vector<std::string> opened;  // of the program's shared objects, by what runs and carries the plans
  if (run_.device != "cpu") opened.push_back("lockstep_cuda.so");
  if (run_.comm != "local") opened.push_back("lockstep_mpi.so");
  if (run_.comm == "nccl") opened.push_back("lockstep_nccl.so");
  Identity id{{"suite", suite_.name}, {"model", run_.model_hash}, {"data", run_.data_hash},
              {"dtype", run_.dtype},  {"isa", run_.isa},          {"build", build_identity(opened)},
              {"cpu", run_.cpu},      {"device", run_.device}};
  id["threads"] = fmt::format("{}", suite_.threads);
  id["timed_steps"] = fmt::format("{} to {}", suite_.repeats.least, suite_.repeats.most);
  id["scaling"] = suite_.weak ? "weak" : "strong";
  id["launch"] = suite_.launch, id["comm"] = suite_.comm;
  id["timed_spread"] = fmt::format("{}", suite_.repeats.spread);
  for (const Setting& s : settings_list())
    std::visit([&](auto field) { id[s.name] = fmt::format("{}", suite_.settings.*field); }, s.field);
  return id;
}

int Sweep::run() {
  introduce();
  take_up();
  if (suite_.expected_plans > 0 && all_.in_suite > 0 && all_.in_suite != suite_.expected_plans)
    return end(
        fmt::format(
            "INVALID: {} plans may run, and the suite expects {}; `lockstep sweep --dry-run` says which "
            "rules refuse the others",
            all_.in_suite, suite_.expected_plans),
        1);
  make_references();
  if (!run_.reference_hash.starts_with(suite_.expected_hash))
    return end(
        fmt::format("INVALID: the reference's hash is {}, and the suite expects {}: kernels, model, text or "
                    "settings are not those that it was written for",
                    run_.reference_hash.substr(0, std::max<std::size_t>(16, suite_.expected_hash.size())),
                    suite_.expected_hash),
        1);
  for (const auto& [batch, standard] : standards_)
    if (const std::string why = vacuous(standard.reference, standard.settings); !why.empty())
      return end("INVALID: the reference would prove nothing: " + why, 1);
  for (const auto& [batch, standard] : standards_)
    if (const std::string why = strays(standard.float64, standard.settings); !why.empty())
      return end("INVALID: the reference is wrong: " + why, 1);
  listen_for_signals();  // until now there was nothing to lose
  run_plans();
  return conclude();
}

void Sweep::introduce() {
  const Settings& s = suite_.settings;
  std::string rules;
  for (const auto& [rule, count] : run_.refused)
    rules += fmt::format("{}{} {}", rules.empty() ? " by " : ", ", rule, count);
  progress_.say(fmt::format("{}: {} steps of {} x {} tokens, {} kernels; {} plan{}, {} refused{}",
                            suite_.name, s.steps, s.batch, s.seq, run_.isa, all_.plans.size(),
                            all_.plans.size() == 1 ? "" : "s", all_.refused.size(), rules));
}

void Sweep::take_up() {
  if (!folder_) return;
  for (const Plan& plan : all_.plans)
    if (auto record = folder_->recorded(plan); record && !(options_.retry && !record->ended.empty()))
      done_.emplace(plan.line(), std::move(*record));
  folder_->note(fmt::format("sweep of {} plans, {} recorded", all_.plans.size(), done_.size()));
  if (!done_.empty())
    progress_.say(fmt::format("going on: {} of {} plans are recorded", done_.size(), all_.plans.size()));
  progress_.skip(static_cast<int>(done_.size()));
  save(kNotFinished);
}

void Sweep::make_references() {
  for (auto& [batch, standard] : standards_) make_reference(standard);
  run_.reference_hash = standards_.begin()->second.reference_hash;
}

void Sweep::make_reference(Standard& standard) {
  const Made made = make(standard, folder_ ? folder_->reference_file() : "", /*keep=*/true);
  busy_seconds_ += made.together;
  reference_seconds_ = std::max(reference_seconds_, made.run);
  const auto& steps = standard.reference.steps;
  progress_.say(fmt::format("reference{}{}: hash {}, loss {:.4f} to {:.4f}", made.was_kept ? ", kept" : "",
                            suite_.weak ? fmt::format(" of {} sequences", standard.settings.batch) : "",
                            standard.reference_hash.substr(0, 16), steps.front().loss, steps.back().loss));
}

// By default far above what a plan needs that ends by itself: a step that recomputes, has guarded buffers and
// shares its cores takes a few times the reference's.
ForkedWorker::Limits Sweep::limits() const {
  const double steps = static_cast<double>(suite_.settings.steps);
  const double each = reference_seconds_ / steps;
  const double seconds =
      suite_.max_seconds > 0 ? suite_.max_seconds : 120 + 100 * each * (2 * steps + suite_.repeats.most);
  const double bytes =
      suite_.max_memory > 0 ? suite_.max_memory * (i64{1} << 30) : 0.8 * static_cast<double>(machine_bytes());
  return {seconds, static_cast<i64>(bytes)};
}

// Those that are timed come first and have the machine for themselves; the others share it. What a launcher
// starts has its machines for itself, and one job judges all plans of as many ranks.
void Sweep::run_plans() {
  std::vector<const Plan*> left;
  for (const Plan& plan : all_.plans)
    if (!done_.count(plan.line())) left.push_back(&plan);
  if (!suite_.launch.empty()) {
    std::map<int, std::vector<const Plan*>> by_ranks;
    for (const Plan* plan : left) by_ranks[plan->ranks()].push_back(plan);
    for (const auto& [ranks, plans] : by_ranks)
      if (!interrupted) run_launched(ranks, plans);
    return;
  }
  const auto shared = std::stable_partition(
      left.begin(), left.end(), [&](const Plan* plan) { return is_timed(*plan, standard_of(*plan)); });
  run_plans({left.begin(), shared}, threads(1), 1);
  const int most = suite_.device == "cpu" ? kMostJobs : kMostOnGpu;
  const int jobs = options_.jobs > 0 ? options_.jobs : std::min(cores(), most);
  run_plans({shared, left.end()}, threads(jobs), jobs);
}

Crew Sweep::threads(int jobs) const {
  return Crew(
      jobs,
      [this](const std::string& line) {
        const Plan plan = Plan::parse(line);
        return bytes_of(check_plan(plan, standard_of(plan)));
      },
      limits());
}

void Sweep::run_launched(int ranks, const std::vector<const Plan*>& plans) {
  const std::string command =
      job_command(suite_, ranks, options_.timed, folder_ ? folder_->reference_file() : "");
  try {
    auto worker =
        std::make_unique<LaunchedWorker>(command, limits().seconds, [] { return interrupted != 0; });
    run_plans(plans, Crew(std::move(worker)), 1);
  } catch (const UserError& e) {
    progress_.finish();
    save(kNotFinished);
    throw UserError(fmt::format("{}{}", e.what(), folder_ ? "; what is recorded stays" : ""));
  }
}

void Sweep::run_plans(const std::vector<const Plan*>& plans, Crew crew, int jobs) {
  std::vector<std::string> lines;
  for (const Plan* plan : plans) lines.push_back(plan->line());
  const auto begun = [&](std::size_t i) {
    progress_.begin(lines[i]);
    if (folder_) folder_->begun(*plans[i]);
  };
  const auto ended = [&](std::size_t i, const Answer& answer, double seconds) {
    // The signal that interrupts the sweep may have ended its job, too: Slurm's does.
    if (interrupted && !suite_.launch.empty() && answer.end != Answer::End::answered) return;
    PlanRecord record = record_of(*plans[i], answer, seconds);
    const PlanRecord& p = done_.emplace(lines[i], std::move(record)).first->second;
    if (folder_) folder_->ended(p);
    busy_seconds_ += p.wall_seconds / jobs;
    if (p.status != "ok")
      progress_.say(
          fmt::format("FAILED {}: {}\n       again: {}", p.plan, complaint(p), judge_again(suite_, p.plan)));
    progress_.end(p.plan);
  };
  crew.ask(lines, {.go_on = [] { return !interrupted; }, .begun = begun, .ended = ended});
}

PlanRecord Sweep::record_of(const Plan& plan, const Answer& answer, double seconds) const {
  if (answer.end == Answer::End::answered)
    return suite_.launch.empty() ? plan_of(answer.text) : heard_of(plan, answer.text);
  PlanRecord p = lockstep::record_of(plan, answer, suite_.threads);
  p.wall_seconds = seconds;
  return p;
}

// What a job says of a plan counts if it was held to this sweep's reference: hosts may have another model,
// data or program under the same names, and a suite's file may change meanwhile.
PlanRecord Sweep::heard_of(const Plan& plan, const std::string& said) const {
  const auto [theirs, bytes] = parts_of_answer(said);
  const std::string& ours = standard_of(plan).reference_hash;
  try {
    PlanRecord p = plan_of(bytes);
    if (p.plan != plan.line()) throw std::invalid_argument("another plan");
    if (theirs != ours) {
      p.status = "failed";
      p.numbers = fmt::format(
          "its job held it to a reference with hash {}, and this sweep's has {}: do its hosts "
          "have the same suite, model, data and program?",
          theirs, ours);
    }
    return p;
  } catch (const std::exception&) {
    return lockstep::record_of(plan, {Answer::End::crashed, kDamaged}, suite_.threads);
  }
}

void Sweep::save(const std::string& verdict) {
  run_.verdict = verdict;
  run_.plans.clear();
  for (const Plan& plan : all_.plans)
    if (const auto found = done_.find(plan.line()); found != done_.end()) run_.plans.push_back(found->second);
  // No plan's own record holds this: it depends on the cluster's file alone, which may be another than when
  // the sweep began.
  if (cluster_) predict_steps(run_.plans, suite_, model_, *cluster_);
  if (folder_) write_run(run_, folder_->run_file());
}

int Sweep::conclude() {
  const std::size_t all = all_.plans.size();
  if (busy_seconds_ > 0)
    progress_.say(fmt::format("in steps and gates: {:.0f} %", 100 * busy_seconds_ / progress_.seconds()));
  const PlanRecord *first = nullptr, *worst = nullptr;  // that failed; the furthest from float64
  std::size_t failed = 0, exact = 0;
  for (const Plan& plan : all_.plans) {
    const auto found = done_.find(plan.line());
    if (found == done_.end()) continue;
    const PlanRecord& p = found->second;
    exact += p.numbers == "pass";
    if (!worst || p.fast_worst > worst->fast_worst) worst = &p;
    if (p.status == "ok") continue;
    if (!first) first = &p;
    ++failed;
  }
  if (first)
    return end(fmt::format("INVALID: {} of {} plans failed: {}: {}", failed, done_.size(), first->plan,
                           complaint(*first)),
               1);
  if (done_.size() < all)
    return end(fmt::format("INVALID: interrupted after {} of {} plans{}", done_.size(), all,
                           folder_ ? "; the same command goes on" : ""),
               1);
  progress_.say(fmt::format("exact: hash {} of {} plans; fast: {} plans within {:.2g} of the bound ({}, {})",
                            exact > 0 ? run_.reference_hash : "none", exact, all, worst->fast_worst,
                            worst->plan, worst->fast_where));
  if (exact > 0) run_.hash = run_.reference_hash;
  const std::string each =
      standards_.size() > 1 ? fmt::format("for each of {} batches ", standards_.size()) : "";
  const std::string behind = exact == all ? fmt::format("{}one hash {}", each, run_.hash.substr(0, 16))
                             : exact > 0  ? fmt::format("one hash {} of {}, {} in fast mode alone",
                                                        run_.hash.substr(0, 16), exact, all - exact)
                                          : "in fast mode alone";
  return end(fmt::format("VALID: {} plan{}, {}, {} refused, {:.0f} s", all, all == 1 ? "" : "s", behind,
                         all_.refused.size(), progress_.seconds()),
             0);
}

int Sweep::end(const std::string& outcome, int status) {
  const std::string verdict = all_.part.empty() ? outcome : fmt::format("{} ({})", outcome, all_.part);
  progress_.finish();
  save(verdict);
  if (folder_) folder_->note(verdict);
  if (options_.verdict_file.empty()) {
    fmt::print("{}\n", verdict);
    return status;
  }
  std::ofstream file(options_.verdict_file);
  file << verdict << '\n';
  if (!file.flush()) throw UserError(options_.verdict_file + ": this file cannot be written");
  return status;
}

std::string judge_again(const Suite& suite, const std::string& plan) {
  return fmt::format(
      "{} gate {} --plan \"{}\" --isa {} --device {} --threads {}{}", program_invocation_name, suite.path,
      plan, isa_here(suite.isa), suite.device, suite.threads,
      suite.launch.empty() ? "" : fmt::format(" --launch \"{}\" --comm {}", suite.launch, suite.comm));
}

}  // namespace lockstep
