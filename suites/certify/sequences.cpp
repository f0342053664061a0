#include "suites/certify/sequences.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "ref/trainer.hpp"

namespace lockstep {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

constexpr i64 kMostSequences = 256;  // unknowns of the least squares
// Numbers of a tensor for each of them, and how well a count must be known, to say anything.
constexpr i64 kNumbersForEach = 8;
constexpr double kBlur = 0.05;
constexpr double kMostBytes = 0x1p30;  // of one tensor's gradients of all sequences

// What one sequence adds to the batch's gradient, in float64.
class Parts {
 public:
  Parts(const ModelConfig& model, const Settings& settings, const WrongStep& step, int threads)
      : step_(step),
        seq_(settings.seq),
        lanes_(threads),
        trainer_(model, alone(settings), double_ops(), lanes_) {
    for (i64 s = 0; s < settings.batch; ++s)
      valid_.push_back(static_cast<double>(
          std::count_if(labels(s), labels(s) + seq_, [](i32 label) { return label >= 0; })));
    all_ = std::accumulate(valid_.begin(), valid_.end(), 0.0);
  }

  // Of each sequence: the part of the batch's labels that count.
  double share(i64 s) const { return valid_[static_cast<std::size_t>(s)] / all_; }

  // The sequence's part, of any parameter, until the next one is asked for. It has a label that counts.
  void of(i64 s) {
    for (std::size_t i = 0; i < trainer_.params().size(); ++i)  // AdamW has changed them
      if (!step_.before[i].empty()) trainer_.load(trainer_.params()[i].name, step_.before[i].data());
    trainer_.step(step_.tokens.data() + s * seq_, labels(s));
  }
  const Vector& unscaled(std::size_t param) const { return trainer_.gradient(static_cast<int>(param)); }

 private:
  static Settings alone(Settings settings) {
    settings.batch = 1;
    return settings;
  }
  const i32* labels(i64 s) const { return step_.labels.data() + s * seq_; }

  const WrongStep& step_;
  const i64 seq_;
  Lanes lanes_;
  Trainer<double> trainer_;
  Vector valid_;  // labels that count, by sequence
  double all_ = 0;
};

// x of A x = b, for each b, A symmetric; nothing where A is not positive definite (Cholesky).
std::optional<std::vector<Vector>> solve(std::vector<Vector> a, std::vector<Vector> right) {
  const std::size_t n = a.size();
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    if (!(a[j][j] > 0)) return {};
    a[j][j] = std::sqrt(a[j][j]);
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (Vector& b : right) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
      b[i] /= a[i][i];
    }
    for (std::size_t i = n; i-- > 0;) {
      for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
      b[i] /= a[i][i];
    }
  }
  return right;
}

// How often a sequence counts, and how well that is known.
struct Count {
  double times, blur;
  bool is(double other, double its_blur = 0) const {
    return std::abs(times - other) <= blur + its_blur + 1e-4 * std::abs(other);
  }
};

// A mean of k means: each of sequences in a row, or of every kth.
std::string mean_of_means(const std::vector<i64>& sequences, const std::vector<Count>& counts,
                          const Parts& parts, i64 batch) {
  for (i64 k = 2; k <= batch; ++k) {
    if (batch % k) continue;
    for (const bool in_a_row : {true, false}) {
      const i64 size = batch / k;
      const auto group = [&](i64 s) { return static_cast<std::size_t>(in_a_row ? s / size : s % k); };
      Vector share(static_cast<std::size_t>(k));
      for (const i64 s : sequences) share[group(s)] += parts.share(s);
      bool all = true;
      for (std::size_t i = 0; i < counts.size() && all; ++i)
        all = counts[i].is(1 / (static_cast<double>(k) * share[group(sequences[i])]));
      if (!all) continue;
      return fmt::format("a mean of {} means, each of {}", k,
                         size == 1  ? "one sequence"
                         : in_a_row ? fmt::format("{} sequences in a row", size)
                                    : fmt::format("sequences {} apart", k));
    }
  }
  return {};
}

std::string said(const Count& count) {
  if (count.is(0)) return "not counted";
  if (count.is(1)) return "counted once";
  if (count.is(2)) return "counted twice";
  return fmt::format("counted {:.3g} times", count.times);
}

// "sequences 0 to 3 counted 0.8 times, ..." of those that do not count once.
std::string listed(const std::vector<i64>& sequences, const std::vector<Count>& counts) {
  constexpr std::size_t kMost = 4;
  std::vector<std::string> runs;
  for (std::size_t i = 0, end = 0; i < counts.size(); i = end) {
    for (end = i + 1; end < counts.size() && counts[end].is(counts[i].times, counts[i].blur); ++end) {
    }
    if (counts[i].is(1)) continue;
    runs.push_back(end - i == 1 ? fmt::format("sequence {} {}", sequences[i], said(counts[i]))
                                : fmt::format("sequences {} to {} {}", sequences[i], sequences[end - 1],
                                              said(counts[i])));
  }
  const std::size_t more = runs.size() - std::min(runs.size(), kMost);
  runs.resize(runs.size() - more);
  return fmt::format("{}{}", fmt::join(runs, ", "), more ? fmt::format(" and {} more", more) : "");
}

}  // namespace

std::string counted_otherwise(const ModelConfig& model, const Settings& settings, const WrongStep& step,
                              int threads) {
  if (settings.batch < 2 || settings.batch > kMostSequences) return {};
  // The largest gradient there is room for: the more numbers, the less is rounding.
  const auto size = [&](std::size_t beyond) {
    return static_cast<i64>(step.gradient[step.beyond[beyond]].size());
  };
  std::optional<std::size_t> chosen;
  for (std::size_t i = 0; i < step.beyond.size(); ++i)
    if (size(i) >= kNumbersForEach * settings.batch && 8.0 * size(i) * settings.batch <= kMostBytes &&
        (!chosen || size(i) > size(*chosen)))
      chosen = i;
  if (!chosen) return {};
  const std::size_t param = step.beyond[*chosen];
  const Vector found(step.gradient[param].begin(), step.gradient[param].end());

  Parts parts(model, settings, step, threads);
  std::vector<i64> sequences;
  std::vector<Vector> basis;  // of each sequence that counts: its part of that gradient
  for (i64 s = 0; s < settings.batch; ++s) {
    if (parts.share(s) == 0) continue;
    parts.of(s);
    sequences.push_back(s);
    basis.emplace_back(parts.unscaled(param).begin(),
                       parts.unscaled(param).begin() + static_cast<i64>(found.size()));
    for (double& x : basis.back()) x *= parts.share(s);
  }
  const std::size_t n = sequences.size();
  std::vector<Vector> gram(n, Vector(n)), right(n + 1, Vector(n));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) gram[i][j] = gram[j][i] = dot(basis[i], basis[j]);
    right[n][i] = dot(basis[i], found);
    right[i][i] = 1;  // whose solutions are the inverse
  }
  const std::optional<std::vector<Vector>> solved = solve(gram, right);
  if (!solved) return {};
  const Vector& times = solved->back();
  Vector left = found;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t e = 0; e < left.size(); ++e) left[e] -= times[i] * basis[i][e];
  // What is left is rounding, of which little has a sequence's direction: at most half, by experience.
  const double rounding = std::sqrt(dot(left, left)) / 2;
  std::vector<Count> counts;
  for (std::size_t i = 0; i < n; ++i) counts.push_back({times[i], rounding * std::sqrt((*solved)[i][i])});
  const Count& first = counts.front();
  if (std::any_of(counts.begin(), counts.end(), [](const Count& c) { return !(c.blur <= kBlur); }) ||
      std::all_of(counts.begin(), counts.end(),
                  [&](const Count& c) { return c.is(first.times, first.blur); }))
    return {};

  std::vector<Vector> rest;  // of each gradient beyond: what those counts leave
  for (const std::size_t p : step.beyond) rest.emplace_back(step.gradient[p].begin(), step.gradient[p].end());
  for (std::size_t i = 0; i < n; ++i) {
    parts.of(sequences[i]);
    const double weight = counts[i].times * parts.share(sequences[i]);
    for (std::size_t b = 0; b < rest.size(); ++b)
      for (std::size_t e = 0; e < rest[b].size(); ++e)
        rest[b][e] -= weight * parts.unscaled(step.beyond[b])[e];
  }
  for (std::size_t b = 0; b < rest.size(); ++b)
    if (!(std::sqrt(dot(rest[b], rest[b])) <= 2 * step.allowed[b])) return {};
  const std::string means = mean_of_means(sequences, counts, parts, settings.batch);
  return means.empty() ? listed(sequences, counts) : means;
}

}  // namespace lockstep
