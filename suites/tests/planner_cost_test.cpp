// Messages and kernels against closed forms of the papers, and published measurements.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>

#include "kernels/extents.hpp"
#include "suites/planner/cluster_text.hpp"
#include "suites/planner/cost_model.hpp"
#include "suites/planner/measure/measure_links.hpp"
#include "suites/planner/measure/pace.hpp"
#include "suites/planner/measure/process_memory.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

Cluster plain_cluster() {
  Cluster c;
  c.devices = 64, c.per_node = 8;
  c.memory = 80e9, c.flops = 1e15, c.memory_bandwidth = 3e12;
  c.node = {100e9, 0, {}, {}}, c.network = {10e9, 0, {}, {}};
  c.host = {20e9, 0, {}, {}}, c.host_memory = 1e12, c.host_bandwidth = 50e9;
  return c;
}

// Thakur et al. 2005, section 4: an all_reduce moves 2 (d-1)/d V, a reduce_scatter or all_gather half of it.
TEST(Collectives, RingsMoveWhatThePapersSay) {
  const Cluster c = plain_cluster();
  constexpr double V = 1e9;
  for (const i64 d : {2, 4, 8}) {
    const Placed p = place(d, 1, 8);
    const double half = (d - 1.0) / static_cast<double>(d) * V / 100e9;
    EXPECT_NEAR(collective_seconds(Verb::all_reduce, V, p, c), 2 * half, 1e-12);
    EXPECT_NEAR(collective_seconds(Verb::reduce_scatter, V, p, c), half, 1e-12);
    EXPECT_NEAR(collective_seconds(Verb::all_gather, V, p, c), half, 1e-12);
  }
  EXPECT_EQ(collective_seconds(Verb::all_reduce, V, place(1, 1, 8), c), 0);
  EXPECT_NEAR(collective_seconds(Verb::send, V, place(2, 8, 8), c), V / 10e9, 1e-12);
}

// Many small steps: a ring has 2 (d-1) of them, a tree 2 log2(d) (Sanders et al. 2009).
TEST(Collectives, SmallMessagesTakeTheTree) {
  Cluster c = plain_cluster();
  c.network.latency = 1e-5;
  EXPECT_NEAR(collective_seconds(Verb::all_reduce, 8, place(1024, 8, 8), c), 20e-5, 1e-7);
  EXPECT_NEAR(collective_seconds(Verb::broadcast, 8, place(1024, 8, 8), c), 10e-5, 1e-7) << "one way alone";
}

// Of 16 ranks on two nodes each carries an eighth of an all_reduce to the other node, in halves, and as much
// back; of an all_to_all, half of what it has. Between nodes nothing else takes the links.
TEST(Collectives, AreOnTheNetworkForAPart) {
  const Cluster c = plain_cluster();
  const double V = 1e9;
  const Placed two = place(16, 1, 8);
  EXPECT_NEAR(network_seconds(Verb::all_reduce, V, two, c), V / 8 / 10e9, 1e-12);
  EXPECT_NEAR(network_seconds(Verb::all_gather, V, two, c), V / 8 / 2 / 10e9, 1e-12);
  EXPECT_NEAR(network_seconds(Verb::all_to_all, V, two, c), V / 2 / 10e9, 1e-12);
  const Placed apart = place(8, 8, 8);
  for (const Verb verb : {Verb::reduce_scatter, Verb::all_reduce})
    EXPECT_NEAR(network_seconds(verb, V, apart, c), collective_seconds(verb, V, apart, c), 1e-12);
  EXPECT_EQ(network_seconds(Verb::all_reduce, V, place(8, 1, 8), c), 0);
}

// Of 16 ranks on two nodes each gives 7 of its 16 parts to its neighbours and 8 to the other node; on one
// node all but its own to neighbours, each alone on a node all but its own to others.
TEST(Collectives, AnAllToAllStaysOnItsNodeForAPart) {
  Cluster c = plain_cluster();
  c.node.latency = 1e-6, c.network.latency = 1e-4;
  const double V = 1e9;
  const auto seconds = [&](const Placed& p) { return collective_seconds(Verb::all_to_all, V, p, c); };
  EXPECT_NEAR(seconds(place(16, 1, 8)), 7 * (1e-6 + V / 16 / 100e9) + 8 * (1e-4 + V / 16 / 10e9), 1e-12);
  EXPECT_NEAR(seconds(place(8, 1, 8)), 7 * (1e-6 + V / 8 / 100e9), 1e-12);
  EXPECT_NEAR(seconds(place(8, 8, 8)), 7 * (1e-4 + V / 8 / 10e9), 1e-12);
}

// Each of a node's 8 devices carries an eighth across nodes: 8 links side by side, and never more than the
// links within the node.
TEST(Collectives, NodesShareTheirLinks) {
  Cluster c = plain_cluster();
  const double V = 1e9, d = 64;
  EXPECT_NEAR(collective_seconds(Verb::all_gather, V, place(64, 1, 8), c), (d - 1) / d * V / 80e9, 1e-12);
  EXPECT_NEAR(collective_seconds(Verb::all_gather, V, place(8, 8, 8), c), 7.0 / 8 * V / 10e9, 1e-12);
  c.network.bandwidth = 100e9;  // now the node is slower
  EXPECT_NEAR(collective_seconds(Verb::all_gather, V, place(64, 1, 8), c), (d - 1) / d * V / 100e9, 1e-12);
  // Hierarchical: 7 steps within a node and 7 across, not 63.
  c.node.latency = 1e-6, c.network.latency = 1e-4;
  EXPECT_NEAR(collective_seconds(Verb::all_gather, 64, place(64, 1, 8), c), 7e-6 + 7e-4, 1e-8);
}

// 64 ranks on 8 nodes reduce within a node, then a tree of 8 nodes joins an eighth of the bytes of each, and
// they gather: fewer steps than any ring through all, and less on the network than a tree of all.
TEST(Collectives, ATreeOfNodesCarriesEachRanksPart) {
  Cluster c = plain_cluster();
  c.network.latency = 1e-4;
  const double V = 1e6;
  EXPECT_NEAR(collective_seconds(Verb::all_reduce, V, place(64, 1, 8), c),
              2 * 7.0 / 8 * V / 100e9 + 2 * 3 * 1e-4 + 2 * V / 8 / 10e9, 1e-12);
}

TEST(Collectives, BandwidthFallsWithBytesAndNodes) {
  Cluster c = plain_cluster();
  c.network.by_nodes = Curve({{1, 1}, {4, 0.5}});
  EXPECT_NEAR(collective_seconds(Verb::send, 1e9, place(2, 8, 8), c), 1e9 / (10e9 * 0.75), 1e-9);
  EXPECT_NEAR(collective_seconds(Verb::all_gather, 1e9, place(16, 8, 8), c), 15.0 / 16 / 5, 1e-9);
  c.node.by_bytes = Curve({{1e6, 0.1}, {1e8, 0.5}});
  EXPECT_NEAR(collective_seconds(Verb::all_gather, 1e7, place(2, 1, 8), c), 0.5e7 / (100e9 * 0.3), 1e-12);
}

// tp innermost, then dp, then pp: rank = tp + TP (dp + DP pp), nodes of 8.
TEST(Placement, FollowsTheMesh) {
  const Mesh m{4, 8, 2, 1};
  const auto is = [](const Placed& p, i64 ranks, i64 per_node, i64 nodes) {
    return p.ranks == ranks && p.per_node == per_node && p.nodes == nodes;
  };
  EXPECT_TRUE(is(place(m, Axis::tp, 8), 8, 8, 1));
  EXPECT_TRUE(is(place(m, Axis::dp, 8), 4, 1, 4));
  EXPECT_TRUE(is(place(m, Axis::pp, 8), 2, 1, 2));
  EXPECT_TRUE(is(place(m, Axis::world, 8), 64, 8, 8));
  EXPECT_TRUE(is(place({4, 2, 2, 1}, Axis::dp, 8), 4, 4, 1));
  EXPECT_TRUE(is(place({16, 2, 1, 1}, Axis::dp, 8), 16, 4, 4));
  // By hand, for every group of some meshes.
  for (const Mesh& mesh : {Mesh{4, 4, 4, 1}, Mesh{8, 2, 2, 1}, Mesh{2, 16, 2, 2}})
    for (const Axis axis : {Axis::tp, Axis::dp, Axis::world, Axis::kv}) {
      const Group group = mesh.group(axis, 0);
      std::map<int, int> nodes;
      for (const int r : group.ranks) ++nodes[r / 8];
      const Placed p = place(mesh, axis, 8);
      EXPECT_EQ(p.ranks, group.size());
      EXPECT_EQ(p.nodes, static_cast<i64>(nodes.size()));
      EXPECT_EQ(p.per_node, nodes.begin()->second);
    }
}

// The ranks of every group, by the nodes that they are on: full nodes, and as many on each.
TEST(Placement, EqualsTheGroupsRanksWhereSequencesAreCut) {
  int groups = 0;
  for (const int tp : {1, 2})
    for (const int cp : {1, 2, 4, 8})
      for (const int dp : {1, 2, 4})
        for (const int pp : {1, 2})
          for (int replicas = 1; replicas < dp * cp; replicas *= 2)
            for (const int per_node : {1, 2, 4, 8, 16}) {
              const Mesh m{dp * cp, tp, pp, 1, replicas, cp};
              if (m.size() > per_node && m.size() % per_node != 0) continue;
              for (const Axis axis : {Axis::dp, Axis::cp, Axis::shard, Axis::replica, Axis::world})
                for (const int rank : {0, m.size() - 1}) {
                  std::map<int, i64> nodes;
                  for (const int r : m.group(axis, rank).ranks) ++nodes[r / per_node];
                  const Placed p = place(m, axis, per_node);
                  const std::string which = std::string(axis_name(axis)) + " of tp=" + std::to_string(tp) +
                                            " cp=" + std::to_string(cp) + " dp=" + std::to_string(dp) +
                                            " replicas=" + std::to_string(replicas) + ", nodes of " +
                                            std::to_string(per_node);
                  EXPECT_EQ(p.ranks, m.group(axis, rank).size()) << which;
                  EXPECT_EQ(p.nodes, static_cast<i64>(nodes.size())) << which;
                  for (const auto& [node, ranks] : nodes) EXPECT_EQ(p.per_node, ranks) << which;
                  ++groups;
                }
            }
  EXPECT_GT(groups, 1000);
}

Trace::Event kernel(const char* name, std::vector<double> numbers, Type type,
                    Medium medium = Medium::device) {
  Trace::Event e{Trace::Event::run};
  e.name = name, e.numbers = std::move(numbers);
  View v;
  v.type = type, v.medium = medium;
  e.views.assign(extents_of(name, e.numbers).size(), v);
  return e;
}

TEST(Roofline, IsTheSlowerOfArithmeticAndMemory) {
  Cluster c = plain_cluster();
  const CostModel model(c, {});
  // 2 M N K operations at 1e15; a thin one reads N K numbers of 2 bytes at 3e12.
  EXPECT_NEAR(model.kernel(kernel("matmul", {4096, 4096, 4096, 1}, Type::bf16)), 2 * std::pow(4096, 3) / 1e15,
              1e-9);
  EXPECT_NEAR(model.kernel(kernel("matmul", {1, 4096, 4096, 1}, Type::bf16)),
              2.0 * (4096.0 * 4096 + 2 * 4096) / 3e12, 1e-12);
  EXPECT_NEAR(model.kernel(kernel("add", {1e6}, Type::f32)), 12e6 / 3e12, 1e-12);
  EXPECT_NEAR(model.kernel(kernel("add", {1e6}, Type::f32, Medium::host)), 12e6 / 50e9, 1e-9);
}

TEST(Roofline, EfficiencyIsTheKernelsOwnOrItsClasss) {
  Cluster c = plain_cluster();
  c.launch = 1e-6;
  c.efficiency["matmul"] = Curve({{1e6, 0.5}});
  c.efficiency["matmul_dw"] = Curve({{1e6, 0.25}});
  c.efficiency["rows"] = Curve({{1e6, 0.1}});
  const CostModel model(c, {});
  const double flops = 2 * std::pow(4096, 3);
  EXPECT_NEAR(model.kernel(kernel("matmul", {4096, 4096, 4096, 1}, Type::bf16)), 1e-6 + flops / 0.5e15, 1e-9);
  EXPECT_NEAR(model.kernel(kernel("matmul_dw", {4096, 4096, 4096}, Type::bf16)), 1e-6 + flops / 0.25e15,
              1e-9);
  EXPECT_NEAR(model.kernel(kernel("add", {1e6}, Type::f32)), 1e-6 + 12e6 / 0.3e12, 1e-9);
}

// A GPU is handed its kernels one by one; the host's own are handed out by nobody.
TEST(Roofline, DispatchIsOfTheDevicesKernels) {
  Cluster c = plain_cluster();
  c.dispatch = 1e-3;
  const CostModel model(c, {});
  EXPECT_DOUBLE_EQ(model.kernel(kernel("add", {1e6}, Type::f32)), 1e-3);
  EXPECT_NEAR(model.kernel(kernel("add", {1e6}, Type::f32, Medium::host)), 12e6 / 50e9, 1e-12);
  // Nor is a message sooner under way than it is handed out.
  Message m;
  m.verb = Verb::all_reduce, m.axis = Axis::dp, m.n = 1;
  EXPECT_DOUBLE_EQ(CostModel(c, Mesh{8, 1, 1, 1}).message(m), 1e-3);
  m.n = 1 << 28;
  EXPECT_NEAR(CostModel(c, Mesh{8, 1, 1, 1}).message(m), 2 * 7.0 / 8 * 4 * (1 << 28) / 100e9, 1e-9);
}

// Beside others attention keeps its own part of its rate, or where none was measured a matmul's.
TEST(Roofline, ACrowdSlowsEachKind) {
  Cluster c = plain_cluster();
  const auto slower = [&](const char* name, std::vector<double> numbers) {
    Cluster alone = c;
    alone.crowd.clear();
    const Trace::Event e = kernel(name, std::move(numbers), Type::bf16);
    return CostModel(c, Mesh{8, 1, 1, 1}).kernel(e) / CostModel(alone, Mesh{8, 1, 1, 1}).kernel(e);
  };
  c.crowd["matmul"] = Curve({{1, 1}, {8, 0.5}});
  EXPECT_NEAR(slower("matmul", {4096, 4096, 4096, 1}), 2, 1e-12);
  EXPECT_NEAR(slower("attention", {1, 4096, 8, 8, 128}), 2, 1e-12);
  EXPECT_NEAR(slower("add", {1e6}), 1, 1e-12);
  c.crowd["attention"] = Curve({{1, 1}, {8, 0.25}}), c.crowd["rows"] = Curve({{1, 1}, {8, 0.2}});
  EXPECT_NEAR(slower("attention", {1, 4096, 8, 8, 128}), 4, 1e-12);
  EXPECT_NEAR(slower("add", {1e6}), 5, 1e-12);
}

// A kernel with a grid takes its rate, and its launch; larger than all that was measured, that of the edge.
// Attention's heads are the queries', of all sequences; the sums of three matmuls at once are together.
TEST(Roofline, AGridsRateIsOfTheKernelsSizes) {
  Cluster c = plain_cluster();
  c.launch = 1e-5;
  c.grids["matmul"] = {{std::vector<double>{16, 64}, {16, 64}, {16, 64}}, std::vector<double>(8, 1e9)};
  c.grids["matmul"].rates[7] = 4e9;
  const auto seconds = [&](double n) {
    return CostModel(c, {}).kernel(kernel("matmul", {n, n, n, 1}, Type::f32)) - 1e-5;
  };
  EXPECT_NEAR(seconds(16), 2 * 16 * 16 * 16 / 1e9, 1e-12);
  EXPECT_NEAR(seconds(64), 2 * 64 * 64 * 64 / 4e9, 1e-12);
  EXPECT_NEAR(seconds(1024), 2.0 * 1024 * 1024 * 1024 / 4e9, 1e-9);
  using Sizes = std::array<double, 3>;
  EXPECT_EQ(grid_sizes("attention", {2, 128, 8, 4, 64}), (Sizes{128, 64, 2 * 8}));
  EXPECT_EQ(grid_sizes("matmul_dx", {99, 10, 99, 20, 99, 30, 7, 5, 1}), (Sizes{7, 10 + 20 + 30, 5}));
}

// What ranks carry themselves: bytes of the whole payload by their own rates, where it starts and where it is
// waited for. A reduce_scatter of n between two takes 2 n from each.
TEST(Messages, CarriedByTheRanksCostThemTheirOwnTime) {
  Cluster c = plain_cluster();
  c.messages_block = true;
  c.carried["reduce_scatter"] = {Curve({{1e6, 4e9}, {1e8, 8e9}}), Curve({{1e6, 1e9}})};
  const CostModel model(c, Mesh{2, 1, 1, 1});
  Message m;
  m.verb = Verb::reduce_scatter, m.axis = Axis::dp, m.n = 1250000;
  EXPECT_NEAR(model.beginning(m), 1e7 / 6e9, 1e-9);
  EXPECT_NEAR(model.message(m), 1e7 / 1e9, 1e-9);
  m.axis = Axis::tp;  // alone on that axis
  EXPECT_EQ(model.beginning(m) + model.message(m), 0);
}

// dp's messages wait while one that everything waits for is on the network, whoever sends it; none of their
// own is such a one, nor one that stays on its node.
TEST(Messages, ThoseOfALayerHoldUpThoseBetweenReplicas) {
  Cluster c = plain_cluster();
  Message m;
  m.verb = Verb::all_to_all, m.n = 1 << 20, m.blocks = 3;
  const auto delay = [&](Axis axis, const Mesh& mesh) {
    m.axis = axis;
    return CostModel(c, mesh).delay(m);
  };
  const Mesh cut{32, 2, 1, 1, 1, 16};  // segments on 16 ranks of 4 nodes
  const double V = 16.0 * 3 * (1 << 20) * 4;
  EXPECT_NEAR(delay(Axis::cp, cut), 12.0 / 16 * V / 10e9, 1e-12);
  EXPECT_EQ(delay(Axis::cp, {16, 2, 1, 1, 1, 4}), 0);
  EXPECT_EQ(delay(Axis::dp, cut), 0);
  EXPECT_GT(delay(Axis::tp, {1, 16}), 0);
  c.trainer.exposed_tp = 0;
  EXPECT_EQ(delay(Axis::tp, {1, 16}), 0);
  EXPECT_GT(delay(Axis::cp, cut), 0);
}

Trace::Event copy_of(i64 floats, Medium to, Medium from) {
  Trace::Event e{Trace::Event::copy};
  e.numbers = {static_cast<double>(floats)};
  View target, source;
  target.medium = to, source.medium = from;
  target.type = source.type = Type::f32;
  e.views = {target, source};
  return e;
}

// A link's latency and bytes over its bandwidth; to and from the disk by the slower of the two links on the
// way; within the host's memory each byte is read and written.
TEST(Copies, TakeTheSlowestOfWhatTheyCross) {
  Cluster c = plain_cluster();
  c.host.latency = 1e-5, c.disk = {2e9, 1e-4, {}, {}};
  const auto seconds = [&](Medium to, Medium from) {
    return CostModel(c, {}).copy(copy_of(250'000'000, to, from));  // 1 GB
  };
  EXPECT_NEAR(seconds(Medium::host, Medium::device), 1e-5 + 1 / 20.0, 1e-12);
  EXPECT_NEAR(seconds(Medium::device, Medium::host), 1e-5 + 1 / 20.0, 1e-12);
  EXPECT_NEAR(seconds(Medium::host, Medium::host), 2 / 50.0, 1e-12);
  EXPECT_NEAR(seconds(Medium::disk, Medium::device), 1e-4 + 1 / 2.0, 1e-12);
  c.disk.bandwidth = 40e9;  // now the way over the host is slower
  EXPECT_NEAR(seconds(Medium::device, Medium::disk), 1e-5 + 1 / 20.0, 1e-12);
  EXPECT_NEAR(seconds(Medium::disk, Medium::host), 1e-4 + 1 / 40.0, 1e-12) << "which is there already";
}

// A communicator for each axis with several ranks, and one for all of them.
TEST(Processes, HoldWhatTheClustersLinesSay) {
  EXPECT_EQ(communicators({1, 1, 1, 1}), 0);
  EXPECT_EQ(communicators({4, 1, 1, 1}), 2);
  EXPECT_EQ(communicators({2, 2, 2, 1}), 4);
  EXPECT_EQ(communicators({1, 8, 1, 2}), 3) << "slices that share a key/value head";
  EXPECT_EQ(communicators({4, 1, 1, 1, 1, 2}), 3) << "segments of sequences";
  Cluster c = plain_cluster();
  c.context = 1000, c.workspace = 200, c.communicator = 30, c.fragmentation = 0.25;
  EXPECT_DOUBLE_EQ(beside_the_arena(c, 400, 3), 1000 + 200 + 3 * 30 + 100);
  // Ranks that are threads share the context, and each has its workspace and gaps.
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings s;
  s.batch = 4, s.seq = 16;
  const Prepared p = prepare({model, s, Plan::parse("dp=2 offload=optimizer"), nullptr});
  double device = 0, host = 0;
  for (int rank = 0; rank < 2; ++rank)
    device += static_cast<double>(p.layout(rank, Medium::device).bytes),
        host += static_cast<double>(p.layout(rank, Medium::host).bytes);
  ASSERT_GT(host, 0);
  const ProcessMemory held = process_memory(p, c);
  EXPECT_DOUBLE_EQ(held.arenas, device + host);
  EXPECT_DOUBLE_EQ(held.beside, 1000 + 2 * 200 + 0.25 * device);
}

// Messages of 100, 300 and 200 bytes, the third after the first was waited for: it takes the first one's
// slot. A receive gives nothing, and what goes to nobody else is not staged.
i64 staged_by(const std::vector<int>& last_waits) {
  Trace trace;
  const auto start = [&](int request, Verb verb, Axis axis, i64 floats) {
    Trace::Event e{Trace::Event::start};
    e.request = request, e.message.verb = verb, e.message.axis = axis, e.message.n = floats;
    e.message.peer = 1;
    trace.events.push_back(e);
  };
  const auto wait = [&](int request) {
    Trace::Event e{Trace::Event::wait};
    e.request = request;
    trace.events.push_back(e);
  };
  start(0, Verb::all_reduce, Axis::dp, 25), start(1, Verb::all_reduce, Axis::dp, 75), wait(0);
  start(2, Verb::all_reduce, Axis::dp, 50);
  start(3, Verb::recv, Axis::pp, 1000), wait(3);
  start(4, Verb::all_reduce, Axis::tp, 1000), wait(4);
  for (const int request : last_waits) wait(request);
  return staging_bytes(trace, Mesh{2, 1, 2, 1}, 0);
}
TEST(Staging, SlotsAreTakenAgain) {
  EXPECT_EQ(staged_by({1, 2}), 300 + 200) << "the next step finds them as the first did";
  EXPECT_EQ(staged_by({2, 1}), 300 + 300) << "the next step's first message takes the other slot";
}

// All units' gradients are under way together, and each finds its own room again in the next step: there is
// as much as they have, and what the world is told, one after another. (`gate-odd`: no two kinds of unit are
// as large.)
TEST(Staging, GradientsKeepTheirRoom) {
  const ModelConfig model = load_model_config("suites/models/gate-odd.json");
  Settings settings;
  settings.batch = 8, settings.seq = 16;
  const i64 world = std::max<i64>(8 * kSquareWords, 8 * settings.batch);
  for (const char* line : {"dp=2", "dp=2 zero=1"}) {
    const Prepared p = prepare({model, settings, Plan::parse(line), nullptr});
    i64 gradients = 0, gathered = 0;
    for (const Posted& m : p.posted[0]) {
      const i64 bytes = 4 * m.elements;
      if (m.axis != Axis::dp) continue;
      if (m.verb == Verb::all_gather)
        gathered = std::max(gathered, bytes);
      else
        gradients += m.verb == Verb::reduce_scatter ? 2 * bytes : bytes;
    }
    EXPECT_GT(gradients, gathered);
    EXPECT_EQ(staging_bytes(p.traces[0], p.mesh, 0), gradients + world) << line;
  }
}

// Of dp the gradients of two layers, last norm and head are under way together; of tp one message at a time,
// and of pp a receive and a send, as large as a microbatch's activations.
TEST(Needs, AreOfEachAxis) {
  const ModelConfig model = load_model_config("suites/models/gate-untied.json");
  Settings settings;
  settings.batch = 8, settings.seq = 16;
  const Prepared p = prepare({model, settings, Plan::parse("dp=2 tp=2 pp=2 micro=2"), nullptr});
  const auto of = [&](Axis axis) { return p.needs.of(axis); };
  const i64 activations = 2 * 16 * 64 * 4, layer = (64 * (64 + 32 + 32 + 64) + 3 * 64 * 172) / 2 + 2 * 64;
  EXPECT_EQ(of(Axis::tp).outstanding, 1);
  EXPECT_EQ(of(Axis::tp).largest_bytes, activations);
  EXPECT_EQ(of(Axis::pp).outstanding, 2);
  EXPECT_EQ(of(Axis::pp).largest_bytes, activations);
  EXPECT_EQ(of(Axis::dp).outstanding, 4);
  EXPECT_EQ(of(Axis::dp).largest_bytes, 4 * layer);
  EXPECT_EQ(of(Axis::shard).outstanding, 0);
}

TEST(Curves, AreLinearInTheLogarithm) {
  const Curve c({{1e2, 0.2}, {1e4, 0.6}, {1e5, 0.5}});
  EXPECT_DOUBLE_EQ(c.at(1), 0.2);
  EXPECT_NEAR(c.at(1e3), 0.4, 1e-12);
  EXPECT_DOUBLE_EQ(c.at(1e4), 0.6);
  EXPECT_NEAR(c.at(std::pow(10, 4.5)), 0.55, 1e-12);
  EXPECT_DOUBLE_EQ(c.at(1e9), 0.5);
  EXPECT_DOUBLE_EQ(Curve().at(5), 1);
}

TEST(Clusters, PresetsAreRead) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("suites/clusters")) {
    if (entry.path().extension() != ".toml") continue;
    const Cluster c = load_cluster(entry.path().string());
    EXPECT_GT(c.memory, 30e9) << entry.path();
    EXPECT_GT(c.flops, 1e14) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 7);
  const Cluster h100 = load_cluster("suites/clusters/h100x64.toml");
  EXPECT_DOUBLE_EQ(h100.flops, 989.4e12);
  EXPECT_EQ(h100.devices, 64);
  // 436 GB/s of bus bandwidth at 256 MB on 8 (Ultra-Scale Playbook), within 10 %.
  const double seconds = collective_seconds(Verb::all_reduce, 256e6, place(8, 1, 8), h100);
  EXPECT_NEAR(2 * 7.0 / 8 * 256e6 / seconds / 1e9, 436, 44);
  // A100: 20 GB/s at 1 MB, 126 at 16 MB, 229 at 1 GB (vTrain), within 20 %.
  const Cluster a100 = load_cluster("suites/clusters/a100-80x64.toml");
  for (const auto& [bytes, bus] : {std::pair{1e6, 20.0}, {16e6, 126.0}, {1e9, 229.0}})
    EXPECT_NEAR(1.75 * bytes / collective_seconds(Verb::all_reduce, bytes, place(8, 1, 8), a100) / 1e9, bus,
                bus / 5);
}

// What calibration writes is what is read again, to the digits that the file has.
TEST(Clusters, AreWrittenAsTheyAreRead) {
  Cluster c = plain_cluster();
  c.name = "one", c.devices = c.per_node = 2;
  c.crowd["rows"] = Curve({{1, 1}, {2, 0.75}});
  c.efficiency["add"] = Curve({{1e3, 0.5}, {1e6, 0.25}});
  c.grids["matmul"] = {{std::vector<double>{1, 2}, {4}, {8}}, {1e12, 2e12}};
  c.messages_block = c.copies_block = true;
  c.carried["send"] = {Curve({{8, 1e9}}), Curve({{8, 2e9}, {64, 4e9}})};
  c.pace = {1.5e11, 1.25e10};
  c.launch = 2.5e-6;
  c.host.by_bytes = Curve({{256, 0.125}, {1e6, 1}});
  c.disk = {0.75e9, 0, {}, {}}, c.disk_bytes = 3e12;
  c.node.by_nodes = Curve({{1, 1}, {2, 0.5}}), c.node.halves_by_nodes = Curve({{1, 1}, {2, 0.25}});
  c.context = 1 << 20, c.workspace = 1 << 21, c.communicator = 1 << 22, c.fragmentation = 0.0625;
  const TemporaryFolder folder;
  const Cluster again = load_cluster(folder.write("c.toml", cluster_text(c, "a test")));
  EXPECT_EQ(again.devices, 2);
  EXPECT_DOUBLE_EQ(again.flops, 1e15);
  EXPECT_NEAR(again.memory, 80e9, 1e6);
  EXPECT_DOUBLE_EQ(again.memory_bandwidth, 3e12);
  EXPECT_DOUBLE_EQ(again.launch, 2.5e-6);
  EXPECT_DOUBLE_EQ(again.node.bandwidth, 100e9);
  EXPECT_DOUBLE_EQ(again.node.by_nodes.at(2), 0.5);
  EXPECT_DOUBLE_EQ(again.node.halves_by_nodes.at(2), 0.25);
  EXPECT_DOUBLE_EQ(again.host.bandwidth, 20e9);
  EXPECT_DOUBLE_EQ(again.host.by_bytes.at(256), 0.125);
  EXPECT_NEAR(again.host_memory, 1e12, 1e6);
  EXPECT_DOUBLE_EQ(again.host_bandwidth, 50e9);
  EXPECT_DOUBLE_EQ(again.disk.bandwidth, 0.75e9);
  EXPECT_DOUBLE_EQ(again.disk_bytes, 3e12);
  EXPECT_DOUBLE_EQ(again.crowd.at("rows").at(2), 0.75);
  EXPECT_DOUBLE_EQ(again.efficiency.at("add").at(1e6), 0.25);
  EXPECT_NEAR(again.grids.at("matmul").at({2, 4, 8}), 2e12, 1);
  EXPECT_TRUE(again.messages_block && again.copies_block);
  EXPECT_DOUBLE_EQ(again.carried.at("send").start.at(8), 1e9);
  EXPECT_DOUBLE_EQ(again.carried.at("send").wait.at(64), 4e9);
  EXPECT_DOUBLE_EQ(again.pace.flops, 1.5e11);
  EXPECT_DOUBLE_EQ(again.pace.bandwidth, 1.25e10);
  EXPECT_NEAR(again.context, 1 << 20, 1 << 10);
  EXPECT_NEAR(again.workspace, 1 << 21, 1 << 10);
  EXPECT_NEAR(again.communicator, 1 << 22, 1 << 10);
  EXPECT_DOUBLE_EQ(again.fragmentation, 0.0625);
}

// A disk that takes no more is fast at refusing: that is no rate.
TEST(Clusters, ADiskThatIsFullHasNoSpeed) {
  const TemporaryFolder folder;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto was = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit full{1 << 20, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &full);
  Cluster c;
  Measurements notes;
  measure_disk({.scratch = folder.path()}, c, notes);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, was);
  EXPECT_EQ(c.disk.bandwidth, 0);
  EXPECT_TRUE(notes.empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

// A core at half its speed: all rates are half of what they were, those of arithmetic and of memory apart.
TEST(Clusters, AreCorrectedByThePace) {
  Cluster c = plain_cluster();
  c.grids["matmul"] = {{std::vector<double>{1}, {1}, {1}}, {8e9}};
  c.carried["send"] = {Curve({{8, 1e9}}), Curve({{8, 2e9}})};
  EXPECT_DOUBLE_EQ(at_pace(c, {1, 1}).flops, c.flops);  // nobody knows how fast it was
  c.pace = {100e9, 16e9};
  const Cluster slow = at_pace(c, {50e9, 4e9});
  EXPECT_DOUBLE_EQ(slow.flops, c.flops / 2);
  EXPECT_DOUBLE_EQ(slow.grids.at("matmul").rates[0], 4e9);
  EXPECT_DOUBLE_EQ(slow.memory_bandwidth, c.memory_bandwidth / 4);
  EXPECT_DOUBLE_EQ(slow.carried.at("send").start.at(8), 0.25e9);
  EXPECT_DOUBLE_EQ(slow.host.bandwidth, c.host.bandwidth / 4);
  EXPECT_DOUBLE_EQ(slow.host_bandwidth, c.host_bandwidth / 4);
  EXPECT_DOUBLE_EQ(slow.carried.at("send").wait.at(8), 0.5e9);
}

// Of 40 seconds that the processors were busy this process had 10: others had three quarters.
TEST(Clusters, WhatOthersTookIsTheRest) {
  EXPECT_DOUBLE_EQ(others_part({100, 7}, {140, 17}), 0.75);
  EXPECT_DOUBLE_EQ(others_part({100, 7}, {140, 47}), 0);
  EXPECT_DOUBLE_EQ(others_part({100, 7}, {100, 7}), 0) << "nothing was busy";
}

TEST(Clusters, MistakesAreNamedWithTheirLine) {
  const TemporaryFolder folder;
  const auto mistake = [&](const std::string& text) {
    const std::string path = folder.write("c.toml", text);
    return refusal([&] { load_cluster(path); });
  };
  const std::string good =
      "devices = 1\ndevices_per_node = 1\n[device]\nmemory_gib = 1\ntflops = 1\nmemory_gb_per_s = 1\n";
  EXPECT_EQ(mistake(good), "");
  EXPECT_TRUE(says(mistake("devices = 1\n"), "devices_per_node is missing"));
  EXPECT_TRUE(says(mistake(good + "tflop = 1\n"), "c.toml:7", "no key `tflop`", "`tflops`"));
  EXPECT_TRUE(says(mistake(good + "weight_bytes = 3\n"), "weight_bytes is 3", "2 or 4"));
  EXPECT_TRUE(says(mistake(good + "launch_us = -1\n"), "launch_us is -1", "0 or more"));
  EXPECT_TRUE(says(mistake(good + "[pace]\nmatmul_gflops = 0\ncopy_gb_per_s = 1\n"), "c.toml:8",
                   "matmul_gflops is 0", "greater than 0"));
  EXPECT_TRUE(
      says(mistake(good + "[grid.matmul]\nrows = [2, 1]\ncolumns = [1]\nsums = [1]\ngflops = [1, 1]\n"),
           "c.toml:8", "rows must ascend"));
  EXPECT_TRUE(says(mistake(good + "[efficiency]\nmatmul = [[1, 0.5], [1, 0.6]]\n"), "c.toml:8", "ascend"));
  EXPECT_TRUE(says(mistake(good + "[efficiency]\nmatmull = 1\n"), "did you mean `matmul`?"));
  EXPECT_TRUE(says(mistake("devices = 2\n" + good.substr(12)), "[network]", "is missing"));
  EXPECT_TRUE(says(refusal([] { load_cluster("none.toml"); }), "none.toml", "no such file"));
  EXPECT_TRUE(says(mistake(good + "[messages]\nall_reduce_end = [[1, 1]]\n"), "c.toml:8", "all_reduce_"));
  EXPECT_TRUE(says(mistake(good + "[pace]\nmatmul_gflops = 1\n"), "copy_gb_per_s is missing"));
  EXPECT_TRUE(says(mistake("devices = 1000000\n" + good.substr(12)), "c.toml:1", "from 1 to 999999"));
}

// A number in another unit is orders beyond what any machine has.
TEST(Clusters, NumbersInAnotherUnitAreRefused) {
  const TemporaryFolder folder;
  const auto mistake = [&](const std::string& device, const std::string& more) {
    const std::string path = folder.write(
        "c.toml", "devices = 1\ndevices_per_node = 1\n[device]\n" + device + "memory_gb_per_s = 1\n" + more);
    return refusal([&] { load_cluster(path); });
  };
  const std::string device = "memory_gib = 1\ntflops = 1\n";
  EXPECT_EQ(mistake(device, "[efficiency]\nmatmul = [[1e9, 1]]\n[crowd]\nrows = [[1, 1], [2, 1.02]]\n"), "");
  EXPECT_TRUE(says(mistake("memory_gib = 1\ntflops = 989.4e12\n", ""), "c.toml:5: tflops is 9.894e+14",
                   "in TFLOP/s, 10^12"));
  EXPECT_TRUE(says(mistake("memory_gib = 79.1e9\ntflops = 1\n", ""), "c.toml:4: memory_gib is ", "in GiB"));
  EXPECT_TRUE(says(mistake(device, "[efficiency]\nmatmul = [[1e9, 0.2],\n[1e12, 70]]\n"),
                   "c.toml:9: matmul is 70 at ", "a part, from 0 to 1"));
  EXPECT_TRUE(says(mistake(device, "[node]\ngb_per_s = 1\nby_bytes = [[1e5, 30], [1e6, 90]]\n"),
                   "c.toml:9: by_bytes is 30 at ", "a part"));
  EXPECT_TRUE(says(mistake(device, "[crowd]\nrows = [[1, 100], [2, 90]]\n"), "rows is 100", "no percentage"));
  EXPECT_TRUE(
      says(mistake(device, "[process]\nfragmentation = 3\n"), "c.toml:8: fragmentation is 3", "a part"));
  EXPECT_TRUE(says(mistake(device, "[trainer]\nexposed_tp = 45\n"), "exposed_tp is 45", "a part"));
  EXPECT_TRUE(says(mistake(device, "[node]\ngb_per_s = 450e9\n"), "gb_per_s is 4.5e+11", "in GB/s"));
}

}  // namespace
}  // namespace lockstep
