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
};

struct Choices {
  Enumerated walked;
  std::vector<Weighed> fit;  // the fastest first
  i64 misfits = 0;
  std::optional<Weighed> closest;  // of those that do not fit, the one that lacks least
  double least = 0, most = 0;      // bytes that they lack (the most: at least)
  // By word and value the fastest that fits.
  std::map<std::string, std::map<std::string, Weighed>> best;
  double seconds = 0;  // that weighing took
};

Choices choose(const ModelConfig&, const Settings&, const Cluster&, const Values& given);

// Words as "zero=0,1 offload=none". UserError: a word or value nobody knows.
Values parse_values(const std::string& text);

// Floating-point operations of a step by the model alone, nothing made again: 6 for each weight but the
// embedding's and token, and causal attention's 6 T D L (Chowdhery et al. 2022, PaLM, appendix B).
double model_flops(const ModelConfig&, const Settings&);

}  // namespace lockstep
