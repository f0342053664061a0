// All plans of a model on a number of devices that break no rule.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "suites/plans/plan_search.hpp"

namespace lockstep {

struct Enumerated {
  i64 legal = 0, combinations = 0;
  std::map<std::string, i64> refused;                      // combinations, by rule
  std::map<std::string, std::string> why;                  // by rule: what it said of one of them
  std::map<std::string, std::map<std::string, i64>> axes;  // legal plans, by word and value
  // Of further parts of the plans; why: as the first said.
  void add(const Enumerated&);
};

// The values that words take: those of the mesh such that dp x tp x pp x cp = devices, micro divides what a
// replica has, virtual divides the layers; every value of words that list theirs; some numbers of groups of
// replicas (zero=3, pp=1, on several nodes); and the fallback of other numbers. `given` words take these
// values only. Sequences are cut by themselves only where there are fewer than devices or they are long
// (kLong): elsewhere it was measured to win nothing, and to take twice as long.
constexpr i64 kLong = 16384;
struct Values : std::map<std::string, std::vector<std::string>> {
  using map::map;
  // Plans too whose ranks of cp share a key/value head: of a given cp. No published run has them, so that
  // nothing holds their prediction.
  bool shared_heads = true;
  // Where not 0, devices of a node: groups of replicas that nobody gave are of whole ones, of zero=3 and
  // pp=1.
  i64 node = 0;
};
// per_node: devices of a node, of which groups of replicas are made; 0: one holds all, and there are none.
Values plan_values(const ModelConfig&, const Settings&, i64 devices, const Values& given, i64 per_node = 0);

using VisitPlan = std::function<void(const Plan&)>;
using VisitShare = std::function<void(double part)>;  // how much of all combinations has been walked over

// Walks over all combinations of values, mesh first. A refusal that looked at no word still open refuses all
// that is below it at once. `share` is told now and then how far it is.
Enumerated each_legal_plan(const ModelConfig&, const Settings&, i64 devices, const Values&,
                           const VisitPlan& visit, const VisitShare& share = {});

// The parts of that walk that have one tp, pp and cp each, in its order.
std::vector<Values> parts_of(const Values&, i64 devices);

// UserError: no plan of these values is legal, for they make no mesh, or a rule refuses them.
void check_any_legal(const Enumerated&, const Settings&, i64 devices, const Values&);

}  // namespace lockstep
