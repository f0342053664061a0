// lockstep mutants: does every fault that is put in on purpose come out? Only a test build has this command.
#include "suites/commands/command.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>

#include "ref/error.hpp"
#include "suites/mutants/campaign.hpp"
#include "suites/mutants/equivalent.hpp"
#include "suites/mutants/mutant_table.hpp"
#include "suites/mutants/named.hpp"
#include "suites/mutants/sites.hpp"
#include "suites/progress.hpp"

namespace lockstep {
namespace {

struct Options {
  int each = 1, workers = 2, seeds = 0;
  i64 seed = 1;
  std::string only, out;
  bool list = false, named_only = false;
};

std::string spelled_out(const Mutant& m) {
  std::string text = m.text();
  for (const GateVerdict& v : m.verdicts) text += fmt::format("\n    {}: {}", v.gate, v.found.substr(0, 200));
  return text;
}

Stages stages_of(const TokenFile& data, i64 seed) {
  Stages stages;
  for (const bool tied : {true, false})
    for (const int segments : {1, 2}) stages.try_emplace({tied, segments}, data, tied, segments, seed);
  return stages;
}

std::vector<Mutant> all_mutants(const Options& o, const Stages& stages) {
  std::vector<Mutant> mutants;
  for (NamedMutant& n : named_mutants()) {
    complete(n.mutation, prepare(stage_of(stages, n.plan, true).run(n.plan, false)));
    mutants.push_back({n.plan, true, "named", n.mutation, "", n.bug, n.seen_in});
  }
  if (!o.named_only) {
    std::vector<Prepared> plans;
    for (const StagedPlan& p : staged_plans())
      plans.push_back(prepare(stage_of(stages, p.line, p.tied).run(p.line, false)));
    const std::vector<Mutant> chosen = choose_mutants(plans, o.each, o.seed);
    mutants.insert(mutants.end(), chosen.begin(), chosen.end());
  }
  std::erase_if(mutants, [&](const Mutant& m) {
    return (m.text() + m.kind + m.mutation.text()).find(o.only) == std::string::npos;
  });
  return mutants;
}

// What no gate sees must be the same program; else a gate has a hole.
void weigh_survivor(Mutant& m, const Stages& stages) {
  const lockstep::Run run = stage_of(stages, m.plan, m.tied).run(m.plan, false);
  const Prepared sound = prepare(run);
  active_mutation = &m.mutation;
  const Prepared mutated = prepare(run);
  active_mutation = nullptr;
  m.equivalent = equivalence(m, sound, mutated);
}

// No fault, no alarm: the same plans with as many seeds. Returns how many complain.
int false_alarms(const Options& o, const TokenFile& data) {
  int alarms = 0;
  Progress progress(o.seeds * static_cast<int>(staged_plans().size()));
  for (i64 seed = 1; seed <= o.seeds; ++seed) {
    std::vector<Mutant> sound;
    for (const StagedPlan& p : staged_plans()) sound.push_back({p.line, p.tied, "", {}});
    judge_all(
        sound, stages_of(data, seed), o.workers, [&](const Mutant& m) { progress.begin(m.plan); },
        [&](Mutant& m) {
          if (m.caught())
            ++alarms, progress.say(fmt::format("FALSE ALARM, seed {}: {}", seed, spelled_out(m)));
          progress.end(m.plan);
        });
  }
  progress.finish();
  fmt::print("no fault, {} seeds: {} of {} plans raise a false alarm, {:.0f} s\n", o.seeds, alarms,
             o.seeds * staged_plans().size(), progress.seconds());
  return alarms;
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw UserError(path + ": this file cannot be written");
}

int command_mutants(const Options& o) {
  const TokenFile data("datasets/excerpt-v509.tok");
  const Stages stages = stages_of(data, 1);
  std::vector<Mutant> mutants = all_mutants(o, stages);
  if (o.list) {
    for (const Mutant& m : mutants) fmt::print("{}\n", m.text());
    return 0;
  }
  fmt::print("{} mutants of {} plans\n", mutants.size(), staged_plans().size());
  Progress progress(static_cast<int>(mutants.size()));
  judge_all(
      mutants, stages, o.workers, [&](const Mutant& m) { progress.begin(m.text()); },
      [&](Mutant& m) {
        if (!m.caught()) weigh_survivor(m, stages);
        if (m.missed()) progress.say("MISSED  " + m.text());
        if (!o.only.empty() && m.caught()) progress.say(spelled_out(m));
        progress.end(m.text());
      });
  progress.finish();
  const int alarms = o.seeds > 0 ? false_alarms(o, data) : 0;
  if (!o.out.empty()) {
    write_mutants(mutants, o.out + ".h5");
    write_text(o.out + ".md", "# Mutants\n\n" + verdict_line(mutants) + "\n\n" + summary_table(mutants) +
                                  "\n## Ten messages of a layer, by chance\n\n" +
                                  ten_at_random(mutants, o.seed) + "\n## All\n\n" + mutant_table(mutants));
  }
  fmt::print("{}\n{}, {:.0f} s\n", summary_table(mutants), verdict_line(mutants), progress.seconds());
  const bool missed = std::any_of(mutants.begin(), mutants.end(), [](const Mutant& m) { return m.missed(); });
  return missed || alarms > 0 ? 1 : 0;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--each", o->each, "mutants of each kind, in as many plans")->capture_default_str();
  app.add_option("--seed", o->seed, "which of those that are alike")->capture_default_str();
  app.add_option("--seeds", o->seeds, "also run every plan without a fault, with seeds 1 to N")
      ->capture_default_str();
  app.add_option("--only", o->only, "only mutants with this in their text, and all that was found");
  app.add_flag("--named", o->named_only, "only those with a public source");
  app.add_option("--workers", o->workers, "processes at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--out", o->out, "write FILE.md and FILE.h5: every mutant and what caught it");
  app.add_flag("--list", o->list, "list them");
  return [o] { return command_mutants(*o); };
}

const Command command("mutants", "put faults in on purpose, one at a time: which gate catches each", declare);

}  // namespace
}  // namespace lockstep
