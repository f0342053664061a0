// Whatever order gradients come in, the sum is the one tree; expected sums are written out as text.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include "parallel/accumulate.hpp"

namespace lockstep {
namespace {

std::string tree(i64 lo, i64 hi) {
  if (hi - lo == 1) return std::to_string(lo);
  const i64 mid = lo + (hi - lo) / 2;
  return "(" + tree(lo, mid) + "+" + tree(mid, hi) + ")";
}

// a + b = b + a, so a sum is written with its smaller first sample first.
std::string add(const std::string& a, const std::string& b) {
  auto first = [](const std::string& s) { return std::stoi(s.substr(s.find_first_not_of('('))); };
  return first(a) < first(b) ? "(" + a + "+" + b + ")" : "(" + b + "+" + a + ")";
}

std::string play(const Accumulation& sums, const std::vector<i64>& arrivals) {
  std::vector<std::string> slot(sums.slots());
  for (const i64 sample : arrivals) {
    const Accumulation::Arrival& a = sums.at(sample);
    const std::string leaf = std::to_string(sample);
    slot.at(a.slot) = a.add ? add(slot[a.slot], leaf) : leaf;
    for (const auto& [into, from] : a.merges) slot.at(into) = add(slot[into], slot.at(from));
  }
  return slot.at(0);
}

std::vector<i64> range(i64 lo, i64 hi) {
  std::vector<i64> v(hi - lo);
  std::iota(v.begin(), v.end(), lo);
  return v;
}

TEST(Accumulation, IsTheTreeInOrderInReverseAndShuffled) {
  std::mt19937 random(1);
  for (i64 n = 1; n <= 33; ++n) {
    std::vector<i64> order = range(0, n);
    EXPECT_EQ(play(Accumulation(order, n), order), tree(0, n));
    std::reverse(order.begin(), order.end());
    EXPECT_EQ(play(Accumulation(order, n), order), tree(0, n));
    std::shuffle(order.begin(), order.end(), random);
    EXPECT_EQ(play(Accumulation(order, n), order), tree(0, n));
  }
}

TEST(Accumulation, BlockOfAReplicaIsItsSubtree) {
  for (const i64 dp : {2, 4, 8})
    for (const i64 each : {1, 2, 3, 5, 6})
      for (i64 r = 0; r < dp; ++r) {
        const std::vector<i64> block = range(r * each, (r + 1) * each);
        EXPECT_EQ(play(Accumulation(block, dp * each), block), tree(r * each, (r + 1) * each));
      }
}

TEST(Accumulation, NeedsLogarithmicallyManySlotsInOrder) {
  for (i64 n = 1; n <= 64; ++n) {
    int log2 = 0;
    while ((i64{1} << log2) < n) ++log2;
    EXPECT_EQ(Accumulation(range(0, n), n).slots(), std::max(1, log2)) << n;
  }
}

TEST(Accumulation, RefusesSamplesThatAreNoSubtree) {
  EXPECT_THROW(Accumulation(range(1, 3), 4), std::logic_error);
  EXPECT_THROW(Accumulation({0, 1, 2}, 4), std::logic_error);
}

}  // namespace
}  // namespace lockstep
