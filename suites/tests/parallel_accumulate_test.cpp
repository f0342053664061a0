// Whatever order gradients come in, the sum is the one tree; expected sums are written out as text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include "parallel/accumulate.hpp"
#include "parallel/price/price.hpp"

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

using Node = Accumulation::Node;

// What is in the slots at the end.
std::vector<std::string> play(const Accumulation& sums, const std::vector<Node>& arrivals) {
  std::vector<std::string> slot(sums.slots());
  for (const Node& node : arrivals) {
    const Accumulation::Arrival& a = sums.at(node.first);
    const std::string sum = tree(node.first, node.last);
    slot.at(a.slot) = a.add ? add(slot[a.slot], sum) : sum;
    for (const auto& [into, from] : a.merges) slot.at(into) = add(slot[into], slot.at(from));
  }
  return slot;
}

std::string play(const Accumulation& sums, const std::vector<i64>& samples) {
  std::vector<Node> arrivals;
  for (const i64 s : samples) arrivals.push_back({s, s + 1});
  return play(sums, arrivals).at(0);
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

// All nodes of the tree over [lo, hi).
void all_nodes(i64 lo, i64 hi, std::vector<Node>& nodes) {
  nodes.push_back({lo, hi});
  if (hi - lo == 1) return;
  all_nodes(lo, lo + (hi - lo) / 2, nodes), all_nodes(lo + (hi - lo) / 2, hi, nodes);
}

// Brute force: of the nodes whose samples are all there, those that no other one contains.
std::vector<Node> largest(const std::vector<bool>& there) {
  std::vector<Node> nodes, whole;
  all_nodes(0, static_cast<i64>(there.size()), nodes);
  std::erase_if(nodes, [&](const Node& n) {
    return std::find(there.begin() + n.first, there.begin() + n.last, false) != there.begin() + n.last;
  });
  for (const Node& n : nodes)
    if (std::none_of(nodes.begin(), nodes.end(),
                     [&](const Node& o) { return o != n && o.first <= n.first && n.last <= o.last; }))
      whole.push_back(n);
  std::sort(whole.begin(), whole.end());
  return whole;
}

TEST(Accumulation, AddsUpSumsThatAreNodes) {
  EXPECT_EQ(play(Accumulation(std::vector<Node>{{0, 1}, {1, 3}, {3, 6}}, 6), {{0, 1}, {1, 3}, {3, 6}}).at(0),
            "((0+(1+2))+(3+(4+5)))");
  EXPECT_EQ(play(Accumulation(std::vector<Node>{{3, 6}, {1, 3}, {0, 1}}, 6), {{3, 6}, {1, 3}, {0, 1}}).at(0),
            "((0+(1+2))+(3+(4+5)))");
}

// What a rank sends of its block, and what an owner makes of all ranks' blocks, whatever the order of
// microbatches. Between them the formulas: as many slots, as many sums.
TEST(Accumulation, OfBlocksThatAreNoSubtreesIsTheTree) {
  for (const i64 n : {1, 2, 3, 5, 6, 7, 8, 12, 20, 24, 36, 40, 56})
    for (i64 block = 1; block <= n; ++block) {
      if (n % block) continue;
      std::vector<std::vector<Node>> sent;
      i64 most_slots = 0, most_sums = 0;
      for (i64 lo = 0; lo < n; lo += block) {
        std::vector<Node> samples;
        std::vector<bool> there(n);
        for (i64 s = lo; s < lo + block; ++s) samples.push_back({s, s + 1}), there[s] = true;
        const Accumulation part(samples, n);
        EXPECT_EQ(part.sums(), largest(there));
        const std::vector<std::string> slots = play(part, samples);
        for (std::size_t k = 0; k < part.sums().size(); ++k)
          EXPECT_EQ(slots.at(k), tree(part.sums()[k].first, part.sums()[k].last));
        sent.push_back(part.sums());
        most_slots = std::max<i64>(most_slots, part.slots());
        most_sums = std::max<i64>(most_sums, part.sums().size());
      }
      EXPECT_EQ(block_slots(n, block), most_slots) << n << " in blocks of " << block;
      EXPECT_EQ(block_sums(n, block), most_sums) << n << " in blocks of " << block;
      for (std::size_t ranks = 1; ranks <= sent.size(); ++ranks) {
        if (sent.size() % ranks) continue;
        for (const bool reversed : {false, true}) {
          std::vector<Node> arrivals;
          for (std::size_t k = 0; k < sent.size(); ++k) {
            const std::size_t j = k / ranks, run = reversed ? sent.size() / ranks - 1 - j : j;
            const auto& nodes = sent[run * ranks + k % ranks];
            arrivals.insert(arrivals.end(), nodes.begin(), nodes.end());
          }
          const Accumulation sums(arrivals, n);
          EXPECT_EQ(play(sums, arrivals).at(0), tree(0, n));
          EXPECT_EQ(tree_slots(n, static_cast<i64>(ranks) * block, block, reversed), sums.slots())
              << n << " in blocks of " << block << " on " << ranks << " ranks"
              << (reversed ? " reversed" : "");
        }
      }
    }
}

// Sums as they come where the samples are `parts` equal stretches of the tree and a microbatch has a run of
// each, first part first, each run block by block.
std::vector<Node> in_parts(i64 n, i64 parts, i64 run, i64 block, bool reversed) {
  const i64 part = n / parts;
  std::vector<Node> arrivals;
  for (i64 turn = 0; turn < part / run; ++turn)
    for (i64 k = 0; k < parts; ++k)
      for (i64 at = 0; at < run; at += block) {
        const i64 j = reversed ? part / run - 1 - turn : turn, first = k * part + j * run + at;
        std::vector<bool> there(static_cast<std::size_t>(n));
        std::fill_n(there.begin() + first, block, true);
        for (const Node& node : largest(there)) arrivals.push_back(node);
      }
  return arrivals;
}
Additions added_by(const Accumulation& sums, const std::vector<Node>& arrivals) {
  Additions all;
  for (const Node& node : arrivals) {
    const Accumulation::Arrival& a = sums.at(node.first);
    ++(a.add ? all.joined : all.begun);
    all.merged += static_cast<i64>(a.merges.size());
  }
  return all;
}

TEST(Accumulation, OfSegmentsOfSequencesIsTheTree) {
  int cases = 0;
  for (const i64 parts : {1, 2, 4})
    for (const i64 part : {1, 2, 3, 4, 6, 8, 12})
      for (i64 run = 1; run <= part; ++run)
        for (i64 block = 1; block <= run; ++block)
          for (const bool reversed : {false, true}) {
            if (part % run != 0 || run % block != 0) continue;
            ++cases;
            const i64 n = parts * part;
            SCOPED_TRACE(testing::Message() << parts << " parts of " << part << ", runs of " << run
                                            << ", blocks of " << block << (reversed ? ", reversed" : ""));
            const std::vector<Node> arrivals = in_parts(n, parts, run, block, reversed);
            const Accumulation sums(arrivals, n);
            EXPECT_EQ(play(sums, arrivals).at(0), tree(0, n));
            EXPECT_EQ(tree_slots(n, parts * run, block, reversed, parts), sums.slots());
            const Additions counted = added_by(sums, arrivals),
                            stated = tree_additions(n, parts * run, block, reversed, parts);
            EXPECT_EQ(stated.joined, counted.joined);
            EXPECT_EQ(stated.begun, counted.begun);
            EXPECT_EQ(stated.merged, counted.merged);
          }
  EXPECT_GT(cases, 200);
}

TEST(Accumulation, FormulasOfSingleSamplesAreLogarithms) {
  for (i64 n = 1; n <= 64; ++n) {
    const int floor = static_cast<int>(std::floor(std::log2(n))),
              ceil = static_cast<int>(std::ceil(std::log2(n)));
    EXPECT_EQ(tree_slots(n, 1, 1, false), std::max(1, ceil)) << n;
    EXPECT_EQ(tree_slots(n, 1, 1, true), std::max(1, floor)) << n;
  }
}

TEST(Accumulation, RefusesWhatIsNoNodeOfTheTree) {
  EXPECT_THROW(Accumulation(std::vector<Node>{{1, 3}}, 4), std::logic_error);
  EXPECT_THROW(Accumulation(std::vector<Node>{{0, 5}}, 4), std::logic_error);
  EXPECT_THROW(Accumulation(std::vector<Node>{{2, 2}}, 4), std::logic_error);
  EXPECT_THROW(Accumulation(std::vector<Node>{{3, 4}, {0, 1}}, 4), std::logic_error);  // remain out of order
}

TEST(Accumulation, RefusesSamplesThatAreNoSubtree) {
  EXPECT_THROW(Accumulation(range(1, 3), 4), std::logic_error);
  EXPECT_THROW(Accumulation({0, 1, 2}, 4), std::logic_error);
}

// By hand, on the tree over 6 samples: ((0 (1 2)) (3 (4 5))).
TEST(Additions, AreThoseOfTheTree) {
  const auto text = [](const Additions& a) {
    return std::to_string(a.joined) + " joined, " + std::to_string(a.begun) + " begun, " +
           std::to_string(a.merged) + " merged";
  };
  // In order 2 finds 1 waiting and 5 finds 4; then 0 with (1 2), 3 with (4 5), and the halves.
  EXPECT_EQ(text(tree_additions(6, 1, 1, false)), "2 joined, 4 begun, 3 merged");
  // In reverse 4 finds 5, 3 finds (4 5), 1 finds 2, 0 finds (1 2); then the halves.
  EXPECT_EQ(text(tree_additions(6, 1, 1, true)), "4 joined, 2 begun, 1 merged");
  // Microbatches of 3 are halves, and arrive as one sum each.
  EXPECT_EQ(text(tree_additions(6, 3, 3, false)), "1 joined, 1 begun, 0 merged");
  // Microbatches of 2 arrive as 0, 1 | 2, 3 | (4 5).
  EXPECT_EQ(text(tree_additions(6, 2, 2, false)), "2 joined, 3 begun, 2 merged");
  // Two segments of two sequences, a sequence at a time: 0, 2 | 1, 3, where 0 and 1, 2 and 3 are neighbours.
  EXPECT_EQ(text(tree_additions(4, 2, 1, false, 2)), "2 joined, 2 begun, 1 merged");
  EXPECT_EQ(tree_slots(4, 2, 1, false, 2), 2);
  // Of four sequences, two at a time: 0, 1, 4, 5 | 2, 3, 6, 7; when 2 has come, (0 1) and (4 5) wait.
  EXPECT_EQ(text(tree_additions(8, 4, 1, false, 2)), "4 joined, 4 begun, 3 merged");
  EXPECT_EQ(tree_slots(8, 4, 1, false, 2), 3);
  // Four segments of one sequence, all at once.
  EXPECT_EQ(text(tree_additions(4, 4, 1, false, 4)), "2 joined, 2 begun, 1 merged");
  // Of samples 1, 2, 3 alone: 2 finds 1; 3 waits for others.
  EXPECT_EQ(text(block_additions(6, 1, 4)), "1 joined, 2 begun, 0 merged");
  EXPECT_EQ(text(plain_additions(5)), "4 joined, 1 begun, 0 merged");
}

}  // namespace
}  // namespace lockstep
