// What mutants are judged on: a small model whose sizes divide badly, and plans that use every strategy.
#pragma once
#include <string>
#include <vector>

#include "suites/gates/fast.hpp"
#include "suites/run/reference.hpp"

namespace lockstep {

// A model and what one device makes of it.
struct Stage {
  ModelConfig model;
  Settings settings;
  const TokenFile& data;
  Weights initial;
  Whole reference;
  FastReference float64;
  Stage(const TokenFile&, bool tied, int segments, i64 seed);
  lockstep::Run run(const std::string& plan, bool fast) const;
};

struct StagedPlan {
  const char* line;
  bool tied;  // the model's head and embedding share a weight
};
const std::vector<StagedPlan>& staged_plans();

// What each gate says of the plan as this process runs it, active mutation and all.
struct GateVerdict {
  std::string gate, found;  // found: "pass" or what is wrong
};
std::vector<GateVerdict> judge_traces(const Prepared&);  // nothing is computed
std::vector<GateVerdict> judge_exactly(const Prepared&, const Stage&);
std::vector<GateVerdict> judge_fast_mode(const Stage&, const std::string& plan);

}  // namespace lockstep
