#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>

#include "kernels/lanes.hpp"
#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

TEST(Lanes, CoverTheRangeOnceInWholeGrains) {
  for (int count = 1; count <= 5; ++count) {
    Lanes lanes(count);
    ASSERT_EQ(lanes.count(), count);
    for (const i64 n : {0, 1, 2, 15, 16, 17, 64, 1000})
      for (const i64 grain : {1, 3, 16, 100}) {
        std::vector<int> hits(static_cast<std::size_t>(n), 0);
        std::vector<int> calls(static_cast<std::size_t>(count), 0);
        lanes.split(n, grain, [&](i64 begin, i64 end, int lane) {
          ASSERT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end % grain == 0 || end == n);
          ++calls[static_cast<std::size_t>(lane)];
          for (i64 i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(hits, std::vector<int>(static_cast<std::size_t>(n), 1)) << n << " by " << grain;
        for (const int c : calls) EXPECT_LE(c, 1);
      }
  }
}

TEST(Lanes, ShareTheWorkAmongThreads) {
  Lanes lanes(3);
  std::vector<std::thread::id> ids(3);
  std::vector<i64> share(3);
  lanes.split(99, 1, [&](i64 begin, i64 end, int lane) {
    ids[static_cast<std::size_t>(lane)] = std::this_thread::get_id();
    share[static_cast<std::size_t>(lane)] = end - begin;
  });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 3u);
  EXPECT_EQ(share, (std::vector<i64>{33, 33, 33}));
}

TEST(Lanes, ScratchIsAlignedAndPrivate) {
  Lanes lanes(3);
  for (int lane = 0; lane < 3; ++lane) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(lanes.scratch(lane)) % 64, 0u);
    std::memset(lanes.scratch(lane), lane + 1, Lanes::kScratchBytes);
  }
  for (int lane = 0; lane < 3; ++lane) {
    const auto* bytes = static_cast<const unsigned char*>(lanes.scratch(lane));
    EXPECT_EQ(bytes[0], lane + 1);
    EXPECT_EQ(bytes[Lanes::kScratchBytes - 1], lane + 1);
  }
}

// More ranks than cores, many short rounds: a lost wake-up hangs here, a late write is a wrong sum.
TEST(Lanes, ManyRanksManyRounds) {
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank)
    ranks.emplace_back([rank] {
      Lanes lanes(1 + rank);
      for (i64 round = 0; round < 3000; ++round) {
        i64 sums[4] = {};
        lanes.split(10, 1, [&](i64 begin, i64 end, int lane) {
          for (i64 i = begin; i < end; ++i) sums[lane] += i * round;
        });
        ASSERT_EQ(sums[0] + sums[1] + sums[2] + sums[3], 45 * round);
      }
    });
  for (std::thread& rank : ranks) rank.join();
}

TEST(Lanes, NeedAtLeastOneThread) { EXPECT_THROW(Lanes(0), std::invalid_argument); }

}  // namespace
}  // namespace lockstep::kernel_test
