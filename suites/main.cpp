// The lockstep program. Exit status: 0 well, 1 the answer is no (INVALID, not equal), 2 the user's mistake,
// 3 anything unexpected.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "parallel/plan.hpp"
#include "ref/error.hpp"
#include "suites/command.hpp"

namespace lockstep {
namespace {

std::vector<std::string> names_of(const std::vector<const CLI::Option*>& options) {
  std::vector<std::string> names;
  for (const CLI::Option* option : options)
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// What the parser complains about, with the name that was probably meant.
[[noreturn]] void refuse_arguments(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) {
    std::vector<std::string> names;
    for (const Command* command : commands()) names.push_back(command->name);
    const auto given = app.remaining();
    if (given.empty()) throw UserError("a command is missing; `lockstep --help` lists them");
    const std::string meant = did_you_mean(given[0], names);
    throw UserError(
        fmt::format("no command `{}`{}", given[0], meant.empty() ? "; `lockstep --help` lists them" : meant));
  }
  const CLI::App& command = *chosen[0];
  const auto extra = app.remaining(/*recurse=*/true);
  const auto option =
      std::find_if(extra.begin(), extra.end(), [](const std::string& s) { return s.starts_with("--"); });
  if (option != extra.end()) {
    const std::string name = option->substr(0, option->find('='));
    const std::string meant = did_you_mean(name, names_of(command.get_options()));
    throw UserError(fmt::format(
        "{0}: no option `{1}`{2}", command.get_name(), name,
        meant.empty() ? fmt::format("; `lockstep {} --help` lists them", command.get_name()) : meant));
  }
  throw UserError(
      fmt::format("{0}: {1}; `lockstep {0} --help` lists the options", command.get_name(), error.what()));
}

int run(int argc, char** argv) {
  CLI::App app("Lockstep: is a parallel training plan right, bit for bit, and what does it cost?",
               "lockstep");
  app.require_subcommand(1);
  app.option_defaults()->take_last();  // an option said twice, as when a script's caller adds his own
  Command::Action chosen;
  for (const Command* command : commands()) {
    CLI::App* sub = app.add_subcommand(command->name, command->help);
    Command::Action action = command->declare(*sub);
    sub->callback([&chosen, action] { chosen = action; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    refuse_arguments(app, error);
  }
  const int status = chosen();
  // What a full disk has not taken is no answer.
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw std::runtime_error("what was to be printed could not be written");
  return status;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  try {
    return lockstep::run(argc, argv);
  } catch (const lockstep::UserError& error) {
    fmt::print(stderr, "lockstep: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "lockstep: unexpected: {}\n", error.what());
    return 3;
  }
}
