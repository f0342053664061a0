#include "suites/commands/command.hpp"

#include <map>

namespace lockstep {
namespace {

// In a function, because commands register from other files' static constructors.
std::map<std::string, const Command*>& registered() {
  static std::map<std::string, const Command*> list;
  return list;
}

}  // namespace

Command::Command(std::string n, std::string h, Action (*d)(CLI::App&))
    : name(std::move(n)), help(std::move(h)), declare(d) {
  registered()[name] = this;
}

std::vector<const Command*> commands() {
  std::vector<const Command*> list;
  for (const auto& [name, command] : registered()) list.push_back(command);
  return list;
}

}  // namespace lockstep
