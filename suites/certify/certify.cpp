#include "suites/certify/certify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "kernels/random.hpp"
#include "ref/error.hpp"
#include "ref/trainer.hpp"
#include "suites/certify/adamw_variants.hpp"
#include "suites/certify/outside_dump.hpp"
#include "suites/gates/fast.hpp"

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

// The first number that is none: "a nan at [3, 5]".
std::string not_a_number(const Param& p, const std::vector<float>& x) {
  for (i64 i = 0; i < static_cast<i64>(x.size()); ++i)
    if (!std::isfinite(x[static_cast<std::size_t>(i)]))
      return fmt::format("{} at [{}, {}]", x[static_cast<std::size_t>(i)], i / p.cols, i % p.cols);
  return {};
}

// "model.layers.3.mlp.up_proj.weight" as of any layer.
std::string kind_of(const std::string& name) {
  std::string kind;
  for (const char c : name) kind += '0' <= c && c <= '9' ? '*' : c;
  while (kind.find("**") != std::string::npos) kind.erase(kind.find("**"), 1);
  return kind;
}

class Judge {
 public:
  Judge(const std::string& path, int threads, const std::function<void(double)>& at)
      : dump_(path),
        initial_(dump_.initial()),
        lanes_(threads),
        float64_(dump_.model(), dump_.settings(), threads),
        float32_(dump_.model(), dump_.settings(), cpu_ops(), lanes_),
        adamw_(dump_.table(), dump_.settings(), dump_.clips()),
        at_(at) {}

  Certificate judge() {
    std::optional<Weights> before = std::move(initial_);
    for (const auto& tensor : *before) numbers_ += static_cast<double>(tensor.size());
    i64 k = 0;
    for (; k < dump_.steps() && before && !found_; ++k) {
      before = step(k, *before);
      at_(static_cast<double>(k + 1) / static_cast<double>(dump_.steps()));
    }
    if (found_)
      return {false, false, "beyond the bound: " + *found_ + (tensor_ ? "; " + *tensor_ : "") + count_};
    if (gradients_ == 0)
      throw UserError(
          fmt::format("'{}' holds no gradients (/step0/grad), and without them nothing says that it is right",
                      dump_.path()));
    const std::vector<std::string> unseen = unjudged(k);
    std::string text = fmt::format("within the bound: {}; at most {:.2g} of it ({}); judged: {}",
                                   number(k, "step"), worst_, where_, fmt::join(judged(), ", "));
    if (!unseen.empty()) text += fmt::format("; not judged: {}", fmt::join(unseen, ", "));
    const std::vector<std::string> untold = updates_ > 0 ? adamw_.untold() : std::vector<std::string>{};
    if (!untold.empty()) text += fmt::format("; not told from AdamW: {}", fmt::join(untold, ", "));
    return {true, unseen.empty() && untold.empty(), text};
  }

 private:
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
      unseen.push_back(fmt::format("{} that rounding alone changes by more than {:.1g} %",
                                   number(drowned_gradients_, "gradient"),
                                   100 * reference_bound(dump_.settings())));
    if (norms_ < with_gradients_)
      unseen.push_back("the gradient norm of " + number(with_gradients_ - norms_, "step"));
    if (updates_ < k)
      unseen.push_back(fmt::format("weights of {} ({})", number(k - updates_, "step"),
                                   dump_.untold().empty() ? "the lr, gradients or the weights are missing"
                                                          : dump_.untold() + " not said"));
    if (k < dump_.steps())
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
    const Whole::Step rounded = in_float32(before, tokens, labels);
    const FastReference::Step exact = float64_.step(before, tokens.data(), labels.data(), rounded);
    drowned_.clear();
    learn_rounding(rounded, exact);
    for (const i64 way : {2 * k, 2 * k + 1})
      learn_rounding(in_float32(nudged(before, way), tokens, labels), exact);
    if (const std::optional<double> loss = dump_.scalar(k, "loss")) {
      see(named + "loss", std::abs(*loss - exact.loss),
          kFastMultiple * loss_rounding_ + kFastFloor * std::abs(exact.loss), false,
          [&] { return std::isfinite(*loss) ? "" : fmt::format("it is {}", *loss); });
      ++losses_;
    }
    const std::optional<Weights> gradient = dump_.tensors(k, "grad"), after = dump_.tensors(k, "weight");
    if (gradient) {
      gradients(named, *gradient, exact);
      optimizer(k, before, *gradient, after);
    }
    return after;
  }

  // The float32 reference's loss and gradients at these weights.
  Whole::Step in_float32(const Weights& before, const std::vector<i32>& tokens,
                         const std::vector<i32>& labels) {
    const std::vector<Param>& table = dump_.table();
    for (std::size_t i = 0; i < table.size(); ++i)
      if (!before[i].empty()) float32_.load(table[i].name, before[i].data());
    Whole::Step step;
    step.loss = float32_.step(tokens.data(), labels.data()).loss;
    for (std::size_t i = 0; i < table.size(); ++i)
      step.gradient.push_back(table[i].tied_to >= 0 ? std::vector<float>{}
                                                    : float32_.gradient(static_cast<int>(i)));
    return step;
  }

  // Each weight about its last bit up or down: where a step is badly conditioned, that shows it, however
  // well the reference's own rounding came out.
  static Weights nudged(Weights weights, i64 way) {
    std::uint64_t at = 0;
    for (auto& tensor : weights)
      for (float& w : tensor)
        w *= random_word(static_cast<std::uint64_t>(way), at++) % 2 ? 1 + 0x1p-23f : 1 - 0x1p-24f;
    return weights;
  }

  // What rounding does to the loss, and to gradients; those that it makes others of are not judged this step.
  void learn_rounding(const Whole::Step& rounded, const FastReference::Step& exact) {
    if (const double off = std::abs(rounded.loss - exact.loss); off > loss_rounding_) loss_rounding_ = off;
    for (std::size_t i = 0; i < dump_.table().size(); ++i) {
      const Param& p = dump_.table()[i];
      if (exact.gradient[i].empty()) continue;
      const double off = distance(p, rounded.gradient[i], exact.gradient[i]) / norm(p, exact.gradient[i]);
      double& most = rounding_[kind_of(p.name)];
      if (off > reference_bound(dump_.settings()))
        drowned_.insert(i);
      else if (off > most)  // which NaN is not
        most = off;
    }
  }

  void gradients(const std::string& named, const Weights& gradient, const FastReference::Step& exact) {
    i64 beyond = 0, all = 0;
    for (std::size_t i = gradient.size(); i-- > 0;) {  // in order of backward
      const Param& p = dump_.table()[i];
      const std::vector<double>& g64 = exact.gradient[i];
      if (gradient[i].empty()) continue;
      if (drowned_.count(i) && not_a_number(p, gradient[i]).empty()) {
        ++drowned_gradients_;
        continue;
      }
      const double allowed = (kFastMultiple * rounding_[kind_of(p.name)] + kFastFloor) * norm(p, g64);
      beyond += !see(named + "gradient of " + p.name, distance(p, gradient[i], g64), allowed, true, [&] {
        if (const std::string what = not_a_number(p, gradient[i]); !what.empty()) return what;
        const std::optional<double> c =
            factor({gradient[i].begin(), gradient[i].end()}, {g64.begin(), g64.begin() + p.count()}, allowed);
        return c ? fmt::format("; it is {:.6g} times what it should be", *c) : "";
      });
      ++all;
    }
    gradients_ += all, ++with_gradients_;
    if (beyond > 0) count_ = fmt::format("; {} of {} gradients of the step are beyond it", beyond, all);
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
    if (!after || !dump_.untold().empty() || !lr || updates_ < k) return;
    ++updates_;
    adamw_.begin(
        k, {*lr, k > 0 ? rate(k - 1) : std::nullopt, k + 1 < dump_.steps() ? rate(k + 1) : std::nullopt},
        norm, said ? 0 : loose);
    const bool found = found_.has_value();
    i64 beyond = 0, all = 0;
    for (std::size_t i = 0; i < dump_.table().size(); ++i) {
      const Param& p = dump_.table()[i];
      if (before[i].empty()) continue;
      const auto [w64, allowed] = adamw_.follow(static_cast<int>(i), before[i], gradient[i], (*after)[i]);
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
  Weights initial_;  // read before trainers are made of the model's size
  Lanes lanes_;
  Float64 float64_;
  Trainer<float> float32_;
  AdamWVariants adamw_;
  std::function<void(double)> at_;
  std::map<std::string, double> rounding_;  // by kind of tensor: the reference's, as a part of its gradient
  double loss_rounding_ = 0, numbers_ = 0;  // of the loss; of the model
  std::set<std::size_t> drowned_;           // the step's gradients that rounding alone makes others of
  i64 drowned_gradients_ = 0;
  double worst_ = 0;
  std::string where_, count_;
  std::optional<std::string> found_, tensor_;
  bool loss_ = false;                                                              // found_ is a scalar
  i64 losses_ = 0, gradients_ = 0, with_gradients_ = 0, norms_ = 0, updates_ = 0;  // that were judged
};

}  // namespace

Certificate certify(const std::string& dump, int threads, const std::function<void(double)>& at) {
  return Judge(dump, threads, at).judge();
}

}  // namespace lockstep
