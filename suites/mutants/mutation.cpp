#include "suites/mutants/mutation.hpp"

#include <fmt/format.h>

namespace lockstep {

const char* change_name(Mutation::Change change) {
  static constexpr const char* names[] = {
      "dropped",     "doubled",      "late",           "wrong number",     "wrong operand",
      "add or copy", "wrong group",  "wrong peer",     "one element less", "half the elements",
      "wrong place", "wrong type",   "wrong reduction", "result halved",   "wrong tag",
      "waited for at once", "never waited for", "waited for twice", "waited for late", "given back early",
      "never given back", "too short", "too long"};
  return names[static_cast<int>(change)];
}

std::string Mutation::text() const {
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
  return text;
}

}  // namespace lockstep
