// A link, from what messages took on it.
#pragma once
#include "suites/planner/collectives.hpp"

namespace lockstep {

struct LinkSample {
  Verb verb;
  double bytes;  // the payload, as collective_seconds() has it
  Placed placed;
  double seconds;
};

// The link with which collective_seconds() says what was measured. All groups are within a node, or have one
// rank a node; of several numbers of nodes the smallest tells what messages of each size reach, the others
// what is left with more nodes. std::logic_error: no samples.
Link link_of(const std::vector<LinkSample>&);

}  // namespace lockstep
