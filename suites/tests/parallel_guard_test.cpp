// Guarded buffers: filled with NaN at every take, out of reach before, behind and after, in the first run of
// a process and in those that take what others have left.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "parallel/device/memory.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

const i64 kPage = sysconf(_SC_PAGESIZE);

float* floats(void* at) { return static_cast<float*>(at); }

// Sizes within a page, of whole pages and between.
class Guarded : public testing::TestWithParam<i64> {
 protected:
  static bool all_nan(const float* x, i64 bytes) {
    for (i64 i = 0; i < bytes / 4; ++i)
      if (!std::isnan(x[i])) return false;
    return true;
  }
  static void fill(float* x, i64 bytes) { std::fill_n(x, bytes / 4, 1.0f); }
  const i64 bytes_ = GetParam();
};
INSTANTIATE_TEST_SUITE_P(Sizes, Guarded, testing::Values(4, 64, kPage - 4, kPage, kPage + 4, 5 * kPage));

volatile float sink;
void read(const float* at) { sink = *at; }
void write(float* at) { *const_cast<volatile float*>(at) = 1; }

TEST_P(Guarded, AreNotANumberAtEveryTake) {
  for (int run = 0; run < 3; ++run) {
    GuardPlacer guard;
    for (int take = 0; take < 40; ++take) {
      float* x = floats(guard.take(bytes_));
      ASSERT_TRUE(all_nan(x, bytes_)) << run << " " << take;
      fill(x, bytes_);
      guard.give(x, bytes_);
    }
    EXPECT_EQ(guard.peak(), bytes_);
  }
}

// A run before has left its buffers, which this one takes; and one that takes new ones behaves alike.
TEST_P(Guarded, AreOutOfReachAroundAndAfterwards) {
  for (int run = 0; run < 2; ++run) {
    GuardPlacer guard;
    float* x = floats(guard.take(bytes_));
    write(x), write(x + bytes_ / 4 - 1);
    EXPECT_DEATH(read(x + bytes_ / 4), "") << "behind";
    EXPECT_DEATH(write(x + bytes_ / 4), "") << "behind";
    const i64 body = (bytes_ + kPage - 1) / kPage * kPage;
    EXPECT_DEATH(read(x + bytes_ / 4 - body / 4 - 1), "") << "before the first page";
    guard.give(x, bytes_);
    EXPECT_DEATH(read(x), "") << "after its release";
    EXPECT_DEATH(write(x), "") << "after its release";
  }
}

TEST_P(Guarded, StayOutOfReachWhenTheirRunIsOver) {
  float* x;
  {
    GuardPlacer guard;
    x = floats(guard.take(bytes_));
    guard.give(x, bytes_);
  }
  EXPECT_DEATH(read(x), "");
}

// What still points to one does not soon meet another.
TEST_P(Guarded, RestBeforeTheyAreTakenAgain) {
  for (int run = 0; run < 2; ++run) {
    GuardPlacer guard;
    std::set<void*> last;
    for (int take = 0; take < 8; ++take) {
      void* x = guard.take(bytes_);
      EXPECT_TRUE(last.insert(x).second) << take;
      guard.give(x, bytes_);
    }
  }
}

// A peer may still read what a rank that has ended had.
TEST(Guard, NobodyGetsWhatARankHadWhileAnotherIsLeft) {
  GuardPlacer peer;
  std::set<void*> had;
  {
    GuardPlacer ended;
    for (int i = 0; i < 20; ++i) had.insert(ended.take(72));
    for (void* x : had) ended.give(x, 72);
  }
  GuardPlacer next;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(had.count(next.take(72)), 0u);
  EXPECT_DEATH(read(floats(*had.begin())), "");
}

// A process has so many mappings: those that rest are given up for those that are asked for.
TEST(Guard, WhatRestsTakesNoRoomFromWhatIsAskedFor) {
  i64 most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  if (most < 1 || most > 100000) GTEST_SKIP() << "no limit on mappings that is soon met: " << most;
  const auto as_many_as_there_are = [&] {
    GuardPlacer guard;
    std::vector<void*> all;
    try {
      for (;;) all.push_back(guard.take(kPage + 4));
    } catch (const OutOfMemory&) {
    }
    for (void* x : all) guard.give(x, kPage + 4);
    return all.size();
  };
  const std::size_t at_first = as_many_as_there_are();
  {
    GuardPlacer guard;
    std::vector<void*> all;
    for (int i = 0; i < 8000; ++i) all.push_back(guard.take(64));
    for (void* x : all) guard.give(x, 64);
  }
  EXPECT_NEAR(static_cast<double>(as_many_as_there_are()), static_cast<double>(at_first), 100);
  EXPECT_GT(at_first, 10000u);
}

TEST(Guard, BuffersThatAreAliveTogetherAreApart) {
  GuardPlacer one, other;  // of two ranks
  std::set<void*> all;
  for (int i = 0; i < 20; ++i) all.insert(one.take(64)), all.insert(other.take(64));
  EXPECT_EQ(all.size(), 40u);
  EXPECT_EQ(one.peak(), 20 * 64);
}

}  // namespace
}  // namespace lockstep
