#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <new>

#include "ref/error.hpp"
#include "suites/gates/among.hpp"
#include "suites/run/locate.hpp"
#include "suites/run/reference.hpp"
#include "suites/run/stream.hpp"

namespace lockstep {
namespace {

struct Outcome {
  std::string problem;  // numbers
  Whole whole;
  std::vector<Holding> holdings;
  Mesh mesh;
  std::string messages;          // their gate's verdict
  std::vector<i64> guard_peaks;  // by rank
  std::vector<Ran> work;         // by rank, first step
};

// A guarded buffer touched out of its life or bounds ends the process: not without a sentence.
class FaultSentence {
 public:
  explicit FaultSentence(const std::string& plan) {
    sentence = fmt::format(
        "\n{}: memory: guarded run: a buffer was used after its release or beyond its end\n", plan);
    struct sigaction action {};
    action.sa_handler = [](int signal) {
      // The access is tried again, and then whoever was there before ends it.
      sigaction(signal, signal == SIGBUS ? &bus : &segv, nullptr);
      if (write(STDERR_FILENO, sentence.data(), sentence.size()) < 0) return;  // nothing more can be done
    };
    sigaction(SIGSEGV, &action, &segv), sigaction(SIGBUS, &action, &bus);
  }
  ~FaultSentence() { sigaction(SIGSEGV, &segv, nullptr), sigaction(SIGBUS, &bus, nullptr); }
  FaultSentence(const FaultSentence&) = delete;
  FaultSentence& operator=(const FaultSentence&) = delete;

 private:
  inline static std::string sentence;
  inline static struct sigaction segv, bus;
};

Outcome run(const Prepared& p, const Launch& how, i64 steps, const std::vector<std::vector<float>>& initial) {
  Outcome ran;
  StepsOfRanks done{p};
  ran.guard_peaks.resize(p.mesh.size());
  Assembly assembly(p, steps, how.mpi);
  launch(p, how, [&](RankView v) {
    initialise(v, initial);
    for (i64 k = 0; k < steps; ++k) {
      const StepResult r = v.executor.step(
          k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); });
      assembly.result(k, r, v.rank);
      done.see(k, v);
    }
    if (v.guard) ran.guard_peaks[v.rank] = v.guard->peak();
  });
  assembly.gather();
  ran.messages = judge_messages(p, how.mpi, std::move(done.posted));
  done.gather(how.mpi), collect(how.mpi, ran.guard_peaks);
  ran.work = done.ran;
  if (!knows_all(how.mpi)) return ran;
  ran.problem = assembly.problem();
  if (const std::string later = done.problem(); !later.empty()) ran.problem = later;
  ran.holdings = assembly.holdings(), ran.mesh = p.mesh;
  ran.whole = assembly.give_whole();
  return ran;
}

bool makes_copies(const Prepared& p) {
  for (const Trace& trace : p.traces)
    for (const Trace::Event& e : trace.events)
      if (e.what == Trace::Event::copy) return true;
  return false;
}

std::string judge_numbers(const Outcome& ran, const Prepared& p, const Launch& how, const Weights& initial,
                          const Whole& reference) {
  if (!knows_all(how.mpi)) return "pass";  // as far as this process is asked
  const std::string mode = how.guard ? how.mpi ? "guarded: " : "guarded, lazy: " : "";
  if (!ran.problem.empty()) return mode + ran.problem;
  const auto found = locate(reference, ran.whole, ran.holdings, ran.mesh);
  if (!found) return "pass";
  if (found->first.what != "loss" || how.mpi) return mode + found->text();
  // Every gradient is wrong then, and says little: the forward pass itself is looked at.
  return mode + found->text() + "; " + follow_stream(p, how, initial, reference, found->first.step);
}

}  // namespace

Verdict judge(const Prepared& p, const Whole& reference, const GateOptions& options,
              const std::vector<std::vector<float>>& initial) {
  Verdict verdict;
  if (verdict.messages = wrong_in_the_trace(p); !verdict.messages.empty()) return verdict;
  verdict.messages = "not run";
  const i64 steps = p.run.settings.steps;
  try {
    Launch how = options.launch();
    Outcome ran = run(p, how, steps, initial);
    verdict.numbers = judge_numbers(ran, p, how, initial, reference);
    verdict.messages = ran.messages;
    if (verdict.messages == "pass") verdict.messages = judge_work(p, ran.work);
    verdict.hash = ran.whole.hash();
    verdict.whole = std::move(ran.whole);
    std::vector<i64> guard_peaks;
    if (options.guarded && !options.accelerator && agreed(options.mpi, verdict.numbers == "pass")) {
      how.timing = Timing::lazy, how.guard = true;
      const FaultSentence sentence(p.run.plan.line());
      const i64 guarded_steps = std::min(steps, options.guarded_steps + makes_copies(p));
      const Weights begin = options.fresh ? Weights{} : initial;
      const Outcome guarded = run(p, how, guarded_steps, begin);
      verdict.numbers = judge_numbers(guarded, p, how, begin, reference);
      guard_peaks = guarded.guard_peaks;
    }
    verdict.memory = judge_memory(p, guard_peaks);
  } catch (const UserError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;  // what this machine has not, is no fault of the plan's
  } catch (const std::exception& e) {
    if (options.mpi) throw;  // the others would wait for this rank
    verdict.numbers = std::string("ended: ") + e.what();
  }
  return verdict;
}

}  // namespace lockstep
