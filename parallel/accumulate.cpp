#include "parallel/accumulate.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

namespace lockstep {
namespace {

using Node = std::pair<i64, i64>;  // [first, second)

// The path from the root [0, total) down to the leaf of a sample, leaf first.
std::vector<Node> path_of(i64 sample, i64 total) {
  std::vector<Node> path;
  Node node{0, total};
  for (;;) {
    path.push_back(node);
    if (node.second - node.first == 1) break;
    const i64 mid = node.first + (node.second - node.first) / 2;
    (sample < mid ? node.second : node.first) = mid;
  }
  std::reverse(path.begin(), path.end());
  return path;
}

Node sibling(const Node& child, const Node& parent) {
  return child.first == parent.first ? Node{child.second, parent.second} : Node{parent.first, child.first};
}

}  // namespace

Accumulation::Accumulation(const std::vector<i64>& arrivals, i64 total) {
  first_ = *std::min_element(arrivals.begin(), arrivals.end());
  by_sample_.resize(arrivals.size());
  std::map<Node, int> waiting;  // complete partial sums and the slot each is in
  std::vector<bool> used;
  for (const i64 sample : arrivals) {
    Arrival& arrival = by_sample_.at(sample - first_);
    const std::vector<Node> path = path_of(sample, total);
    std::size_t up = 0;
    auto partner = [&] {
      return up + 1 < path.size() ? waiting.find(sibling(path[up], path[up + 1])) : waiting.end();
    };
    int slot;
    if (auto other = partner(); other != waiting.end()) {
      arrival.add = true;
      slot = other->second;
      waiting.erase(other);
      ++up;
    } else {
      slot = static_cast<int>(std::find(used.begin(), used.end(), false) - used.begin());
      if (slot == static_cast<int>(used.size())) used.push_back(false);
      used[slot] = true;
    }
    arrival.slot = slot;
    for (auto other = partner(); other != waiting.end(); other = partner()) {
      const int into = std::min(slot, other->second), from = std::max(slot, other->second);
      arrival.merges.emplace_back(into, from);
      used[from] = false;
      slot = into;
      waiting.erase(other);
      ++up;
    }
    waiting[path[up]] = slot;
  }
  if (waiting.size() != 1 || waiting.begin()->second != 0)
    throw std::logic_error("a rank's samples are not one block of the tree");
  slots_ = static_cast<int>(used.size());
}

Accumulation Accumulation::in_one_slot(const std::vector<i64>& arrivals) {
  Accumulation sum;
  sum.first_ = *std::min_element(arrivals.begin(), arrivals.end());
  sum.by_sample_.resize(arrivals.size(), {.slot = 0, .add = true, .merges = {}});
  sum.by_sample_.at(arrivals.front() - sum.first_).add = false;
  sum.slots_ = 1;
  return sum;
}

const Accumulation::Arrival& Accumulation::at(i64 sample) const { return by_sample_.at(sample - first_); }

}  // namespace lockstep
