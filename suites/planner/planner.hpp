// All legal plans of a model on a cluster, weighed.
#pragma once
#include <optional>

#include "suites/planner/compose.hpp"
#include "suites/planner/enumerate.hpp"

namespace lockstep {

struct Weighed {
  std::string plan;
  double seconds = 0;             // a step
  std::array<double, 3> needs{};  // bytes of device, host and disk of the fullest rank
  i64 place = 0;                  // among the legal plans as they are walked over: the first of equals wins
  // What tells one plan from another; those that share it are one to the planner.
  using Foretold = std::pair<double, std::array<double, 3>>;
  Foretold foretold() const { return {seconds, needs}; }
};
// Which of two is the better answer.
inline bool before(const Weighed& a, const Weighed& b) {
  return std::pair{a.seconds, a.place} < std::pair{b.seconds, b.place};
}

// What is asked for. Each plan's bytes are weighed; its seconds only where the plan may be among the answers.
struct Wanted {
  std::size_t top = 5;                           // the fastest, so many, one at least
  bool by_value = true;                          // the fastest with each value of each word
  bool pareto = false;                           // those that no other is both faster and smaller than
  double within = 0;                             // those that take up to this part longer than the fastest
  std::function<bool(const Plan&)> usable = {};  // no other plan is an answer; many threads ask
  VisitShare share = {};                         // is told how much of the plans has been weighed
  int cores = 0;                                 // that weigh at once; 0: all that this process may use
};

struct Choices {
  Enumerated walked;
  i64 fitting = 0, misfits = 0;
  std::vector<Weighed> fit;        // the fastest first; complete as far as it was wanted
  std::optional<Weighed> closest;  // of those that do not fit, the one that lacks least
  double least = 0, most = 0;      // bytes that they lack (the most: at least)
  // By word and value the fastest that fits.
  std::map<std::string, std::map<std::string, Weighed>> best;
  double seconds = 0;  // that weighing took
};

// The same for any number of cores.
Choices choose(const ModelConfig&, const Settings&, const Cluster&, const Values& given,
               const Wanted& wanted = {});

// Of what fits, the fastest first; of plans with the same seconds and bytes, which no prediction tells apart
// (a schedule of one stage and one microbatch), the first.
std::vector<const Weighed*> distinct(const Choices&);

// Words as "zero=0,1 offload=none". UserError: a word or value nobody knows.
Values parse_values(const std::string& text);

// The fastest plan that fits and may be run here with these settings. UserError: there is none.
Plan fastest_here(const ModelConfig&, const Settings&, const Cluster&);

// Floating-point operations of a step by the model alone, nothing made again: 6 for each weight but the
// embedding's and token, and causal attention's 6 T D L (Chowdhery et al. 2022, PaLM, appendix B).
double model_flops(const ModelConfig&, const Settings&);

}  // namespace lockstep
