#include "suites/planner/cost_model.hpp"

#include <algorithm>
#include <string_view>

#include "kernels/work.hpp"

namespace lockstep {
namespace {

bool on_host(const Trace::Event& e) {
  return std::any_of(e.views.begin(), e.views.end(), [](const View& v) { return v.medium == Medium::host; });
}

bool backward(const Trace::Event& e) { return std::string_view(e.name) == "attention_dx"; }

const Curve& efficiency(const Cluster& c, const char* kernel, Work::Class kind) {
  static const Curve all;
  auto it = c.efficiency.find(kernel);
  if (it == c.efficiency.end()) it = c.efficiency.find(class_name(kind));
  return it == c.efficiency.end() ? all : it->second;
}

}  // namespace

CostModel::CostModel(const Cluster& cluster, const Mesh& mesh, double shares)
    : cluster_(cluster), staged_(mesh.pp > 1), shares_(shares) {
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
  if (cluster_.dispatch <= 0 || on_host(e)) return on_device(e);
  return std::max(cluster_.dispatch * dispatched(e), on_device(e));
}

double CostModel::dispatched(const Trace::Event& e) const {
  if (cluster_.score <= 0 || work_of(e.name, e.numbers, 1).kind != Work::attention) return 1;
  const bool apart = static_cast<i64>(e.numbers[0] * e.numbers[2]) % cluster_.score_group != 0;
  return (cluster_.score_kernels + (apart ? cluster_.score_apart : 0)) * (backward(e) ? 2 : 1);
}

// The whole square is computed, and its matrices (scores, probabilities, dropout's mask) go through memory.
double CostModel::unfused_attention(const Work& work, const Trace::Event& e) const {
  const double matrix = e.numbers[0] * e.numbers[1] * e.numbers[1] * e.numbers[2];
  const double bytes = matrix * (backward(e) ? cluster_.score_dx : cluster_.score);
  const double flops = 2 * work.flops, crowd = crowd_[Work::attention];
  return flops / (cluster_.flops * efficiency(cluster_, e.name, Work::attention).at(flops) * crowd) +
         bytes / (cluster_.memory_bandwidth * efficiency(cluster_, "rows", Work::rows).at(bytes));
}

double CostModel::on_device(const Trace::Event& e) const {
  const Work work = work_of(e.name, e.numbers, 1);
  const double bytes = work.bytes * bytes_of_a_number(e);
  const double crowd = crowd_[work.kind];
  if (const auto grid = cluster_.grids.find(e.name); grid != cluster_.grids.end())
    return cluster_.launch + work.flops / (grid->second.at(grid_sizes(e.name, e.numbers)) * crowd);
  if (on_host(e) && !cluster_.copies_block) return bytes / cluster_.host_bandwidth;
  if (work.kind == Work::attention && cluster_.score > 0) return cluster_.launch + unfused_attention(work, e);
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
  const Placed& placed = placed_[static_cast<int>(m.axis)];
  if (cluster_.messages_block) return carried_seconds(m, placed, cluster_, &Carried::wait);
  double seconds = 0;
  if (m.axis == Axis::pp && shares_ > 1) {
    const double bytes = static_cast<double>(m.n * m.blocks * type_bytes(m.type));
    seconds = collective_seconds(m.verb, bytes / shares_, placed, cluster_) +
              collective_seconds(Verb::all_gather, bytes, placed_[static_cast<int>(Axis::tp)], cluster_);
  } else if (cluster_.trainer.reduces_whole && along_dp(m.axis) && m.verb == Verb::reduce_scatter) {
    Message whole = m;
    whole.verb = Verb::all_reduce, whole.n = m.n * placed.ranks;
    seconds = message_seconds(whole, placed, cluster_);
  } else {
    seconds = message_seconds(m, placed, cluster_);
  }
  if (m.axis == Axis::tp) seconds *= cluster_.trainer.exposed_tp;
  if (seconds <= 0) return 0;
  return std::max(cluster_.dispatch, seconds) + (m.axis == Axis::pp ? cluster_.hand_over : 0);
}

// Ranks of tp, and of cp, on several nodes leave those of dp on as many, whose links they share; they go
// first, for everything waits for them.
double CostModel::delay(const Message& m) const {
  const bool of_tp = m.axis == Axis::tp || m.axis == Axis::kv;
  if ((!of_tp && m.axis != Axis::cp) || cluster_.messages_block) return 0;
  const Placed& placed = placed_[static_cast<int>(m.axis)];
  return (of_tp ? cluster_.trainer.exposed_tp : 1) *
         network_seconds(m.verb, payload_bytes(m, placed), placed, cluster_);
}

double hand_over_shares(const Cluster& c, const Run& run) {
  const Shape s = shape_of(run.plan, run.model, run.settings, 0);
  return c.hand_over_scattered && chosen<Seam>(run.plan).price.outside(s) == s.T ? run.mesh().tp : 1;
}

double CostModel::issue(const Trace::Event& e) const {
  const OtherTrainer& f = cluster_.trainer;
  if (e.what != Trace::Event::start || e.message.axis != Axis::tp || !staged_) return f.issue;
  return f.issue + f.staged_issue * static_cast<double>(placed_[static_cast<int>(Axis::tp)].ranks - 1);
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
          cluster_.hand_over_blocks,
          cluster_.trainer.exposed_dp,
          [this](const Trace::Event& e) { return issue(e); },
          cluster_.messages_block,
          [this](const Message& m) { return beginning(m); },
          [this](const Message& m) { return delay(m); }};
}

double beside_the_arena(const Cluster& c, double arena, int communicators) {
  return c.context + c.workspace + communicators * c.communicator + arena * c.fragmentation;
}

int communicators(const Mesh& m) {
  return (m.dp > 1) + (m.replicas > 1) + (m.tp > 1) + (m.pp > 1) + (m.kv_replicas > 1) + (m.cp > 1) +
         (m.size() > 1);
}

}  // namespace lockstep
