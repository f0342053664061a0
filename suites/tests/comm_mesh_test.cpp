#include <gtest/gtest.h>

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
  EXPECT_STREQ(axis_name(Axis::kv), "kv");
  EXPECT_STREQ(axis_name(Axis::tie), "tie");
}

}  // namespace
}  // namespace lockstep
