// The answers so far of a search over plans: which plan may still be one. Many threads may ask and add.
#pragma once
#include <map>
#include <mutex>
#include <set>

#include "suites/planner/planner.hpp"

namespace lockstep {

class Best {
 public:
  // Keeps a reference to `wanted`. values: of all the plans that are searched.
  Best(const Values& values, const Wanted& wanted);
  // Whether a plan that takes so many seconds at least may be one of the answers.
  bool may_be(const Plan&, const Weighed& at_least) const;
  void add(const Plan&, const Weighed&);
  // By word and value the fastest.
  std::map<std::string, std::map<std::string, Weighed>> by_value() const;

 private:
  const Wanted& wanted_;
  std::vector<std::string> words_;   // that have several values
  mutable std::mutex mutex_;         // of what follows
  std::set<Weighed::Foretold> top_;  // of the fastest
  std::map<std::string, std::map<std::string, Weighed>> by_value_;
  std::map<double, double> front_;  // bytes by seconds: the more seconds, the fewer bytes
};

}  // namespace lockstep
