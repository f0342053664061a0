// What joins the GPUs of a job: messages within a node, and between nodes.
#pragma once
#include "suites/planner/measure/link_fit.hpp"
#include "suites/planner/measure/measure.hpp"

namespace lockstep {

class Fabrics;
class MpiWorld;

// A rank that messages are asked of.
struct LinkRank {
  int rank;
  Comm& comm;
  float *in, *out;               // as many bytes as the largest message
  std::function<void()> settle;  // returns when what was waited for is there
  i64 opened;                    // bytes of its device that connecting it took
};
// Runs something on all ranks of a mesh. What one process does with it, every process of the job does.
using OnRanks =
    std::function<void(const Mesh&, const CommNeeds&, const std::function<void(const LinkRank&)>&)>;

// Ranks with a GPU each, over NCCL.
OnRanks over_nccl(MpiWorld&, Accelerator&, Fabrics&, const std::string& isa);

// [node] and [network] of `nodes` nodes with `per_node` devices each, and what a communicator holds. On rank
// 0 they fill `into`, which must outlive them, as must `ranks`.
std::vector<MeasureStep> link_steps(const OnRanks& ranks, int nodes, int per_node, bool quick,
                                    Calibration& into);

}  // namespace lockstep
