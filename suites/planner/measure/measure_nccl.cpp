#include "suites/planner/measure/measure_nccl.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "parallel/comm/mpi.hpp"
#include "parallel/comm/nccl.hpp"
#include "parallel/device/engine.hpp"

namespace lockstep {
namespace {

constexpr i64 kSmallest = i64{1} << 12, kLargest = i64{1} << 28;  // bytes

CommNeeds needs_on(Axis axis, i64 largest_bytes) {
  CommNeeds needs;
  needs.largest_bytes = largest_bytes;
  needs.by_axis.resize(static_cast<std::size_t>(Axis::count));
  needs.on_axis.resize(needs.by_axis.size());
  needs.by_axis[static_cast<std::size_t>(axis)] = {largest_bytes, 1};
  needs.on_axis[static_cast<std::size_t>(axis)] = {largest_bytes, false};
  return needs;
}

Message message(Verb verb, Axis axis, i64 bytes, int size, const LinkRank& r) {
  Message m;
  m.verb = verb, m.axis = axis, m.what = "a measurement", m.in = r.in, m.out = r.out;
  m.n = bytes / static_cast<i64>(sizeof(float)) / (verb == Verb::all_reduce ? 1 : size);
  if (verb == Verb::all_reduce || verb == Verb::reduce_scatter) m.reduce = Reduce::sum;
  return m;
}

Sample time_message(const Message& m, const LinkRank& r, i64 bytes, bool quick) {
  using Clock = std::chrono::steady_clock;
  const auto once = [&](const Message& one) { r.comm.wait(r.comm.start(one)); };
  const Message meet = message(Verb::all_reduce, m.axis, sizeof(float), 1, r);
  constexpr int kBatches = 5;
  const int times = static_cast<int>(std::clamp<i64>((i64{1} << 26) / bytes, 3, quick ? 3 : 100));
  std::vector<double> seconds;
  for (int batch = -1; batch < kBatches; ++batch) {  // the first makes the connections
    once(meet), r.settle();
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < times; ++i) once(m);
    r.settle();
    if (batch >= 0) seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count() / times);
  }
  return sample_of(seconds, kBatches * times);
}

// All verbs and sizes along one axis of a mesh; rank 0's clock counts.
std::vector<LinkSample> along(Axis axis, const Mesh& mesh, i64 per_node, const OnRanks& ranks, bool quick,
                              Measurements& notes) {
  std::vector<LinkSample> samples;
  const Placed placed = place(mesh, axis, per_node);
  const i64 largest = quick ? i64{1} << 16 : kLargest;
  ranks(mesh, needs_on(axis, largest), [&](const LinkRank& r) {
    const int size = mesh.group(axis, r.rank).size();
    for (i64 bytes = kSmallest; bytes <= largest; bytes *= quick ? 16 : 4)
      for (const Verb verb : {Verb::all_reduce, Verb::reduce_scatter, Verb::all_gather, Verb::all_to_all}) {
        const Sample s = time_message(message(verb, axis, bytes, size, r), r, bytes, quick);
        if (r.rank != 0) continue;
        const auto amount = static_cast<double>(bytes);
        samples.push_back({verb, amount, placed, s.seconds});
        notes.push_back({placed.nodes > 1 ? "network" : "node", verb_name(verb),
                         fmt::format("{} on {} nodes", bytes, placed.nodes), size, amount, s});
      }
  });
  return samples;
}

void keep(Link& link, const std::vector<LinkSample>& samples) {
  if (!samples.empty()) link = link_of(samples);  // on rank 0
}

}  // namespace

OnRanks over_nccl(MpiWorld& job, Accelerator& accelerator, Fabrics& fabrics, const std::string& isa) {
  return
      [&, isa](const Mesh& mesh, const CommNeeds& needs, const std::function<void(const LinkRank&)>& body) {
        job.run(mesh, {.largest_bytes = NcclComm::kIntroduction}, [&](int rank, Comm& introducer) {
          const auto engine = accelerator.engine(job.rank_here(), cpu_ops(isa), true);
          const auto fabric = fabrics.fabric(engine.get(), job.ranks_here());
          const auto memory = [&] {
            return static_cast<float*>(engine->allocate(Medium::device, needs.largest_bytes + 64));
          };
          float *const in = memory(), *const out = memory();
          const i64 before = rank == 0 ? accelerator.free_bytes() : 0;
          NcclComm comm(introducer, *fabric, mesh, rank, needs, {.fast = true});
          const auto settle = [&] {
            float word;
            engine->download(&word, out, sizeof word);
          };
          body({rank, comm, in, out, settle, rank == 0 ? before - accelerator.free_bytes() : 0});
          comm.finish();
        });
      };
}

std::vector<MeasureStep> link_steps(const OnRanks& ranks, int nodes, int per_node, bool quick,
                                    Calibration& into) {
  Cluster& c = into.cluster;
  Measurements& notes = into.notes;
  std::vector<MeasureStep> steps;
  c.devices = i64{nodes} * per_node, c.per_node = per_node;
  const Mesh all{.dp = nodes, .tp = per_node};
  if (all.size() > 1)
    steps.push_back({"a communicator", 1, [&, all, per_node] {
                       const Axis axis = per_node > 1 ? Axis::tp : Axis::dp;
                       ranks(all, needs_on(axis, 64), [&](const LinkRank& r) {
                         if (r.rank == 0) c.communicator = std::max(0.0, static_cast<double>(r.opened));
                       });
                     }});
  if (per_node > 1)
    steps.push_back({"within a node", 5, [&, all, quick, per_node] {
                       keep(c.node, along(Axis::tp, all, per_node, ranks, quick, notes));
                     }});
  if (nodes == 1) return steps;
  const auto found = std::make_shared<std::vector<LinkSample>>();
  for (int together = 2; together <= nodes; ++together) {
    if (nodes % together != 0) continue;  // all nodes talk at once, in groups
    const Mesh mesh{.dp = together, .tp = per_node, .pp = nodes / together};
    steps.push_back({fmt::format("between {} nodes", together), 5, [&, mesh, per_node, quick, found] {
                       const auto samples = along(Axis::dp, mesh, per_node, ranks, quick, notes);
                       found->insert(found->end(), samples.begin(), samples.end());
                       keep(c.network, *found);
                     }});
  }
  return steps;
}

}  // namespace lockstep
