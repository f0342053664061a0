// How long a message takes on a cluster, in closed formulas.
#pragma once
#include "parallel/comm/comm.hpp"
#include "suites/planner/cluster.hpp"

namespace lockstep {

// How a group of ranks lies on the nodes: `per_node` neighbours on each of `nodes`.
struct Placed {
  i64 ranks = 1, per_node = 1, nodes = 1;
};

// Ranks 0, stride, 2 stride, ... where rank r is on node r / devices_per_node.
Placed place(i64 ranks, i64 stride, i64 devices_per_node);
// The group of an axis. A message between stages is between two neighbours.
Placed place(const Mesh&, Axis, i64 devices_per_node);

// Seconds. `bytes` is the whole payload V: what all_reduce and broadcast give every rank, what reduce_scatter
// takes from each, all_gather and all_to_all give each; what a send carries. The fastest of
//   ring           all_reduce 2 (d-1) (latency + V/d / bw), its halves (d-1)   (Thakur et al. 2005, section
//   4) tree           all_reduce 2 log2(d) latency + 2 V / bw                       (Sanders et al. 2009)
//   hierarchical   within the node, then V / per_node across nodes on each device's own link, then within
//   again
double collective_seconds(Verb, double bytes, const Placed&, const Cluster&);
// Of these, how long each device's own link of the network is busy: at least that.
double network_seconds(Verb, double bytes, const Placed&, const Cluster&);
double payload_bytes(const Message&, const Placed&);  // V
double message_seconds(const Message&, const Placed&, const Cluster&);

}  // namespace lockstep
