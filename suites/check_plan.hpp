// One plan through its gates, and timed if it passes and the cores suffice.
#pragma once
#include "reports/record.hpp"
#include "suites/reference.hpp"
#include "suites/suite.hpp"

namespace lockstep {

// What all plans of a sweep are held to, made once.
struct Standard {
  const Suite& suite;
  const ModelConfig& model;
  const TokenFile& data;
  Weights initial;
  Whole reference;
  std::string reference_hash;
};

PlanRecord check_plan(const Plan&, const Standard&);

}  // namespace lockstep
