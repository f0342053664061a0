// What joins GPUs, as a calibration finds it: a link from messages that are known, and messages measured over
// the nccl communicator on a fabric that needs no GPU.
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/comm/nccl.hpp"
#include "suites/planner/measure/link_fit.hpp"
#include "suites/planner/measure/measure_nccl.hpp"
#include "suites/tests/fabric_stand_in.hpp"

namespace lockstep {
namespace {

constexpr Verb kVerbs[] = {Verb::all_reduce, Verb::reduce_scatter, Verb::all_gather, Verb::all_to_all};

std::vector<LinkSample> messages_on(const Cluster& c, const std::vector<Placed>& groups) {
  std::vector<LinkSample> samples;
  for (const Placed& placed : groups)
    for (double bytes = 4096; bytes <= 1 << 28; bytes *= 4)
      for (const Verb verb : kVerbs)
        samples.push_back({verb, bytes, placed, collective_seconds(verb, bytes, placed, c)});
  return samples;
}

// Seconds of all these messages with the link that is made of them, as parts of what they took: the furthest.
double furthest(const std::vector<LinkSample>& samples) {
  Cluster c;
  c.node = c.network = link_of(samples);
  double most = 0;
  for (const LinkSample& s : samples)
    most = std::max(most, std::abs(std::log(collective_seconds(s.verb, s.bytes, s.placed, c) / s.seconds)));
  return most;
}

TEST(Links, OneIsFoundFromItsMessages) {
  Cluster c;
  c.node.bandwidth = 450e9, c.node.latency = 3e-6;
  for (const i64 ranks : {2, 4, 8}) {
    const std::vector<LinkSample> samples = messages_on(c, {{ranks, ranks, 1}});
    const Link found = link_of(samples);
    EXPECT_NEAR(found.latency / c.node.latency, 1, 0.01) << ranks;
    EXPECT_NEAR(found.bandwidth / c.node.bandwidth, 1, 0.05) << ranks;
    EXPECT_TRUE(found.by_nodes.empty() && found.halves_by_nodes.empty());
    EXPECT_LT(furthest(samples), 0.02) << ranks;
  }
  // Small messages reach little of it.
  c.node.by_bytes = Curve({{1e5, 0.05}, {1e6, 0.2}, {1.6e7, 0.6}, {1e8, 0.9}, {2.56e8, 1.0}});
  EXPECT_LT(furthest(messages_on(c, {{8, 8, 1}})), 0.1);
}

TEST(Links, ManyNodesLeaveLessOfThem) {
  Cluster c;
  c.network.bandwidth = 50e9, c.network.latency = 10e-6;
  c.network.by_nodes = Curve({{1, 1}, {2, 1}, {4, 0.8}, {8, 0.6}});
  c.network.halves_by_nodes = Curve({{1, 1}, {2, 1}, {4, 0.9}, {8, 0.5}});
  const std::vector<LinkSample> samples = messages_on(c, {{2, 1, 2}, {4, 1, 4}, {8, 1, 8}});
  const Link found = link_of(samples);
  EXPECT_NEAR(found.latency / c.network.latency, 1, 0.01);
  EXPECT_NEAR(found.by_nodes.at(4), 0.8, 0.02);
  EXPECT_NEAR(found.by_nodes.at(8), 0.6, 0.02);
  EXPECT_NEAR(found.halves_by_nodes.at(4), 0.9, 0.02);
  EXPECT_NEAR(found.halves_by_nodes.at(8), 0.5, 0.02);
  EXPECT_LT(furthest(samples), 0.05);
}

// The bandwidth is that of the fewest; what more of them have beyond it is luck, not a faster link.
TEST(Links, ManyNodesHaveNoMoreThanFew) {
  Cluster c;
  c.network.bandwidth = 50e9, c.network.latency = 10e-6;
  c.network.by_nodes = c.network.halves_by_nodes = Curve({{1, 1}, {2, 0.5}, {4, 1}, {8, 0.25}});
  const Link found = link_of(messages_on(c, {{2, 1, 2}, {4, 1, 4}, {8, 1, 8}}));
  EXPECT_NEAR(found.bandwidth / 25e9, 1, 0.05);
  for (const Curve* left : {&found.by_nodes, &found.halves_by_nodes}) {
    EXPECT_EQ(left->at(4), 1);
    EXPECT_NEAR(left->at(8), 0.5, 0.02);
  }
}

// Nodes of one device each have no link within them, and need none.
TEST(Links, NodesOfOneDeviceNeedNoneWithin) {
  Cluster c;
  c.network.bandwidth = 10e9, c.network.latency = 5e-6;
  EXPECT_DOUBLE_EQ(collective_seconds(Verb::all_to_all, 6e6, {3, 1, 3}, c), 2 * (5e-6 + 2e6 / 10e9));
}

// What was asked of the ranks: on which meshes, and how often the first one waited for what it had started.
struct Asked {
  std::vector<Mesh> meshes{};
  int settled = 0;
};

OnRanks on_stand_in(Asked& asked, test::StandIns& fabrics) {
  return [&](const Mesh& mesh, const CommNeeds& needs, const std::function<void(const LinkRank&)>& body) {
    asked.meshes.push_back(mesh);
    LocalWorld(mesh, {.largest_bytes = NcclComm::kIntroduction}, Timing::eager)
        .run([&](int rank, Comm& introducer) {
          const auto fabric = fabrics.fabric(nullptr, mesh.size());
          NcclComm comm(introducer, *fabric, mesh, rank, needs, {.fast = true});
          const auto n = static_cast<std::size_t>(needs.largest_bytes / 4 + 16);
          std::vector<float> in(n, 1), out(n);
          body({rank, comm, in.data(), out.data(), [&, rank] { asked.settled += rank == 0; }, 1000});
          comm.finish();
        });
  };
}

Calibration measured(int nodes, int per_node, Asked& asked) {
  test::StandIns fabrics;
  Calibration found;
  const OnRanks ranks = on_stand_in(asked, fabrics);
  for (const MeasureStep& step : link_steps(ranks, nodes, per_node, /*quick=*/true, found)) step.run();
  return found;
}

TEST(Links, OfAJobAreThoseWithinItsNodesAndBetweenThem) {
  Asked asked;
  const Calibration found = measured(4, 2, asked);
  const std::vector<Mesh>& meshes = asked.meshes;
  EXPECT_EQ(found.cluster.devices, 8);
  EXPECT_EQ(found.cluster.per_node, 2);
  EXPECT_EQ(found.cluster.communicator, 1000);
  EXPECT_GT(found.cluster.node.bandwidth, 0);
  EXPECT_GT(found.cluster.network.bandwidth, 0);
  ASSERT_EQ(meshes.size(), 4u);  // a communicator; a node; two nodes at a time; all four
  EXPECT_EQ(meshes[1].group(Axis::tp, 0).ranks, (std::vector<int>{0, 1})) << "neighbours share a node";
  EXPECT_EQ(meshes[2].group(Axis::dp, 0).ranks, (std::vector<int>{0, 2}));
  EXPECT_EQ(meshes[2].group(Axis::dp, 5).ranks, (std::vector<int>{5, 7})) << "all nodes talk at once";
  EXPECT_EQ(meshes[3].group(Axis::dp, 1).ranks, (std::vector<int>{1, 3, 5, 7}));
  // Of five batches each is waited for, and the meeting before it.
  EXPECT_GE(asked.settled, 10 * std::ssize(found.notes));
  std::map<std::string, int> of;
  for (const Measurement& m : found.notes) {
    ++of[m.what + " " + m.name + " among " + std::to_string(m.ranks)];
    EXPECT_GT(m.sample.seconds, 0) << m.what;
  }
  for (const Verb verb : kVerbs) {
    EXPECT_EQ(of[std::string("node ") + verb_name(verb) + " among 2"], 2);
    EXPECT_EQ(of[std::string("network ") + verb_name(verb) + " among 2"], 2);
    EXPECT_EQ(of[std::string("network ") + verb_name(verb) + " among 4"], 2);
  }
}

TEST(Links, OfOneNodeOrOfSingleDevicesThereIsOneKind) {
  Asked asked;
  const Cluster node = measured(1, 2, asked).cluster;
  EXPECT_GT(node.node.bandwidth, 0);
  EXPECT_EQ(node.network.bandwidth, 0);
  const Cluster singles = measured(3, 1, asked).cluster;
  EXPECT_EQ(singles.node.bandwidth, 0);
  EXPECT_GT(singles.network.bandwidth, 0);
  EXPECT_EQ(singles.devices, 3);
  asked = {};
  EXPECT_EQ(measured(1, 1, asked).notes.size(), 0u);
  EXPECT_TRUE(asked.meshes.empty());
}

}  // namespace
}  // namespace lockstep
