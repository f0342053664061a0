// The lockstep program. Exit status: 0 well, 1 the answer is no (INVALID, not equal), 2 the user's mistake,
// or that of a strategy's author, 3 anything unexpected.
#include <fcntl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "parallel/roles.hpp"
#include "parallel/strategy_error.hpp"
#include "ref/error.hpp"
#include "reports/record.hpp"
#include "suites/commands/command.hpp"

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
  for (const CLI::Option* asked : command.get_options())
    if (asked->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw && asked->count() > 1)
      throw UserError(fmt::format("{}: {} is given {} times; it takes one value", command.get_name(),
                                  asked->get_name(), asked->count()));
  std::string what = error.what();  // "Could not convert: --batch = 4M"
  const std::string prefix = "Could not convert: ";
  if (const auto at = what.find(" = "); what.starts_with(prefix) && at != std::string::npos) {
    const std::string name = what.substr(prefix.size(), at - prefix.size());
    const CLI::Option* asked = command.get_option_no_throw(name);
    // Of an option that was said twice, the parser names both values, and means the last.
    const bool twice = asked && asked->count() > 1;
    what = fmt::format("{}: {} is not such a number as it takes", name,
                       what.substr(twice ? what.rfind(',') + 1 : at + 3));
  }
  throw UserError(fmt::format("{0}: {1}; `lockstep {0} --help` lists the options", command.get_name(), what));
}

bool is_utf8(const std::string& text) {
  int more = 0;  // bytes of the present character that are to come
  for (const char byte : text) {
    const auto c = static_cast<unsigned char>(byte);
    if (more > 0 ? c >> 6 != 2 : (c >= 0x80 && c < 0xC2) || c > 0xF4) return false;
    more = more > 0 ? more - 1 : c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
  }
  return more == 0;
}

// A script's variable that is not set: another question would be answered than was asked.
void refuse_empty_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results())
      if (value.empty())
        throw UserError(fmt::format("{}: {} is empty", command.get_name(), option->get_name()));
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
  app.set_version_flag("--version", [] { return "lockstep " + build_identity(); });
  int status = 0;
  check_strategies();
  try {
    for (int i = 1; i < argc; ++i)
      if (!is_utf8(argv[i])) throw UserError(fmt::format("argument {} is not UTF-8", i));
    app.parse(argc, argv);
    refuse_empty_values(*app.get_subcommands()[0]);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) refuse_arguments(app, error);
    app.exit(error), chosen = nullptr;  // --help
  }
  if (chosen) status = chosen();
  // What a full disk has not taken is no answer.
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw std::runtime_error("what was to be printed could not be written");
  return status;
}

// Else the first file that is opened, a sweep's journal, would be what is printed to.
void open_standard_streams() {
  for (const int fd : {0, 1, 2})
    while (fcntl(fd, F_GETFD) < 0)
      if (open("/dev/null", O_RDWR) < 0) return;
}

// Where nobody can be told, the exit status says it alone.
int complain(const char* kind, const std::exception& error, int status) {
  std::fputs(fmt::format("lockstep: {}{}\n", kind, error.what()).c_str(), stderr);
  return status;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  lockstep::open_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is one that cannot be written, and said
  try {
    return lockstep::run(argc, argv);
  } catch (const lockstep::UserError& error) {
    return lockstep::complain("", error, 2);
  } catch (const lockstep::StrategyError& error) {
    return lockstep::complain("", error, 2);
  } catch (const lockstep::OutOfMemory& error) {
    return lockstep::complain("", error, 3);
  } catch (const std::bad_alloc&) {
    return lockstep::complain("", std::runtime_error("out of memory"), 3);
  } catch (const std::exception& error) {
    return lockstep::complain("unexpected: ", error, 3);
  }
}
