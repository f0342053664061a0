// A published row as a question to the planner: a model, its settings, a plan, a cluster.
#pragma once
#include "parallel/plan.hpp"
#include "suites/planner/published/group.hpp"
#include "suites/planner/published/metrics.hpp"

namespace lockstep {

struct PublishedQuestion {
  ModelConfig model;
  Settings settings;
  Plan plan;
  std::string gpu_type;  // of the group's clusters
  i64 gpus = 1;
  CountedModel counted;  // as the source counts operations
  Recomputed recomputed = Recomputed::nothing;
};

// The row after the group's rules. `skip`: why it is not scored, "" if it is.
PublishedRow read_by_rules(const PublishedGroup&, const PublishedRow&, std::string& plan_words,
                           std::string& skip);

// Of a row read by the rules. Nothing, with `why`: it says something that no plan of ours does, or not
// enough.
std::optional<PublishedQuestion> ask(const PublishedGroup&, const PublishedRow&,
                                     const std::string& plan_words, std::string& why);

// The width of a SwiGLU block that has the weights and operations of a GELU block's two matmuls of width f:
// 2f/3, to the nearest multiple of tp.
i64 swiglu_width(i64 f, i64 tp);

}  // namespace lockstep
