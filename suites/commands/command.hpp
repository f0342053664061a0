// The subcommands of the program. One is one file, suites/commands/<name>.cpp, and registers itself; the
// build with faults has one more (suites/mutants/command.cpp).
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace lockstep {

struct Command {
  using Action = std::function<int()>;  // returns the exit status
  std::string name, help;
  Action (*declare)(CLI::App&);  // adds its arguments; the action reads them later
  Command(std::string name, std::string help, Action (*declare)(CLI::App&));
};

std::vector<const Command*> commands();  // by name

}  // namespace lockstep
