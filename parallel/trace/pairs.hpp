// What the traces of all ranks say to a communicator whose messages carry no names and no tags: who talks to
// whom, and that both sides do so in one order.
#pragma once
#include "parallel/trace/trace.hpp"

namespace lockstep {

// needs with on_axis and pairs filled in.
CommNeeds channel_needs(CommNeeds, const std::vector<Trace>&, const Mesh&);

// Is the k-th send of a rank to another the other's k-th receive from it, and the k-th collective on an axis
// the same on all members? CommError: the first that is not, by name.
void check_order(const std::vector<Trace>&, const Mesh&);

}  // namespace lockstep
