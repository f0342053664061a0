#include "suites/planner/published/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lockstep {

double mean_of(const std::vector<double>& x) {
  return x.empty() ? 0 : std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double median_of(std::vector<double> x) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  const std::size_t half = x.size() / 2;
  return x.size() % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
}

double largest_of(const std::vector<double>& x) {
  return x.empty() ? 0 : *std::max_element(x.begin(), x.end());
}

namespace {

std::vector<double> ranks(const std::vector<double>& x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  std::vector<double> rank(x.size());
  for (std::size_t from = 0, to; from < order.size(); from = to) {
    for (to = from; to < order.size() && x[order[to]] == x[order[from]];) ++to;
    for (std::size_t i = from; i < to; ++i) rank[order[i]] = static_cast<double>(from + to - 1) / 2;
  }
  return rank;
}

}  // namespace

double rank_correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const std::vector<double> a = ranks(x), b = ranks(y);
  const double middle = (static_cast<double>(x.size()) - 1) / 2;
  double together = 0, of_a = 0, of_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    together += (a[i] - middle) * (b[i] - middle);
    of_a += (a[i] - middle) * (a[i] - middle), of_b += (b[i] - middle) * (b[i] - middle);
  }
  return of_a > 0 && of_b > 0 ? together / std::sqrt(of_a * of_b) : 0;
}

double regret(const std::vector<double>& predicted, const std::vector<double>& published) {
  if (predicted.empty()) return 0;
  const auto taken = std::max_element(predicted.begin(), predicted.end()) - predicted.begin();
  return 1 - published[static_cast<std::size_t>(taken)] / largest_of(published);
}

void Detection::add(bool said, bool so) { right += said && so, wrong += said && !so, missed += !said && so; }
double Detection::precision() const {
  return right + wrong ? static_cast<double>(right) / static_cast<double>(right + wrong) : 1;
}
double Detection::recall() const {
  return right + missed ? static_cast<double>(right) / static_cast<double>(right + missed) : 1;
}

namespace {

double layer_flops(const CountedModel& m, double sequences) {  // of all layers' forward
  const double weights =
      2 * m.hidden * m.hidden + 2 * m.hidden * m.kv_width + m.mlp_matmuls * m.hidden * m.ffn;
  return m.layers * (2 * sequences * m.seq * weights + 4 * sequences * m.seq * m.seq * m.hidden);
}

}  // namespace

double counted_flops(const CountedModel& m, double sequences) {
  return 3 * layer_flops(m, sequences) + 6 * sequences * m.seq * m.hidden * m.vocab;
}

double recomputed_flops(const CountedModel& m, double sequences, Recomputed what) {
  return what == Recomputed::layers      ? layer_flops(m, sequences)
         : what == Recomputed::attention ? 4 * m.layers * sequences * m.seq * m.seq * m.hidden
                                         : 0;
}

}  // namespace lockstep
