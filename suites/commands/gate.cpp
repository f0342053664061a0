// lockstep gate: is every plan of a suite right? The sweep without stopwatch and record, as continuous
// integration calls it: plain lines, one verdict, an exit status, JUnit XML.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "ref/write_aside.hpp"
#include "reports/junit.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/suite_options.hpp"
#include "suites/here.hpp"
#include "suites/sweep/shard.hpp"
#include "suites/sweep/sweep.hpp"

namespace lockstep::gate_cli {
namespace {

struct Options {
  SuiteOptions which;
  std::string junit;
};

int command_gate(const Options& o) {
  check_one_sweep();
  check_file("--junit", o.junit);
  const bool in_place = is_no_file(o.junit);
  // What cannot be written is said before an hour's work, and what ends early has left no success of an
  // earlier run. A pipe's reader gets one answer.
  const auto begin = [&](const std::string& text) {
    if (!o.junit.empty() && !in_place) write_text(o.junit, text);
  };
  RunRecord none;
  none.suite = std::filesystem::path(o.which.suite).stem().string();
  none.verdict = "INVALID: no plan was judged";
  begin(junit_text(none, {}, {}, o.which.shard));
  Chosen chosen = chosen_plans(o.which);
  std::vector<NotJudged> refused;
  for (const auto& [plan, refusal] : chosen.all.refused)
    refused.push_back({plan.line(), refusal.rule, refusal.why});
  Sweep sweep(chosen.suite, std::move(chosen.all), {.timed = false, .jobs = o.which.jobs});
  const auto text = [&] {
    return junit_text(
        sweep.record(), [&](const std::string& plan) { return judge_again(chosen.suite, plan); }, refused,
        o.which.shard);
  };
  begin(text());
  const int status = sweep.run();
  if (!o.junit.empty()) write_text(o.junit, text());
  return status;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_suite(app, o->which);
  app.add_option(
         "--shard", o->which.shard,
         "judge one part of the plans, 2/4 the second of four: several jobs share a suite, and together "
         "judge all of it")
      ->excludes(app.get_option("--plan"))
      ->check([](const std::string& said) {
        return shard_of(said) ? "" : fmt::format("`{}` is no part; {}", said, kShardForm);
      });
  app.add_option("--junit", o->junit,
                 "JUnit XML file to write, a testcase a plan; what a rule refuses is skipped");
  return [o] { return command_gate(*o); };
}

const Command command("gate", "judge every plan of a suite, exact and fast; time and record nothing",
                      declare);

}  // namespace
}  // namespace lockstep::gate_cli
