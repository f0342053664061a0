// lockstep mutants: does every fault that is put in on purpose come out? Only a test build has this command.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "suites/command.hpp"
#include "suites/command_options.hpp"
#include "suites/mutants/mutant.hpp"
#include "suites/progress.hpp"
#include "suites/worker.hpp"

namespace lockstep {
namespace {

struct Options {
  int each = 1, workers = 2;
  i64 seed = 1;
  std::string only;
  bool list = false;
};

std::string line(const Mutant& m) {
  std::string text = fmt::format("{}  {}", staged_plans()[m.plan].line, m.mutation.text());
  for (const GateVerdict& v : m.verdicts) text += fmt::format("\n    {}: {}", v.gate, v.found.substr(0, 160));
  return text;
}

// What is asked of a worker: which mutant, and how.
const char* const kWays[] = {"traces", "exactly", "fast"};

int command_mutants(const Options& o) {
  const TokenFile data("datasets/excerpt-v509.tok");
  const Stage tied(data, true, 1), untied(data, false, 1);
  auto stage = [&](int plan) -> const Stage& { return staged_plans()[plan].tied ? tied : untied; };
  std::vector<Prepared> plans;
  for (int i = 0; i < static_cast<int>(staged_plans().size()); ++i)
    plans.push_back(prepare(stage(i).run(staged_plans()[i].line, false)));
  std::vector<Mutant> mutants = choose_mutants(plans, o.each, o.seed);
  std::erase_if(mutants, [&](const Mutant& m) {
    return (m.kind + " " + m.mutation.text()).find(o.only) == std::string::npos;
  });
  fmt::print("{} mutants of {} plans\n", mutants.size(), plans.size());
  if (o.list) {
    for (const Mutant& m : mutants) fmt::print("{}  {}\n", staged_plans()[m.plan].line, m.mutation.text());
    return 0;
  }

  std::optional<Prepared> prepared;  // in a worker: of the mutant it was asked for before
  int prepared_mutant = -1;
  auto body = [&](const std::string& request) {
    const int index = std::stoi(request);
    const std::string way = request.substr(request.find(' ') + 1);
    const Mutant& m = mutants[index];
    active_mutation = &m.mutation;
    const Stage& s = stage(m.plan);
    const std::string plan = staged_plans()[m.plan].line;
    if (way != "fast" && prepared_mutant != index)
      prepared.emplace(prepare(s.run(plan, false))), prepared_mutant = index;
    std::string answer;
    for (const GateVerdict& v : way == "traces"    ? judge_traces(*prepared)
                                : way == "exactly" ? judge_exactly(*prepared, s)
                                                   : judge_fast_mode(s, plan))
      if (v.found != "pass" && v.found != "not run") answer += v.gate + '\t' + v.found + '\0';
    return answer;
  };
  struct Lane {
    std::unique_ptr<Worker> worker;
    int mutant = -1, way = 0;
  };
  std::vector<Lane> lanes(o.workers);
  Progress progress(static_cast<int>(mutants.size()));
  std::size_t next = 0, busy = 0;
  for (;;) {
    busy = 0;
    for (Lane& lane : lanes) {
      if (lane.mutant < 0) {
        if (next == mutants.size()) continue;
        lane.mutant = static_cast<int>(next++), lane.way = 0;
        lane.worker = std::make_unique<Worker>(body, Worker::Limits{30, i64{4} << 30, false});
        lane.worker->begin(fmt::format("{} {}", lane.mutant, kWays[0]));
      }
      ++busy;
      Mutant& m = mutants[lane.mutant];
      const auto answer = lane.worker->glance(2);
      if (!answer) continue;
      if (answer->end == Answer::End::answered) {
        for (std::size_t at = 0; at < answer->text.size();) {
          const std::size_t tab = answer->text.find('\t', at), end = answer->text.find('\0', at);
          m.verdicts.push_back({answer->text.substr(at, tab - at), answer->text.substr(tab + 1, end - tab - 1)});
          at = end + 1;
        }
      } else {
        const bool guarded = answer->text.find("guarded run") != std::string::npos;
        m.verdicts.push_back({std::string(lane.way == 2 ? "fast " : "") +
                                  (answer->end == Answer::End::timeout ? "hang" : guarded ? "guarded" : "ended"),
                              answer->text});
      }
      if (++lane.way < 3) {
        lane.worker->begin(fmt::format("{} {}", lane.mutant, kWays[lane.way]));
        continue;
      }
      progress.begin(m.mutation.text());
      if (!m.caught()) progress.say("NOT CAUGHT  " + line(m));
      progress.end();
      lane.worker.reset(), lane.mutant = -1;
    }
    if (!busy) break;
  }
  progress.finish();
  std::size_t caught = 0;
  for (const Mutant& m : mutants) caught += m.caught();
  fmt::print("{} of {} caught, {:.0f} s\n", caught, mutants.size(), progress.seconds());
  return caught == mutants.size() ? 0 : 1;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--each", o->each, "mutants of each kind, in as many plans")->capture_default_str();
  app.add_option("--seed", o->seed, "which of those that are alike")->capture_default_str();
  app.add_option("--only", o->only, "only mutants with this in their text");
  app.add_option("--workers", o->workers, "processes at once")->capture_default_str()->check(CLI::Range(1, 64));
  app.add_flag("--list", o->list, "list them");
  return [o] { return command_mutants(*o); };
}

const Command command("mutants", "put faults in on purpose, one at a time: which gate catches each", declare);

}  // namespace
}  // namespace lockstep
