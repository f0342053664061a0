// lockstep gate: is every plan of a suite right? The sweep without stopwatch and record, as continuous
// integration calls it: plain lines, one verdict, an exit status, JUnit XML.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "reports/junit.hpp"
#include "suites/command.hpp"
#include "suites/suite_options.hpp"
#include "suites/sweep.hpp"

namespace lockstep {
namespace {

struct Options {
  SuiteOptions which;
  std::string junit;
};

int command_gate(const Options& o) {
  Chosen chosen = chosen_plans(o.which);
  Sweep sweep(chosen.suite, std::move(chosen.all), {.timed = false, .jobs = o.which.jobs});
  auto write = [&] {
    if (o.junit.empty()) return;
    write_text(o.junit, junit_text(sweep.record(),
                                   [&](const std::string& plan) { return judge_again(chosen.suite, plan); }));
  };
  write();  // what cannot be written is said before an hour's work, and what is killed has left no success
  const int status = sweep.run();
  write();
  return status;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_suite(app, o->which);
  app.add_option("--junit", o->junit, "JUnit XML file to write, a testcase a plan");
  return [o] { return command_gate(*o); };
}

const Command command("gate", "judge every plan of a suite, exact and fast; time and record nothing",
                      declare);

}  // namespace
}  // namespace lockstep
