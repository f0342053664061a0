#include "suites/certify/certify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "kernels/bf16.hpp"
#include "ref/error.hpp"
#include "suites/certify/adamw_variants.hpp"
#include "suites/certify/outside_dump.hpp"
#include "suites/certify/rounding.hpp"
#include "suites/certify/sequences.hpp"

namespace lockstep {
namespace {

using Weights = OutsideDump::Tensors;

// c, where a is c times b as far as `allowed` can tell, and b itself is not: a factor is the commonest of
// faults, and easily said.
std::optional<double> factor(const std::vector<double>& a, const std::vector<double>& b, double allowed) {
  double product = 0, square = 0, rest = 0, off = 0;
  for (std::size_t i = 0; i < a.size(); ++i) product += a[i] * b[i], square += b[i] * b[i];
  const double c = product / square;
  for (std::size_t i = 0; i < a.size(); ++i)
    rest += (a[i] - c * b[i]) * (a[i] - c * b[i]), off += (a[i] - b[i]) * (a[i] - b[i]);
  if (!(std::sqrt(rest) <= allowed * std::max(1.0, std::abs(c)) && std::sqrt(off) > allowed)) return {};
  return c;
}

// Explains a factor c (+- give, relative) by a mean over other positions than those with a label; empty if
// none fits.
std::string divided_otherwise(double c, double give, const std::vector<i32>& labels, i64 seq) {
  const auto all = static_cast<i64>(labels.size()),
             counted = all - std::count_if(labels.begin(), labels.end(), [](i32 label) { return label < 0; });
  const i64 shifted = all - all / seq;
  std::vector<std::string> fits;
  const auto see = [&](i64 divisor, const std::string& of) {
    const double off = std::abs(c * static_cast<double>(divisor) / static_cast<double>(counted) - 1);
    if (divisor != counted && off <= give) fits.push_back(of);
  };
  see(all, fmt::format("a mean over all {} positions", all));
  see(shifted, fmt::format("a mean over all but each sequence's last, {}", shifted));
  if (counted > 8) see(1, "a sum, not a mean");
  if (fits.empty()) return "";
  return fmt::format(": that of {}, where {} have a label", fmt::join(fits, " or of "), counted);
}

bool in_bf16(const std::vector<float>& tensor) {
  return std::all_of(tensor.begin(), tensor.end(), [](float w) { return std::isfinite(w) && bf16(w) == w; });
}

// The first number that is none: "a nan at [3, 5]".
std::string not_a_number(const Param& p, const std::vector<float>& x) {
  for (i64 i = 0; i < static_cast<i64>(x.size()); ++i)
    if (!std::isfinite(x[static_cast<std::size_t>(i)]))
      return fmt::format("{} at [{}, {}]", x[static_cast<std::size_t>(i)], i / p.cols, i % p.cols);
  return {};
}

class Judge {
 public:
  // dtype: whatever the dump says of it; then its first step alone is judged, without the optimizer, and
  // nothing explained.
  Judge(const std::string& path, int threads, const std::function<void(double)>& at,
        const std::string& dtype = "")
      : dump_(path, dtype),
        steps_(dtype.empty() ? dump_.steps() : 1),
        whole_(dtype.empty()),
        threads_(threads),
        initial_(dump_.initial()),
        rounding_(dump_.model(), dump_.settings(), threads),
        adamw_(dump_.table(), dump_.settings(), dump_.clips()),
        at_(at) {}

  Certificate judge() {
    std::optional<Weights> before = std::move(initial_);
    for (const auto& tensor : *before) numbers_ += static_cast<double>(tensor.size());
    i64 k = 0;
    for (; k < steps_ && before && !found_; ++k) {
      before = step(k, *before);
      at_(static_cast<double>(k + 1) / static_cast<double>(steps_));
    }
    if (found_) {
      at_once_ = k == 1;
      return {false, false,
              "beyond the bound" + of_bf16() + ": " + *found_ + (tensor_ ? "; " + *tensor_ : "") + count_};
    }
    if (drowned_gradients_ > gradients_)
      return {
          false, false,
          fmt::format(
              "not to be told: rounding alone changes {} of {} gradients by more than {:.1f} %; smaller "
              "weights or an earlier step would tell",
              drowned_gradients_, drowned_gradients_ + gradients_, 100 * reference_bound(dump_.settings()))};
    const std::vector<std::string> unseen = unjudged(k);
    std::string text = fmt::format(
        "within the bound{}{}: {}; at most {:.2g} of it ({}); judged: {}", of_bf16(),
        is_bf16() ? fmt::format(" (up to {:.2g} % of a gradient, {:.2g} % of its scale, {:.2g} % of the "
                                "scale of all)",
                                100 * widest_, 100 * widest_scale_, 100 * widest_common_)
                  : std::string(),
        number(k, "step"), worst_, where_, fmt::join(judged(), ", "));
    if (!unseen.empty()) text += fmt::format("; not judged: {}", fmt::join(unseen, ", "));
    const std::vector<std::string> untold = updates_ > 0 ? adamw_.untold() : std::vector<std::string>{};
    if (!untold.empty()) text += fmt::format("; not told from AdamW: {}", fmt::join(untold, ", "));
    return {true, unseen.empty() && untold.empty(), text};
  }
  const OutsideDump& dump() const { return dump_; }
  bool judged_gradients() const { return gradients_ > 0; }
  // Whether all gradients of the first step are beyond, and not by a factor, as they are in other numbers.
  bool differs_at_once() const { return at_once_ && all_beyond_; }

 private:
  bool is_bf16() const { return dump_.settings().activation_bytes == 2; }
  std::string of_bf16() const { return is_bf16() ? " of bf16" : ""; }

  static std::string number(i64 n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  }

  std::vector<std::string> judged() const {
    std::vector<std::string> seen;
    if (losses_ > 0) seen.push_back(fmt::format("{} loss{}", losses_, losses_ == 1 ? "" : "es"));
    seen.push_back(number(gradients_, "gradient"));
    if (norms_ > 0) seen.push_back(number(norms_, "gradient norm"));
    if (updates_ > 0) seen.push_back("weights of " + number(updates_, "step"));
    return seen;
  }

  // What of the first k steps could not be.
  std::vector<std::string> unjudged(i64 k) const {
    std::vector<std::string> unseen;
    if (losses_ < k) unseen.push_back("the loss of " + number(k - losses_, "step"));
    if (with_gradients_ < k) unseen.push_back("gradients of " + number(k - with_gradients_, "step"));
    if (drowned_gradients_ > 0)
      unseen.push_back(fmt::format("{} that rounding alone changes by more than {:.1f} %",
                                   number(drowned_gradients_, "gradient"),
                                   100 * reference_bound(dump_.settings())));
    if (norms_ < with_gradients_)
      unseen.push_back("the gradient norm of " + number(with_gradients_ - norms_, "step"));
    if (followed_ < k)
      unseen.push_back(fmt::format("weights of {} ({})", number(k - followed_, "step"),
                                   dump_.untold().empty() ? "the lr, gradients or the weights are missing"
                                                          : dump_.untold() + " not said"));
    if (without_masters_ > 0)
      unseen.push_back(fmt::format("{} that {} stored in bf16, of which the masters are not told",
                                   number(without_masters_, "weight"), without_masters_ == 1 ? "is" : "are"));
    if (k < steps_)
      unseen.push_back(fmt::format("anything from step {} on (the weights before it are missing)", k));
    return unseen;
  }

  // Keeps the worst of all, the first beyond its bound and, where that is the loss, the first tensor after
  // it. Whether it is within.
  bool see(const std::string& what, double error, double allowed, bool tensor,
           const std::function<std::string()>& more) {
    const double part = error == 0 ? 0 : std::isfinite(error) ? error / allowed : INFINITY;
    if (part > worst_ || where_.empty()) worst_ = part, where_ = what;
    if (part <= 1) return true;
    if (tensor_ || (found_ && !(tensor && loss_))) return false;
    const std::string text =
        std::isfinite(error)
            ? fmt::format("{}: {:.3g} times the bound ({:.3g} from float64, {:.3g} allowed){}", what, part,
                          error, allowed, more())
            : fmt::format("{}: {}", what, more().empty() ? "float64's is no number" : more());
    (found_ ? tensor_ : found_) = text;
    loss_ = !tensor || loss_;
    return false;
  }

  // The weights after it; none if the dump has not all of them.
  std::optional<Weights> step(i64 k, const Weights& before) {
    const std::string named = fmt::format("step {}: ", k);
    const std::vector<i32> tokens = dump_.ids(k, "tokens"), labels = dump_.ids(k, "labels");
    const FastReference::Step& exact = rounding_.step(k, before, tokens, labels);
    if (const std::optional<double> loss = dump_.scalar(k, "loss")) {
      see(named + "loss", std::abs(*loss - exact.loss), rounding_.loss_allowed(), false,
          [&] { return std::isfinite(*loss) ? "" : fmt::format("it is {}", *loss); });
      ++losses_;
    }
    const std::optional<Weights> gradient = dump_.tensors(k, "grad"), after = dump_.tensors(k, "weight");
    if (gradient) gradients(named, {before, tokens, labels, *gradient}, exact);
    if (gradient && whole_) optimizer(k, before, *gradient, after);
    return after;
  }

  struct Inputs {
    const Weights& before;
    const std::vector<i32>&tokens, &labels;
    const Weights& gradient;
  };

  void gradients(const std::string& named, const Inputs& step, const FastReference::Step& exact) {
    ++with_gradients_;
    const std::vector<std::size_t> judged = to_judge(named, step.gradient);
    gradients_ += static_cast<i64>(judged.size());
    std::vector<Along> along(step.gradient.size());
    if (is_bf16()) {
      for (const std::size_t i : judged) along[i] = {dump_.table()[i], step.gradient[i], exact.gradient[i]};
      if (common_factor(named, step, exact, judged, along)) return;
    }
    std::vector<WrongStep::Beyond> beyond;
    i64 scales = 0;
    for (const std::size_t i : judged) {
      const Param& p = dump_.table()[i];
      const std::vector<float>& gradient = step.gradient[i];
      const std::vector<double>& g64 = exact.gradient[i];
      const double allowed = rounding_.allowed(i), off = distance(p, gradient, g64);
      widest_ = std::max(widest_, rounding_.part_allowed(i));
      const bool within = see(named + "gradient of " + p.name, off, allowed, true, [&] {
        if (const std::string what = not_a_number(p, gradient); !what.empty()) return what;
        const std::optional<double> c =
            factor({gradient.begin(), gradient.end()}, {g64.begin(), g64.begin() + p.count()}, allowed);
        by_factor_ = c.has_value();
        const double give = is_bf16() ? rounding_.scale_allowed(i) : rounding_.part_allowed(i);
        return c ? fmt::format("; it is {:.6g} times what it should be{}", *c,
                               divided_otherwise(*c, give, step.labels, dump_.settings().seq))
                 : "";
      });
      if (!within)
        beyond.push_back({i, off, allowed});
      else if (is_bf16())
        scales += !scale(named, i, along[i]);
    }
    if (beyond.empty() && scales > 0)
      count_ = fmt::format("; {} of {} gradients of the step have a scale beyond it", scales, judged.size());
    if (beyond.empty()) return;
    all_beyond_ = beyond.size() == judged.size() && !by_factor_;
    count_ = fmt::format("; {} of {} gradients of the step are beyond it", beyond.size(), judged.size());
    if (!whole_) return;
    const std::string counted =
        counted_otherwise(dump_.model(), dump_.settings(),
                          {step.before, step.tokens, step.labels, step.gradient, beyond}, threads_);
    if (!counted.empty()) count_ += ", and all are what there is with " + counted;
  }

  // Those that the dump has and of which rounding leaves more than a length, in order of backward.
  std::vector<std::size_t> to_judge(const std::string& named, const Weights& gradient) {
    std::vector<std::size_t> judged;
    for (std::size_t i = gradient.size(); i-- > 0;) {
      if (gradient[i].empty()) continue;
      if (rounding_.drowned(i) && not_a_number(dump_.table()[i], gradient[i]).empty())
        length_of_drowned(named, i, gradient[i]);
      else
        judged.push_back(i);
    }
    return judged;
  }

  // bf16 rounding hides a wrong divisor in a gradient's distance, but not in its scale. Whether it is false.
  bool scale(const std::string& named, std::size_t i, const Along& along) {
    const double c = along.scale(), allowed = rounding_.scale_allowed(i);
    widest_scale_ = std::max(widest_scale_, allowed);
    return !(along.square > 0) ||
           see(named + "scale of the gradient of " + dump_.table()[i].name, std::abs(c - 1), allowed, true,
               [&] { return fmt::format("; it is {:.4g} times what it should be", c); });
  }

  // Whether all gradients are too long or too short together, by a factor that explains them: divided by it
  // each is within its bounds. If it does not, the tensor that is wrong makes it, and is named by itself.
  bool common_factor(const std::string& named, const Inputs& step, const FastReference::Step& exact,
                     const std::vector<std::size_t>& judged, const std::vector<Along>& along) {
    Along all;
    for (const std::size_t i : judged) all += along[i];
    const double c = all.scale(), allowed = rounding_.common_scale_allowed();
    widest_common_ = std::max(widest_common_, allowed);
    if (!(all.square > 0 && std::isfinite(c) && c > 0)) return false;
    const auto explained = [&](std::size_t i) {
      std::vector<double> should = exact.gradient[i];
      for (double& x : should) x *= c;
      return distance(dump_.table()[i], step.gradient[i], should) <=
                 rounding_.allowed(i) * std::max(1.0, c) &&
             !(std::abs(along[i].scale() / c - 1) > rounding_.scale_allowed(i));
    };
    const double off = std::abs(c - 1);
    if (off > allowed && !std::all_of(judged.begin(), judged.end(), explained)) return false;
    return !see(named + "scale of all gradients", off, allowed, true, [&] {
      return fmt::format(
          "; they are {:.4g} times what they should be{}; each is within its bounds once divided by "
          "that",
          c, divided_otherwise(c, allowed / 2, step.labels, dump_.settings().seq));
    });
  }

  // A gradient that rounding makes another of is still about as long as a right one.
  void length_of_drowned(const std::string& named, std::size_t i, const std::vector<float>& gradient) {
    ++drowned_gradients_;
    const auto [least, most] = rounding_.lengths(i);
    const double length = norm(dump_.table()[i], gradient);
    if (found_ || (length >= least && length <= most)) return;
    found_ = fmt::format("{}gradient of {}: its length is {:.3g}, and a right one's is {:.3g} to {:.3g}",
                         named, dump_.table()[i].name, length, least, most);
  }

  // Of weights that a trainer in bf16 stores in it the update says nothing without its masters. They are
  // those that are in bf16 after a step that changed one of them.
  std::vector<bool> without_masters(double lr, const Weights& before, const Weights& after) const {
    std::vector<bool> stored(after.size());
    if (!is_bf16() || lr == 0) return stored;
    bool changed = false;
    for (std::size_t i = 0; i < after.size(); ++i) {
      stored[i] = !after[i].empty() && in_bf16(after[i]);
      changed = changed || (stored[i] && after[i] != before[i]);
    }
    return changed ? stored : std::vector<bool>(after.size());
  }

  void optimizer(i64 k, const Weights& before, const Weights& gradient, const std::optional<Weights>& after) {
    double squares = 0;
    for (const auto& g : gradient)
      for (const float x : g) squares += static_cast<double>(x) * x;
    double norm = std::sqrt(squares);
    // A trainer may add up its squares in float32 one by one: a random walk of roundings.
    const double loose = kFastMultiple * kFastFloor + 0x1p-22 * std::sqrt(numbers_);
    const std::optional<double> said = dump_.scalar(k, "grad_norm");
    if (said) {
      see(fmt::format("step {}: gradient norm", k), std::abs(*said - norm), loose * norm, false,
          [&] { return std::isfinite(*said) ? "" : fmt::format("it is {}", *said); });
      norm = *said;  // by which it clipped
      ++norms_;
    }
    const std::optional<double> lr = rate(k);
    // Its moments are of all steps before.
    if (!after || !dump_.untold().empty() || !lr || followed_ < k) return;
    ++followed_;
    adamw_.begin(
        k, {*lr, k > 0 ? rate(k - 1) : std::nullopt, k + 1 < dump_.steps() ? rate(k + 1) : std::nullopt},
        norm, said ? 0 : loose);
    const bool found = found_.has_value();
    const std::vector<bool> stored = without_masters(*lr, before, *after);
    i64 beyond = 0, all = 0;
    for (std::size_t i = 0; i < dump_.table().size(); ++i) {
      const Param& p = dump_.table()[i];
      if (before[i].empty()) continue;
      const auto [w64, allowed] = adamw_.follow(static_cast<int>(i), before[i], gradient[i], (*after)[i]);
      if (stored[i]) {
        ++without_masters_;
        continue;
      }
      beyond += !see(fmt::format("step {}: weight of {} after AdamW", k, p.name),
                     distance(p, (*after)[i], w64), allowed, true, [&, &w64 = w64, allowed = allowed] {
                       if (const std::string what = not_a_number(p, (*after)[i]); !what.empty()) return what;
                       std::vector<double> did, ought;
                       for (std::size_t e = 0; e < w64.size(); ++e)
                         did.push_back(double{(*after)[i][e]} - before[i][e]),
                             ought.push_back(w64[e] - before[i][e]);
                       const std::optional<double> c = factor(did, ought, allowed);
                       return c ? fmt::format("; the update is {:.4g} times what it should be", *c) : "";
                     });
      ++all;
    }
    updates_ += all > 0;
    if (beyond == 0 || found) return;
    const std::string variant = adamw_.made_by();
    count_ = fmt::format("; {} of {} weights of the step are beyond it{}", beyond, all,
                         variant.empty() ? "" : ", and all are what there is with " + variant);
  }

  // UserError: one that no step has.
  std::optional<double> rate(i64 k) const {
    const std::optional<double> lr = dump_.scalar(k, "lr");
    if (lr && !(*lr >= 0 && std::isfinite(*lr)))
      throw UserError(
          fmt::format("'{}': /step{}/lr is {}; it must be a number from 0 on", dump_.path(), k, *lr));
    return lr;
  }

  const OutsideDump dump_;
  const i64 steps_;
  const bool whole_;  // or the first step's loss and gradients alone
  const int threads_;
  Weights initial_;  // read before trainers are made of the model's size
  Rounding rounding_;
  AdamWVariants adamw_;
  std::function<void(double)> at_;
  double numbers_ = 0;  // of the model
  i64 drowned_gradients_ = 0, without_masters_ = 0;
  double widest_ = 0, widest_scale_ = 0, widest_common_ = 0;  // bounds, of a gradient as a part of it
  double worst_ = 0;
  std::string where_, count_;
  std::optional<std::string> found_, tensor_;
  bool loss_ = false;                                              // found_ is a scalar
  bool at_once_ = false, all_beyond_ = false, by_factor_ = false;  // the first step; its gradients
  i64 losses_ = 0, gradients_ = 0, with_gradients_ = 0, norms_ = 0, updates_ = 0;  // that were judged
  i64 followed_ = 0;                                                               // steps of AdamW
};

}  // namespace

Certificate certify(const std::string& dump, int threads, const std::function<void(double)>& at) {
  auto judge = std::make_unique<Judge>(dump, threads, at);
  Certificate certificate = judge->judge();
  if (certificate.right && !judge->judged_gradients())
    throw UserError(fmt::format(
        "'{}' holds no gradients (/step0/grad), and without them nothing says that it is right", dump));
  if (certificate.right || judge->dump().says_dtype() || !judge->differs_at_once()) return certificate;
  judge.reset();  // the next one takes as much memory
  Judge in_bf16(
      dump, threads, [](double) {}, "bf16");
  if (in_bf16.judge().right && in_bf16.judged_gradients())
    certificate.text +=
        "; loss and gradients are within the bound of bf16, if that is what it computes in (attribute dtype)";
  return certificate;
}

}  // namespace lockstep
