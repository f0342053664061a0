#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/comm.hpp"
#include "parallel/mesh.hpp"

namespace lockstep {
namespace {

using Ranks = std::vector<int>;

// dp 2, tp 4, pp 3: rank = tp + 4 * (dp + 2 * pp).
const Mesh mesh{.dp = 2, .tp = 4, .pp = 3, .kv_replicas = 2};

TEST(Mesh, RankOfACoordinateAndBack) {
  EXPECT_EQ(mesh.size(), 24);
  EXPECT_EQ(mesh.rank_of(1, 3, 2), 23);
  EXPECT_EQ(mesh.rank_of(1, 2, 0), 6);
  for (int r = 0; r < mesh.size(); ++r)
    EXPECT_EQ(mesh.rank_of(mesh.dp_of(r), mesh.tp_of(r), mesh.pp_of(r)), r);
}

TEST(Mesh, GroupsAreWhatTheirNamesSay) {
  EXPECT_EQ(mesh.group(Axis::tp, 6).ranks, (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(mesh.group(Axis::dp, 6).ranks, (Ranks{2, 6}));
  EXPECT_EQ(mesh.group(Axis::pp, 6).ranks, (Ranks{6, 14, 22}));
  EXPECT_EQ(mesh.group(Axis::kv, 6).ranks, (Ranks{6, 7}));
  EXPECT_EQ(mesh.group(Axis::kv, 13).ranks, (Ranks{12, 13}));
  EXPECT_EQ(mesh.group(Axis::tie, 6).ranks, (Ranks{6, 22}));
  EXPECT_EQ(mesh.group(Axis::tie, 22).ranks, (Ranks{6, 22}));
  EXPECT_EQ(mesh.group(Axis::tie, 14).ranks, (Ranks{14})) << "a middle stage has no part in a tied weight";
  EXPECT_EQ(mesh.group(Axis::world, 6).size(), 24);
}

TEST(Mesh, AKeyValueHeadMayBeOnMoreThanTwoRanks) {
  const Mesh four{.dp = 2, .tp = 8, .kv_replicas = 4};
  EXPECT_EQ(four.group(Axis::kv, 6).ranks, (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(four.group(Axis::kv, 8).ranks, (Ranks{8, 9, 10, 11}));
}

// dp 8 in two groups of four: ranks 0 to 7 and 8 to 15, of which tp takes every second.
TEST(Mesh, GroupsOfReplicasShareAndMeet) {
  const Mesh groups{.dp = 8, .tp = 2, .pp = 2, .replicas = 2};
  EXPECT_EQ(groups.group(Axis::shard, 3).ranks, (Ranks{1, 3, 5, 7}));
  EXPECT_EQ(groups.group(Axis::shard, 30).ranks, (Ranks{24, 26, 28, 30}));
  EXPECT_EQ(groups.group(Axis::replica, 3).ranks, (Ranks{3, 11}));
  EXPECT_EQ(groups.group(Axis::replica, 30).ranks, (Ranks{22, 30}));
  EXPECT_EQ(mesh.group(Axis::shard, 6).ranks, mesh.group(Axis::dp, 6).ranks)
      << "all share, where there is one";
  for (const Axis axis : {Axis::shard, Axis::replica})
    for (int r = 0; r < groups.size(); ++r)
      EXPECT_EQ(groups.group(axis, r).ranks[groups.group(axis, r).me], r);
}

TEST(Mesh, EveryGroupHoldsItsRankAndAllItsMembersAgree) {
  for (int a = 0; a < static_cast<int>(Axis::count); ++a)
    for (int r = 0; r < mesh.size(); ++r) {
      const Group g = mesh.group(static_cast<Axis>(a), r);
      EXPECT_EQ(g.axis, static_cast<Axis>(a));
      EXPECT_EQ(g.ranks[g.me], r);
      for (int other : g.ranks) EXPECT_EQ(mesh.group(g.axis, other).ranks, g.ranks);
    }
}

// Two segments of each sequence, two replicas, tp 2, two stages, by hand: rank = tp + 2 * (cp + 2 * (dp + 2 *
// pp)). In dp's order the first segments of all sequences come first: ranks 0 and 4 have them, 2 and 6 the
// second ones.
TEST(Mesh, SegmentsOfASequenceAreOnNeighbours) {
  const Mesh two{.dp = 4, .tp = 2, .pp = 2, .cp = 2};
  EXPECT_EQ(two.size(), 16);
  EXPECT_EQ(two.group(Axis::cp, 5).ranks, (Ranks{5, 7}));
  EXPECT_EQ(two.group(Axis::cp, 10).ranks, (Ranks{8, 10}));
  EXPECT_EQ(two.group(Axis::dp, 2).ranks, (Ranks{0, 4, 2, 6}));
  EXPECT_EQ(two.group(Axis::dp, 15).ranks, (Ranks{9, 13, 11, 15}));
  EXPECT_EQ(two.group(Axis::tp, 7).ranks, (Ranks{6, 7}));
  EXPECT_EQ(two.group(Axis::pp, 3).ranks, (Ranks{3, 11}));
  EXPECT_EQ(two.cp_of(6), 1);
  EXPECT_EQ(two.dp_of(6), 3);
  EXPECT_EQ(two.rank_of(2, 1, 1), 11);
}

// All that a mesh may be of up to 32 ranks; groups of replicas fewer than, as many as and more than segments.
TEST(Mesh, WithSegmentsEveryAxisPartsTheWorld) {
  int meshes = 0;
  for (const int cp : {1, 2, 4, 8})
    for (const int plain_dp : {1, 2, 4})
      for (const int tp : {1, 2})
        for (const int pp : {1, 2})
          for (const int replicas : {1, 2, 4, 8}) {
            const int dp = plain_dp * cp;
            if (dp * tp * pp > 32 || (replicas > 1 && replicas >= dp)) continue;
            ++meshes;
            const Mesh m{.dp = dp, .tp = tp, .pp = pp, .replicas = replicas, .cp = cp};
            SCOPED_TRACE(testing::Message() << "dp " << plain_dp << " cp " << cp << " tp " << tp << " pp "
                                            << pp << " replicas " << replicas);
            for (int p = 0; p < pp; ++p)
              for (int d = 0; d < plain_dp; ++d)
                for (int c = 0; c < cp; ++c)
                  for (int t = 0; t < tp; ++t) {
                    const int rank = t + tp * (c + cp * (d + plain_dp * p)), g = c * plain_dp + d;
                    EXPECT_EQ(m.rank_of(g, t, p), rank);
                    EXPECT_EQ(m.dp_of(rank), g);
                    EXPECT_EQ(m.cp_of(rank), c);
                    EXPECT_EQ(m.tp_of(rank), t);
                    EXPECT_EQ(m.pp_of(rank), p);
                    EXPECT_EQ(m.shard_of(rank) + m.replica_of(rank) * (dp / replicas), g);
                    Ranks segments;
                    for (int i = 0; i < cp; ++i) segments.push_back(t + tp * (i + cp * (d + plain_dp * p)));
                    EXPECT_EQ(m.group(Axis::cp, rank).ranks, segments);
                  }
            for (int a = 0; a < static_cast<int>(Axis::count); ++a) {
              const Axis axis = static_cast<Axis>(a);
              std::vector<int> seen(m.size());
              for (int r = 0; r < m.size(); ++r) {
                const Group g = m.group(axis, r);
                ASSERT_EQ(g.ranks[g.me], r) << axis_name(axis);
                for (const int other : g.ranks) ASSERT_EQ(m.group(axis, other).ranks, g.ranks);
                if (g.me == 0)
                  for (const int other : g.ranks) ++seen[other];
              }
              EXPECT_EQ(seen, std::vector<int>(m.size(), 1)) << axis_name(axis);
            }
            for (int r = 0; r < m.size(); ++r) {
              const Ranks all = m.group(Axis::dp, r).ranks, shards = m.group(Axis::shard, r).ranks;
              ASSERT_EQ(static_cast<int>(all.size()), dp);
              for (std::size_t i = 1; i < all.size(); ++i)  // first segments first, then by replica
                EXPECT_LT(m.cp_of(all[i - 1]) * plain_dp + all[i - 1] / tp / cp % plain_dp,
                          m.cp_of(all[i]) * plain_dp + all[i] / tp / cp % plain_dp);
              for (const int other : m.group(Axis::cp, r).ranks)
                EXPECT_TRUE(std::find(all.begin(), all.end(), other) != all.end());
              // A group's shards times the groups are all of dp, and a group's ranks are neighbours in it.
              Ranks met;
              for (const int other : shards)
                for (const int far : m.group(Axis::replica, other).ranks) met.push_back(far);
              std::sort(met.begin(), met.end());
              Ranks sorted = all;
              std::sort(sorted.begin(), sorted.end());
              EXPECT_EQ(met, sorted);
              const auto first = std::find(all.begin(), all.end(), shards[0]);
              EXPECT_EQ(Ranks(first, first + static_cast<long>(shards.size())), shards);
            }
          }
  EXPECT_GT(meshes, 40);
}

// By hand, four segments on 8 ranks: of two groups of replicas each has two of the segments, of four one.
TEST(Mesh, GroupsOfReplicasShareWholeSegments) {
  const Mesh two{.dp = 8, .replicas = 2, .cp = 4}, four{.dp = 8, .replicas = 4, .cp = 4},
      few{.dp = 8, .replicas = 4, .cp = 2};
  EXPECT_EQ(two.group(Axis::shard, 0).ranks, (Ranks{0, 4, 1, 5}));
  EXPECT_EQ(two.group(Axis::replica, 5).ranks, (Ranks{5, 7}));
  EXPECT_EQ(four.group(Axis::shard, 6).ranks, (Ranks{2, 6}));
  EXPECT_EQ(four.group(Axis::replica, 6).ranks, (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(few.group(Axis::shard, 3).ranks, (Ranks{1, 3}));  // second segments of the first half
  EXPECT_EQ(few.group(Axis::replica, 3).ranks, (Ranks{2, 6, 3, 7}));
}

TEST(Mesh, APlaceIsSaidInAPlansWords) {
  const Mesh m{.dp = 4, .tp = 2, .pp = 2, .cp = 2};
  EXPECT_EQ(place(m, 0), "rank 0 (dp 0, tp 0, pp 0, cp 0)");
  EXPECT_EQ(place(m, 6), "rank 6 (dp 1, tp 0, pp 0, cp 1)");
  EXPECT_EQ(place(m, 11), "rank 11 (dp 0, tp 1, pp 1, cp 1)");
  EXPECT_EQ(place(mesh, 6), "rank 6 (dp 1, tp 2, pp 0)");
}

TEST(Mesh, OneStageTiesWithItself) {
  const Mesh one_stage{.dp = 2, .tp = 2};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(one_stage.group(Axis::tie, r).ranks, (Ranks{r}));
}

TEST(Mesh, RefusesReplicasThatDoNotDivideTp) {
  const Mesh bad{.tp = 4, .kv_replicas = 3};
  EXPECT_THROW(bad.group(Axis::kv, 0), std::invalid_argument);
}

TEST(Mesh, AxesHaveTheirNames) {
  EXPECT_STREQ(axis_name(Axis::world), "world");
  EXPECT_STREQ(axis_name(Axis::cp), "cp");
  EXPECT_STREQ(axis_name(Axis::kv), "kv");
  EXPECT_STREQ(axis_name(Axis::tie), "tie");
}

}  // namespace
}  // namespace lockstep
