#include "suites/mutants/mutation.hpp"

#include <fmt/format.h>

#include <cctype>

namespace lockstep {

const char* change_name(Mutation::Change change) {
  static constexpr const char* names[] = {"dropped",
                                          "doubled",
                                          "late",
                                          "wrong number",
                                          "halved at each call",
                                          "scaled by its own labels",
                                          "wrong operand",
                                          "add or copy",
                                          "wrong group",
                                          "wrong peer",
                                          "one element less",
                                          "half the elements",
                                          "wrong place",
                                          "wrong type",
                                          "wrong reduction",
                                          "result halved",
                                          "first half doubled",
                                          "wrong tag",
                                          "waited for at once",
                                          "never waited for",
                                          "waited for twice",
                                          "waited for late",
                                          "given back early",
                                          "never given back",
                                          "too short",
                                          "too long"};
  return names[static_cast<int>(change)];
}

std::string without_digits(const std::string& name) {
  std::string out;
  for (const char c : name)
    if (!std::isdigit(static_cast<unsigned char>(c)))
      out += c;
    else if (out.empty() || out.back() != '#')
      out += '#';
  return out;
}

std::string Mutation::text() const {
  if (!hook.empty()) return hook;
  static constexpr const char* doors[] = {"kernel", "message", "copy", "buffer", "upload"};
  std::string text = fmt::format("{} `{}`", doors[static_cast<int>(door)], name);
  if (!tensor.empty()) text += fmt::format(" ({})", tensor);
  text += occurrence < 0 ? ", every one" : fmt::format(" no. {}", occurrence);
  if (setup) text += " in set-up";
  if (!action.empty()) text += " in " + action;
  if (rank >= 0) text += fmt::format(" on rank {}", rank);
  text += fmt::format(": {}", change_name(change));
  if (change == Change::number || change == Change::operand || change == Change::group ||
      change == Change::peer)
    text += fmt::format(" {}", index);
  if (value) text += fmt::format(" = {}", *value);
  return text;
}

}  // namespace lockstep
