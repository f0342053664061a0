// suites/published/README.md's tables of predicted against published are what `lockstep published` says.
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "suites/tests/program_runner.hpp"

namespace lockstep {
namespace {

using Figures = std::vector<std::string>;

// Source, rows, scored, fitted, mean, median, worst, memory, regret, rank, fits.
std::map<std::string, Figures> figures_of(const std::string& text, const std::regex& cell) {
  std::map<std::string, Figures> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    Figures row;
    for (std::sregex_iterator at(line.begin(), line.end(), cell), end; at != end && row.size() < 11; ++at)
      row.push_back(at->str(1) == "-" ? "" : at->str(1));
    if (row.size() == 11 && std::isdigit(row[1][0])) rows[row[0]] = row;
  }
  return rows;
}

TEST(ProgramPublished, TheReadmeHasItsFigures) {
  const Ended ended = lockstep_program("published");
  EXPECT_EQ(ended.status, 1) << ended.err;  // a bar is missed, which is said there
  std::ostringstream readme;
  readme << std::ifstream("suites/published/README.md").rdbuf();
  const auto said = figures_of(ended.out, std::regex(R"((\S+)\s*)"));
  const auto written = figures_of(std::regex_replace(readme.str(), std::regex(" / "), "/"),
                                  std::regex(R"(\| ?(?:([^|]*?) )?(?=\|))"));
  for (const auto& [source, row] : said) EXPECT_EQ(written.count(source), row[2] == "0" ? 0u : 1u) << source;
  for (const auto& [source, row] : written)
    EXPECT_EQ(said.count(source) ? said.at(source) : Figures{}, row) << source;
  EXPECT_GE(written.size(), 20u);
}

}  // namespace
}  // namespace lockstep
