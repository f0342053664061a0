#include "suites/planner/collectives.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace lockstep {
namespace {

// A link as a message of so many bytes between so many nodes meets it.
struct Pipe {
  double latency, bandwidth;
};
Pipe pipe(const Link& link, Verb verb, double bytes, i64 nodes) {
  const bool half = verb == Verb::reduce_scatter || verb == Verb::all_gather;
  const Curve& left = half && !link.halves_by_nodes.empty() ? link.halves_by_nodes : link.by_nodes;
  return {link.latency, link.bandwidth * link.by_bytes.at(bytes) * left.at(static_cast<double>(nodes))};
}

// Reduce_scatter or all_gather of V bytes around a ring of d.
double half_ring(double d, double bytes, const Pipe& w) {
  return (d - 1) * (w.latency + bytes / d / w.bandwidth);
}
double tree(double d, double bytes, const Pipe& w) {
  return 2 * std::ceil(std::log2(d)) * w.latency + 2 * bytes / w.bandwidth;
}

// The ring through all nodes uses the network links of all of a node's ranks side by side.
Pipe around(const Placed& p, const Pipe& inside, const Pipe& outside) {
  if (p.nodes == 1) return inside;
  const double across = outside.bandwidth * static_cast<double>(p.per_node);
  return {outside.latency, p.per_node == 1 ? across : std::min(inside.bandwidth, across)};
}

}  // namespace

namespace {
// How many of so many ranks, a stride apart, are on a node with the first one.
i64 beside(i64 ranks, i64 stride, i64 devices_per_node) {
  return std::min(ranks, (devices_per_node + stride - 1) / stride);
}

// So many times as many neighbours: `stride` is between the neighbours, `far` between the first ones.
Placed place(i64 neighbours, i64 stride, i64 times, i64 far, i64 devices_per_node) {
  const i64 per_node = beside(neighbours, stride, devices_per_node) *
                       (far < devices_per_node ? beside(times, far, devices_per_node) : 1);
  const i64 ranks = neighbours * times;
  return {ranks, per_node, (ranks + per_node - 1) / per_node};
}
}  // namespace

Placed place(i64 ranks, i64 stride, i64 devices_per_node) {
  const i64 per_node = beside(ranks, stride, devices_per_node);
  return {ranks, per_node, (ranks + per_node - 1) / per_node};
}

Placed place(const Mesh& m, Axis axis, i64 devices_per_node) {
  const i64 stage = i64{m.tp} * m.dp;
  switch (axis) {
    case Axis::tp:
      return place(m.tp, 1, devices_per_node);
    case Axis::kv:
      return place(m.kv_replicas, 1, devices_per_node);
    case Axis::cp:
      return place(m.cp, m.tp, devices_per_node);
    case Axis::dp:
      return place(m.dp, m.tp, devices_per_node);
    case Axis::shard:
      // Of fewer groups than segments each has some segments of all sequences, of more a segment of some.
      return m.replicas < m.cp
                 ? place(m.cp / m.replicas, m.tp, m.dp / m.cp, i64{m.tp} * m.cp, devices_per_node)
                 : place(m.shards(), i64{m.tp} * m.cp, devices_per_node);
    case Axis::replica:
      return m.replicas < m.cp
                 ? place(m.replicas, i64{m.tp} * (m.cp / m.replicas), devices_per_node)
                 : place(m.cp, m.tp, m.replicas / m.cp, i64{m.tp} * m.cp * m.shards(), devices_per_node);
    case Axis::pp:
      return place(2, stage, devices_per_node);
    case Axis::tie:
      return place(2, std::max<i64>(1, stage * (m.pp - 1)), devices_per_node);
    default:
      return place(m.size(), 1, devices_per_node);
  }
}

double collective_seconds(Verb verb, double bytes, const Placed& p, const Cluster& c) {
  if (p.ranks < 2 || bytes <= 0) return 0;
  const Pipe inside = pipe(c.node, verb, bytes, 1);
  const Pipe outside = p.nodes > 1 ? pipe(c.network, verb, bytes, p.nodes) : inside;
  const Pipe ring = around(p, inside, outside);
  const double d = static_cast<double>(p.ranks), g = static_cast<double>(p.per_node),
               n = static_cast<double>(p.nodes);
  const bool levels = p.nodes > 1 && p.per_node > 1;
  const auto half = [&] {
    const double flat = half_ring(d, bytes, ring);
    return levels && !c.trainer.flat_rings
               ? std::min(flat, half_ring(g, bytes, inside) + half_ring(n, bytes / g, outside))
               : flat;
  };
  switch (verb) {
    case Verb::send:
    case Verb::recv:
      return ring.latency + bytes / ring.bandwidth;
    case Verb::broadcast:
      return std::ceil(std::log2(d)) * ring.latency + bytes / ring.bandwidth;
    case Verb::reduce_scatter:
    case Verb::all_gather:
      return half();
    case Verb::all_to_all:  // to each rank its own part, one after another
      // (A cluster whose nodes have one device each has no link within them.)
      return (g > 1 ? (g - 1) * (inside.latency + bytes / d / inside.bandwidth) : 0) +
             (d - g) * (outside.latency + bytes / d / outside.bandwidth);
    case Verb::all_reduce: {
      double best = std::min(2 * half_ring(d, bytes, ring), tree(d, bytes, ring));
      if (levels) {
        const double across = std::min(2 * half_ring(n, bytes / g, outside), tree(n, bytes / g, outside));
        best = std::min(best, 2 * half_ring(g, bytes, inside) + across);
      }
      return best;
    }
  }
  throw std::logic_error("a message of no kind");
}

double network_seconds(Verb verb, double bytes, const Placed& p, const Cluster& c) {
  if (p.nodes < 2 || bytes <= 0) return 0;
  // A node's devices each carry a part of what goes between nodes; only in an all_to_all is each part
  // another.
  const double part = verb == Verb::all_to_all ? bytes : bytes / static_cast<double>(p.per_node);
  const double n = static_cast<double>(p.nodes), rounds = verb == Verb::all_reduce ? 2 : 1;
  const double busy = rounds * (n - 1) / n * part / pipe(c.network, verb, part, p.nodes).bandwidth;
  return std::min(busy, collective_seconds(verb, bytes, p, c));
}

double payload_bytes(const Message& m, const Placed& p) {
  const bool parts =
      m.verb == Verb::reduce_scatter || m.verb == Verb::all_gather || m.verb == Verb::all_to_all;
  const double elements = static_cast<double>(m.blocks * m.n) * (parts ? static_cast<double>(p.ranks) : 1);
  return elements * static_cast<double>(type_bytes(m.type));
}

double message_seconds(const Message& m, const Placed& p, const Cluster& c) {
  return collective_seconds(m.verb, payload_bytes(m, p), p, c);
}

}  // namespace lockstep
