#include "suites/mutants/campaign.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "suites/sweep/forked_worker.hpp"

namespace lockstep {
namespace {

constexpr double kSeconds = 60;  // for one answer; a sound plan takes a fraction of one
constexpr i64 kBytes = i64{4} << 30;
constexpr int kGlance = 2;  // milliseconds

// In this order a plan's gates are asked, and the first that is not content gives the plan its verdict.
const char* const kGates[] = {"deadlock", "waits",    "hang", "ended",  "numbers",
                              "guarded",  "messages", "work", "memory", "fast mode"};

// What a worker is asked, one after another.
enum Way { traces, exactly, fast, ways };
const char* const kWays[] = {"traces", "exactly", "fast"};

// In the worker's process.
class Judge {
 public:
  Judge(const std::vector<Mutant>& mutants, const Stages& stages) : mutants_(mutants), stages_(stages) {}

  // Gate and finding, alternately, each ended by a null.
  std::string operator()(const std::string& request) {
    const Mutant& m = mutants_[std::stoul(request)];
    const std::string way = request.substr(request.find(' ') + 1);
    const Stage& stage = stage_of(stages_, m.plan, m.tied);
    const bool sound = m.mutation.name.empty() && m.mutation.hook.empty();
    active_mutation = sound ? nullptr : &m.mutation;
    if (way != kWays[fast] && !prepared_)
      prepared_ = std::make_shared<Prepared>(prepare(stage.run(m.plan, false)));
    std::string answer;
    for (const GateVerdict& v : way == kWays[traces]    ? judge_traces(*prepared_)
                                : way == kWays[exactly] ? judge_exactly(*prepared_, stage)
                                                        : judge_fast_mode(stage, m.plan))
      if (v.found != "pass" && v.found != "not run") answer += v.gate + '\0' + v.found + '\0';
    return answer;
  }

 private:
  const std::vector<Mutant>& mutants_;
  const Stages& stages_;
  std::shared_ptr<Prepared> prepared_;  // a worker serves one mutant
};

void hear(Mutant& m, int way, const Answer& answer) {
  if (answer.end != Answer::End::answered) {
    const bool guarded = answer.text.find("guarded run") != std::string::npos;
    const char* gate = answer.end == Answer::End::timeout ? "hang" : guarded ? "guarded" : "ended";
    m.verdicts.push_back({way == fast ? "fast mode" : gate, answer.text});
    return;
  }
  for (std::size_t at = 0; at < answer.text.size();) {
    const std::size_t middle = answer.text.find('\0', at), end = answer.text.find('\0', middle + 1);
    m.verdicts.push_back(
        {answer.text.substr(at, middle - at), answer.text.substr(middle + 1, end - middle - 1)});
    at = end + 1;
  }
}

// One verdict a gate, its first, in the order of asking.
void settle(Mutant& m) {
  const auto turn = [](const GateVerdict& v) {
    return std::find(std::begin(kGates), std::end(kGates), v.gate) - std::begin(kGates);
  };
  std::stable_sort(m.verdicts.begin(), m.verdicts.end(),
                   [&](const GateVerdict& a, const GateVerdict& b) { return turn(a) < turn(b); });
  const auto same = [](const GateVerdict& a, const GateVerdict& b) { return a.gate == b.gate; };
  m.verdicts.erase(std::unique(m.verdicts.begin(), m.verdicts.end(), same), m.verdicts.end());
}

struct Lane {
  std::unique_ptr<ForkedWorker> worker;
  Mutant* mutant = nullptr;
  int way = 0;
};

}  // namespace

const Stage& stage_of(const Stages& stages, const std::string& plan, bool tied) {
  return stages.at({tied, Plan::parse(plan).number("cp")});
}

void judge_all(std::vector<Mutant>& mutants, const Stages& stages, int workers,
               const std::function<void(const Mutant&)>& begins, const std::function<void(Mutant&)>& judged) {
  std::vector<Lane> lanes(static_cast<std::size_t>(workers));
  auto next = mutants.begin();
  const auto ask = [&](Lane& lane) {
    lane.worker->begin(fmt::format("{} {}", lane.mutant - mutants.data(), kWays[lane.way]));
  };
  for (bool busy = true; busy;) {
    busy = false;
    for (Lane& lane : lanes) {
      if (!lane.mutant) {
        if (next == mutants.end()) continue;
        lane.mutant = &*next++, lane.way = 0;
        begins(*lane.mutant);
        lane.worker = std::make_unique<ForkedWorker>(Judge(mutants, stages),
                                                     ForkedWorker::Limits{kSeconds, kBytes, false});
        ask(lane);
      }
      busy = true;
      const auto answer = lane.worker->glance(kGlance);
      if (!answer) continue;
      hear(*lane.mutant, lane.way, *answer);
      if (++lane.way < ways) {
        ask(lane);
        continue;
      }
      settle(*lane.mutant);
      judged(*lane.mutant);
      lane.worker.reset(), lane.mutant = nullptr;
    }
  }
}

}  // namespace lockstep
