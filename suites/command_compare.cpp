// lockstep compare: two dumps of a training run, bit for bit; or one, of any trainer, against float64.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "reports/dump.hpp"
#include "suites/certify.hpp"
#include "suites/command.hpp"

namespace lockstep {
namespace {

Command::Action declare(CLI::App& app) {
  auto paths = std::make_shared<std::array<std::string, 2>>();
  app.add_option("a", (*paths)[0],
                 "a dump (lockstep train --dump, or any trainer's: suites/certify/dump_step.py)")
      ->required();
  app.add_option(
      "b", (*paths)[1],
      "another one of the same model, to be equal bit for bit; without it each step of the first is held "
      "to float64, within the bound of fast mode");
  return [paths] {
    const auto& [a, b] = *paths;
    if (b.empty()) {
      const Certificate certificate = certify(a);
      fmt::print("{}\n", certificate.text);
      return certificate.right ? 0 : 1;
    }
    const Comparison result = compare_dumps(a, b);
    fmt::print("{}\n", result.text);
    return result.equal ? 0 : 1;
  };
}

const Command command("compare", "say whether two dumps are equal, or whether one is right", declare);

}  // namespace
}  // namespace lockstep
