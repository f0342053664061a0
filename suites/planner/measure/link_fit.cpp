#include "suites/planner/measure/link_fit.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include "suites/planner/measure/rates.hpp"

namespace lockstep {
namespace {

double seconds_with(const LinkSample& s, double latency, double bandwidth) {
  Cluster c;
  c.node.latency = c.network.latency = latency, c.node.bandwidth = c.network.bandwidth = bandwidth;
  return collective_seconds(s.verb, s.bytes, s.placed, c);
}

constexpr double kSlowest = 1, kFastest = 1e18;  // bytes a second

// How often a message pays the latency.
double hops(const LinkSample& s) { return seconds_with(s, 1, kFastest); }

// The bandwidth with which it takes so long; 0: latency is most of that, and says nothing of bandwidth.
double bandwidth_of(const LinkSample& s, double latency) {
  if (s.seconds < 1.2 * seconds_with(s, latency, kFastest)) return 0;
  double low = kSlowest, high = kFastest;  // by halves of the exponent
  for (int i = 0; i < 100; ++i) {
    const double middle = std::sqrt(low * high);
    (seconds_with(s, latency, middle) > s.seconds ? low : high) = middle;
  }
  return low;
}

struct Mean {  // geometric
  double logarithms = 0;
  int number = 0;
  void add(double x) {
    if (x > 0) logarithms += std::log(x), ++number;
  }
  double value() const { return number ? std::exp(logarithms / number) : 0; }
};

bool is_half(Verb verb) { return verb == Verb::reduce_scatter || verb == Verb::all_gather; }

// The rates of some messages by nodes, as parts of those of the fewest.
Curve left_by_nodes(const std::map<i64, Mean>& rates) {
  std::vector<std::pair<double, double>> points{{1.0, 1.0}};
  const double first = rates.empty() ? 0 : rates.begin()->second.value();
  for (const auto& [nodes, mean] : rates)
    if (first > 0 && mean.number > 0) points.emplace_back(nodes, std::min(1.0, mean.value() / first));
  return points.size() > 2 ? Curve(points) : Curve();
}

}  // namespace

Link link_of(const std::vector<LinkSample>& samples) {
  if (samples.empty()) throw std::logic_error("a link without measurements");
  double smallest = samples[0].bytes, largest = samples[0].bytes;
  i64 fewest = samples[0].placed.nodes;
  for (const LinkSample& s : samples) {
    smallest = std::min(smallest, s.bytes), largest = std::max(largest, s.bytes);
    fewest = std::min(fewest, s.placed.nodes);
  }
  Link link;
  link.latency = std::numeric_limits<double>::infinity();
  for (const LinkSample& s : samples)
    if (s.bytes == smallest && s.placed.nodes == fewest)
      link.latency = std::min(link.latency, s.seconds / hops(s));

  std::map<double, Mean> by_bytes;
  std::map<i64, Mean> whole, halves;  // of the largest, by nodes
  for (const LinkSample& s : samples) {
    const double rate = bandwidth_of(s, link.latency);
    if (s.placed.nodes == fewest) by_bytes[s.bytes].add(rate);
    if (s.bytes == largest) (is_half(s.verb) ? halves : whole)[s.placed.nodes].add(rate);
  }
  std::vector<std::pair<double, double>> rates;
  for (const auto& [bytes, mean] : by_bytes)
    if (mean.number > 0) rates.emplace_back(bytes, mean.value());
  set_rates(link, Curve(rates));
  link.by_nodes = left_by_nodes(whole), link.halves_by_nodes = left_by_nodes(halves);
  return link;
}

}  // namespace lockstep
