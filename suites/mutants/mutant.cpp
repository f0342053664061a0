#include "suites/mutants/mutant.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <regex>
#include <utility>

#include "suites/mutants/sites.hpp"

namespace lockstep {

std::string Mutant::text() const { return fmt::format("{}: {}", plan, bug.empty() ? mutation.text() : bug); }

std::vector<Mutant> choose_mutants(const std::vector<Prepared>& plans, int each, i64 seed) {
  // By kind and plan, so that a plan with many sites does not crowd out the others.
  std::map<std::string, std::map<int, std::vector<Site>>> sites;
  for (int plan = 0; plan < static_cast<int>(plans.size()); ++plan)
    for (const Site& s : sites_of(plans[plan])) sites[s.kind][plan].push_back(s);
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));  // its numbers are the same everywhere
  std::vector<Mutant> mutants;
  for (auto& [kind, by_plan] : sites) {
    std::vector<int> where;
    for (const auto& [plan, list] : by_plan) where.push_back(plan);
    for (int i = 0; i < each && !where.empty(); ++i) {
      const auto at = where.begin() + static_cast<std::ptrdiff_t>(random() % where.size());
      const std::vector<Site>& list = by_plan[*at];
      const Run& run = plans[*at].run;
      const Site& site = list[random() % list.size()];
      mutants.push_back({run.plan.line(), run.model.tied, kind, site.mutation});
      mutants.back().axis = site.axis;
      where.erase(at);
    }
  }
  return mutants;
}

std::string named_by(const GateVerdict& v) {
  static const std::regex tensor(
      "`([^`]*)`|(?:gradient|weight) of ([^ ]+)|kernel ([a-z_]+)|rank [0-9]+: ([a-z]+): ");
  std::smatch match;
  if (!std::regex_search(v.found, match, tensor))
    return v.found.find("loss") == std::string::npos ? "" : "loss";
  for (std::size_t i = 1; i < match.size(); ++i)
    if (match[i].matched) return match[i];
  return "";
}

}  // namespace lockstep
