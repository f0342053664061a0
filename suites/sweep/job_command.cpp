#include "suites/sweep/job_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "suites/here.hpp"

namespace lockstep {
namespace {

std::string in_quotes(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::string answer_of(const std::string& reference_hash, const std::string& record) {
  return reference_hash + "\n" + record;
}

std::pair<std::string, std::string> parts_of_answer(const std::string& answer) {
  const std::size_t at = std::min(answer.find('\n'), answer.size());
  return {answer.substr(0, at), answer.substr(std::min(at + 1, answer.size()))};
}

std::string job_command(const Suite& suite, int ranks, bool timed, const std::string& reference) {
  std::string launch = suite.launch;
  for (std::size_t at; (at = launch.find(kRanks)) != std::string::npos;)
    launch.replace(at, std::string(kRanks).size(), fmt::format("{}", ranks));
  return fmt::format("{} {} job {} --ranks {} --comm {} --isa {} --device {} --threads {}{}{}{}", launch,
                     in_quotes(std::filesystem::read_symlink("/proc/self/exe")), in_quotes(suite.path), ranks,
                     suite.comm, isa_here(suite.isa), suite.device, suite.threads,
                     suite.scratch.empty() ? "" : " --scratch " + in_quotes(suite.scratch),
                     reference.empty() ? "" : " --reference " + in_quotes(reference),
                     timed ? "" : " --untimed");
}

}  // namespace lockstep
