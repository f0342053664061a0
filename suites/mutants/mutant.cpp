#include "suites/mutants/mutant.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "suites/mutants/sites.hpp"

namespace lockstep {

std::vector<Mutant> choose_mutants(const std::vector<Prepared>& plans, int each, i64 seed) {
  // By kind and plan, so that a plan with many sites does not crowd out the others.
  std::map<std::string, std::map<int, std::vector<Mutation>>> sites;
  for (int plan = 0; plan < static_cast<int>(plans.size()); ++plan)
    for (const Site& s : sites_of(plans[plan])) sites[s.kind][plan].push_back(s.mutation);
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));  // its numbers are the same everywhere
  std::vector<Mutant> mutants;
  for (auto& [kind, by_plan] : sites) {
    std::vector<int> where;
    for (const auto& [plan, list] : by_plan) where.push_back(plan);
    for (int i = 0; i < each && !where.empty(); ++i) {
      const auto at = where.begin() + static_cast<std::ptrdiff_t>(random() % where.size());
      const std::vector<Mutation>& list = by_plan[*at];
      mutants.push_back({*at, kind, list[random() % list.size()], {}});
      where.erase(at);
    }
  }
  return mutants;
}

}  // namespace lockstep
