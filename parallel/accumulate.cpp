#include "parallel/accumulate.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

namespace lockstep {
namespace {

using Node = Accumulation::Node;

// The path from the root [0, total) down to a node, the node first.
std::vector<Node> path_of(const Node& node, i64 total) {
  std::vector<Node> path{{0, total}};
  while (path.back() != node) {
    Node next = path.back();
    const i64 mid = next.first + (next.last - next.first) / 2;
    (node.first < mid ? next.last : next.first) = mid;
    if (node.first >= node.last || node.first < next.first || node.last > next.last)
      throw std::logic_error("an arriving sum is no node of the tree");
    path.push_back(next);
  }
  std::reverse(path.begin(), path.end());
  return path;
}

Node sibling(const Node& child, const Node& parent) {
  return child.first == parent.first ? Node{child.last, parent.last} : Node{parent.first, child.first};
}

std::vector<Node> single(const std::vector<i64>& samples) {
  std::vector<Node> nodes;
  for (const i64 s : samples) nodes.push_back({s, s + 1});
  return nodes;
}

}  // namespace

Accumulation::Accumulation(const std::vector<Node>& arrivals, i64 total, bool fast) {
  const auto [first, last] = std::minmax_element(arrivals.begin(), arrivals.end());
  first_ = first->first;
  by_sample_.resize(last->first - first_ + 1);
  if (fast) {
    for (const Node& node : arrivals) by_sample_[node.first - first_].add = node != arrivals.front();
    sums_ = {{first->first, last->last}};
    slots_ = 1;
    return;
  }
  std::map<Node, int> waiting;  // complete partial sums and the slot each is in
  std::vector<bool> used;
  for (const Node& node : arrivals) {
    Arrival& arrival = by_sample_.at(node.first - first_);
    const std::vector<Node> path = path_of(node, total);
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
  slots_ = static_cast<int>(used.size());
  for (const auto& [node, slot] : waiting) {
    if (slot != static_cast<int>(sums_.size()))
      throw std::logic_error("partial sums that remain do not lie in order");
    sums_.push_back(node);
  }
}

Accumulation::Accumulation(const std::vector<i64>& samples, i64 total, bool fast)
    : Accumulation(single(samples), total, fast) {
  if (sums_.size() != 1) throw std::logic_error("a rank's samples are not one block of the tree");
}

const Accumulation::Arrival& Accumulation::at(i64 first) const { return by_sample_.at(first - first_); }

}  // namespace lockstep
