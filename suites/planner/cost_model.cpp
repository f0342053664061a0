#include "suites/planner/cost_model.hpp"

#include <algorithm>

#include "kernels/work.hpp"

namespace lockstep {
namespace {

// Of the weights, gradients and activations that a kernel touches, on the average; ids and counters are few.
double number_bytes(const Trace::Event& e) {
  i64 bytes = 0, views = 0;
  for (const View& v : e.views)
    if (v.type == Type::f32 || v.type == Type::bf16) bytes += type_bytes(v.type), ++views;
  return views == 0 ? 4 : static_cast<double>(bytes) / static_cast<double>(views);
}

bool on_host(const Trace::Event& e) {
  return std::any_of(e.views.begin(), e.views.end(), [](const View& v) { return v.medium == Medium::host; });
}

const Curve& efficiency(const Cluster& c, const char* kernel, Work::Class kind) {
  static const Curve all;
  auto it = c.efficiency.find(kernel);
  if (it == c.efficiency.end()) it = c.efficiency.find(class_name(kind));
  return it == c.efficiency.end() ? all : it->second;
}

}  // namespace

CostModel::CostModel(const Cluster& cluster, const Mesh& mesh) : cluster_(cluster) {
  for (int a = 0; a < static_cast<int>(Axis::count); ++a)
    placed_[a] = place(mesh, static_cast<Axis>(a), cluster.per_node);
  const double busy = static_cast<double>(std::min<i64>(mesh.size(), cluster.per_node));
  const auto crowd = [&](const char* kind) {
    const auto it = cluster.crowd.find(kind);
    return it == cluster.crowd.end() ? 1.0 : it->second.at(busy);
  };
  crowd_ = {crowd("matmul"), cluster.crowd.count("attention") ? crowd("attention") : crowd("matmul"),
            crowd("rows")};
}

double CostModel::kernel(const Trace::Event& e) const {
  const Work work = work_of(e.name, e.numbers, 1);
  const double bytes = work.bytes * number_bytes(e);
  const double crowd = crowd_[work.kind];
  if (const auto grid = cluster_.grids.find(e.name); grid != cluster_.grids.end())
    return cluster_.launch + work.flops / (grid->second.at(grid_sizes(e.name, e.numbers)) * crowd);
  if (on_host(e) && !cluster_.copies_block) return bytes / cluster_.host_bandwidth;
  const Curve& reached = efficiency(cluster_, e.name, work.kind);
  if (work.kind == Work::rows)
    return cluster_.launch + bytes / (cluster_.memory_bandwidth * reached.at(bytes) * crowd);
  return cluster_.launch + std::max(work.flops / (cluster_.flops * reached.at(work.flops) * crowd),
                                    bytes / cluster_.memory_bandwidth);
}

namespace {

// Of one that the ranks carry themselves.
double carried_seconds(const Message& m, const Placed& p, const Cluster& c, Curve Carried::*part) {
  const auto it = c.carried.find(verb_name(m.verb));
  if (p.ranks < 2 || it == c.carried.end() || (it->second.*part).empty()) return 0;
  const double bytes = payload_bytes(m, p);
  return bytes / (it->second.*part).at(bytes);
}

}  // namespace

double CostModel::beginning(const Message& m) const {
  if (!cluster_.messages_block) return 0;
  return carried_seconds(m, placed_[static_cast<int>(m.axis)], cluster_, &Carried::start);
}

double CostModel::message(const Message& m) const {
  if (cluster_.messages_block)
    return carried_seconds(m, placed_[static_cast<int>(m.axis)], cluster_, &Carried::wait);
  return message_seconds(m, placed_[static_cast<int>(m.axis)], cluster_);
}

CopyStream stream_of(const Trace::Event& copy) {
  const Medium to = copy.views[0].medium, from = copy.views[1].medium;
  if (to == Medium::disk || from == Medium::disk) return CopyStream::disk;
  return to == Medium::host ? CopyStream::down : CopyStream::up;
}

double CostModel::copy(const Trace::Event& e) const {
  const double bytes = e.numbers[0] * static_cast<double>(type_bytes(e.views[0].type));
  const auto seconds = [&](const Link& link) {
    return link.latency + bytes / (link.bandwidth * link.by_bytes.at(bytes));
  };
  const bool device = e.views[0].medium == Medium::device || e.views[1].medium == Medium::device;
  const double over_host = device && cluster_.host.bandwidth > 0 ? seconds(cluster_.host) : 0;
  return stream_of(e) == CopyStream::disk ? std::max(seconds(cluster_.disk), over_host)
         : device                         ? over_host
                                          : 2 * bytes / cluster_.host_bandwidth;
}

Costs CostModel::costs() const {
  return {[this](const Trace::Event& e) { return kernel(e); },
          [this](const Message& m, const Group&) { return message(m); },
          [this](const Trace::Event& e) { return copy(e); },
          [](const Trace::Event& e) { return static_cast<int>(stream_of(e)); },
          cluster_.copies_block,
          cluster_.messages_block,
          [this](const Message& m) { return beginning(m); }};
}

double beside_the_arena(const Cluster& c, double arena, int communicators) {
  return c.context + c.workspace + communicators * c.communicator + arena * c.fragmentation;
}

int communicators(const Mesh& m) {
  return (m.dp > 1) + (m.tp > 1) + (m.pp > 1) + (m.kv_replicas > 1) + (m.size() > 1);
}

}  // namespace lockstep
