#include "suites/certify/sequences.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "ref/trainer.hpp"
#include "suites/certify/sequence_fit.hpp"

namespace lockstep {
namespace {

using Vector = SequenceFit::Vector;

constexpr i64 kMostSequences = 256;  // unknowns of the least squares
// Numbers of a tensor for each of them, and how well a count that is not 1 must be known, to say anything.
constexpr i64 kNumbersForEach = 8;
constexpr double kBlur = 0.05;
// What counts must divide a gradient's distance by to be the reason for it, for bounds of bf16 are wide.
constexpr double kTakes = 2;
constexpr double kMostNumbers = 0x1p33;  // of the model, times sequences: each is trained on by itself, twice
constexpr double kMostBytes = 0x1p30;    // of one tensor's gradients of all sequences

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
    trainer_.load(step_.before);  // AdamW has changed them
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

// Counts that have a reason.
struct Choice {
  std::string text;
  Vector counts;
  double left = 0;  // of the gradient that counts are found by
};

std::string named(const std::vector<i64>& sequences) {
  const std::size_t n = sequences.size();
  if (n == 1) return fmt::format("sequence {}", sequences[0]);
  if (sequences.back() - sequences[0] == static_cast<i64>(n) - 1)
    return fmt::format("sequences {} to {}", sequences[0], sequences.back());
  if (n == 2) return fmt::format("sequences {} and {}", sequences[0], sequences[1]);
  return fmt::format("sequences {}, {}, ..., {}", sequences[0], sequences[1], sequences.back());
}

// A batch in k parts, in a row as microbatches have it, or apart as replicas do: a part is lost, or counted
// twice, or all there is, as where nothing was reduced; or what is averaged are the parts' means. None that
// only changes the length of the whole.
std::vector<Choice> choices(const std::vector<i64>& sequences, const Parts& parts, i64 batch) {
  std::vector<Choice> all;
  for (i64 k = 2; k <= batch; ++k)
    for (const bool in_a_row : {true, false}) {
      const i64 size = batch / k;
      if (batch % k || (size == 1 && !in_a_row)) continue;
      std::vector<std::vector<i64>> members(static_cast<std::size_t>(k));
      Vector share(members.size());
      std::vector<std::size_t> group;  // by sequence that counts
      for (const i64 s : sequences) {
        group.push_back(static_cast<std::size_t>(in_a_row ? s / size : s % k));
        members[group.back()].push_back(s), share[group.back()] += parts.share(s);
      }
      Choice means{fmt::format("a mean of {} means, each of {}", k,
                               size == 1  ? "one sequence"
                               : in_a_row ? fmt::format("{} sequences in a row", size)
                                          : fmt::format("sequences {} apart", k)),
                   {}};
      for (const std::size_t g : group) means.counts.push_back(1 / (static_cast<double>(k) * share[g]));
      all.push_back(std::move(means));
      // times: of the group, and of the others.
      const auto add = [&](std::size_t g, const std::string& text, double its, double others) {
        all.push_back({text, {}});
        for (const std::size_t its_group : group) all.back().counts.push_back(its_group == g ? its : others);
      };
      for (std::size_t g = 0; g < members.size(); ++g) {
        if (members[g].empty()) continue;
        const std::string name = named(members[g]);
        add(g, name + " not counted", 0, 1);
        add(g, name + " counted twice", 2, 1);
        add(g, name + " alone", 1, 0);
        add(g, fmt::format("{} alone, counted {} times", name, k), static_cast<double>(k), 0);
        add(g, "the mean of " + name + " alone", 1 / share[g], 0);
      }
    }
  std::erase_if(all, [](const Choice& choice) {
    const auto [least, most] = std::minmax_element(choice.counts.begin(), choice.counts.end());
    return *most - *least <= 1e-3 * *most;
  });
  return all;
}

// Whether they make every gradient that is beyond its bound what it is. Rounding grows with what is rounded.
bool explain(const Vector& counts, const WrongStep& step, Parts& parts, const std::vector<i64>& sequences) {
  std::vector<Vector> left;
  for (const auto& b : step.beyond)
    left.emplace_back(step.gradient[b.param].begin(), step.gradient[b.param].end());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    parts.of(sequences[i]);
    const double weight = counts[i] * parts.share(sequences[i]);
    for (std::size_t b = 0; b < left.size(); ++b)
      for (std::size_t e = 0; e < left[b].size(); ++e)
        left[b][e] -= weight * parts.unscaled(step.beyond[b].param)[e];
  }
  const double most = std::max(1.0, *std::max_element(counts.begin(), counts.end()));
  for (std::size_t b = 0; b < left.size(); ++b)
    if (!(std::sqrt(std::inner_product(left[b].begin(), left[b].end(), left[b].begin(), 0.0)) <=
          std::min(most * step.beyond[b].allowed, step.beyond[b].off / kTakes)))
      return false;
  return true;
}

// How often a sequence counts, and how well that is known.
struct Count {
  double times, blur;
  bool is(double other, double its_blur = 0) const {
    return std::abs(times - other) <= blur + its_blur + 1e-4 * std::abs(other);
  }
};

std::string said(const Count& count) {
  if (count.is(0)) return "not counted";
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
    const auto at = sequences.begin();
    runs.push_back(named({at + static_cast<i64>(i), at + static_cast<i64>(end)}) + " " + said(counts[i]));
  }
  const std::size_t more = runs.size() - std::min(runs.size(), kMost);
  runs.resize(runs.size() - more);
  return fmt::format("{}{}", fmt::join(runs, ", "), more ? fmt::format(" and {} more", more) : "");
}

// The largest gradient there is room for: the more numbers, the less is rounding. None where nothing is to be
// explained by counts.
std::optional<std::size_t> chosen(const WrongStep& step, i64 batch) {
  std::optional<std::size_t> largest;
  const auto size = [&](std::size_t param) { return static_cast<i64>(step.gradient[param].size()); };
  for (const auto& [param, off, allowed] : step.beyond) {
    if (!std::isfinite(off)) return {};
    if (size(param) >= kNumbersForEach * batch && 8.0 * size(param) * batch <= kMostBytes &&
        (!largest || size(param) > size(*largest)))
      largest = param;
  }
  return largest;
}

}  // namespace

std::string counted_otherwise(const ModelConfig& model, const Settings& settings, const WrongStep& step,
                              int threads) {
  const i64 batch = settings.batch;
  if (batch < 2 || batch > kMostSequences) return {};
  double numbers = 0;
  for (const auto& tensor : step.before) numbers += static_cast<double>(tensor.size());
  const std::optional<std::size_t> param = chosen(step, batch);
  if (!param || numbers * static_cast<double>(batch) > kMostNumbers) return {};
  Parts parts(model, settings, step, threads);
  std::vector<i64> sequences;  // with a label that counts
  for (i64 s = 0; s < batch; ++s)
    if (parts.share(s) > 0) sequences.push_back(s);
  const std::vector<float>& found = step.gradient[*param];
  SequenceFit fit({found.begin(), found.end()});
  for (const i64 s : sequences) {
    parts.of(s);
    const Vector& part = parts.unscaled(*param);  // with padded rows
    Vector scaled(part.begin(), part.begin() + static_cast<i64>(found.size()));
    for (double& x : scaled) x *= parts.share(s);
    fit.add(std::move(scaled));
  }
  const double before = fit.left(Vector(sequences.size(), 1));

  // What a factor explains as well is no matter of sequences.
  const double in_scale = fit.left(Vector(sequences.size(), fit.factor()));
  const auto told = [&](double left) { return left <= std::min(before, in_scale) / kTakes; };

  std::vector<Choice> reasons = choices(sequences, parts, batch);
  for (Choice& choice : reasons) choice.left = fit.left(choice.counts);
  const auto best = std::min_element(reasons.begin(), reasons.end(),
                                     [](const Choice& a, const Choice& b) { return a.left < b.left; });
  // Nor is one of two that explain it alike and are not nearly the same, as where sequences are alike.
  const auto alone = [&](const Choice& choice) {
    return std::none_of(reasons.begin(), reasons.end(), [&](const Choice& other) {
      double apart = 0;
      for (std::size_t i = 0; i < sequences.size(); ++i)
        apart = std::max(apart, std::abs(other.counts[i] - choice.counts[i]));
      return apart > 0.1 && other.left <= 1.5 * choice.left;
    });
  };
  if (best != reasons.end() && told(best->left) && alone(*best) &&
      explain(best->counts, step, parts, sequences))
    return best->text;

  const auto solved = fit.least_squares();
  if (!solved || !told(fit.left(solved->counts))) return {};
  // What is left is rounding, of which little has a sequence's direction: at most half, by experience.
  const double rounding = fit.left(solved->counts) / 2;
  std::vector<Count> counts;
  for (std::size_t i = 0; i < sequences.size(); ++i)
    counts.push_back({solved->counts[i], rounding * std::sqrt(solved->inverse[i])});
  const bool known =
      std::all_of(counts.begin(), counts.end(), [](const Count& c) { return c.blur <= kBlur || c.is(1); });
  const Count& first = counts.front();
  const bool alike = std::all_of(counts.begin(), counts.end(),
                                 [&](const Count& c) { return c.is(first.times, first.blur); });
  if (!known || alike || !explain(solved->counts, step, parts, sequences)) return {};
  return listed(sequences, counts);
}

}  // namespace lockstep
