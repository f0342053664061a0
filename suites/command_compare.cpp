// lockstep compare: two dumps of a training run, bit for bit.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "reports/dump.hpp"
#include "suites/command.hpp"

namespace lockstep {
namespace {

Command::Action declare(CLI::App& app) {
  auto paths = std::make_shared<std::array<std::string, 2>>();
  app.add_option("a", (*paths)[0], "a dump (lockstep train --dump)")->required();
  app.add_option("b", (*paths)[1], "another one of the same model")->required();
  return [paths] {
    const Comparison result = compare_dumps((*paths)[0], (*paths)[1]);
    fmt::print("{}\n", result.text);
    return result.equal ? 0 : 1;
  };
}

const Command command("compare", "say whether two dumps are equal, or where they first differ", declare);

}  // namespace
}  // namespace lockstep
