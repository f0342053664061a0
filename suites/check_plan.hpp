// One plan through its gates in exact and in fast mode, and if asked timed in fast mode if it passes both and
// the cores suffice.
#pragma once
#include "reports/record.hpp"
#include "suites/gates/fast.hpp"
#include "suites/reference.hpp"
#include "suites/suite.hpp"

namespace lockstep {

// What all plans of a sweep are held to, made once.
struct Standard {
  const Suite& suite;
  Settings settings;
  const ModelConfig& model;
  const TokenFile& data;
  Weights initial;
  Whole reference;
  std::string reference_hash;
  FastReference float64;
  bool timed = true;  // plans that pass are timed too, where the cores suffice
};

// Whether its steps will be timed if it passes. Ranks that share a core would time the operating system;
// those that share an accelerator, its queue.
bool is_timed(const Plan&, const Standard&);

PlanRecord check_plan(const Plan&, const Standard&);

}  // namespace lockstep
