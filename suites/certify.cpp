#include "suites/certify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <optional>

#include "ref/error.hpp"
#include "ref/optimizer.hpp"
#include "ref/trainer.hpp"
#include "reports/dump.hpp"
#include "reports/h5.hpp"
#include "suites/gates/fast.hpp"

namespace lockstep {
namespace {

using Weights = std::vector<std::vector<float>>;  // by parameter; a tied head's is empty

// The dump as its steps are asked for, each array held to the shape that the model gives it.
class Outside {
 public:
  explicit Outside(const std::string& path) : file_(path) {
    require_dump(file_);
    model = parse_model_config(file_.attribute("model"), path + ", attribute model");
    const std::vector<i64> held = steps_of(file_);
    if (held.empty()) throw UserError(fmt::format("'{}' holds no step: no /step0/tokens", path));
    for (const i64 k : held) {  // each begins with the weights after the one before it
      if (k != steps)
        throw UserError(
            fmt::format("'{}' holds a step {} and no step {}; write all of them, from 0", path, k, steps));
      if (const std::string tokens = fmt::format("/step{}/tokens", k); !file_.has(tokens))
        throw UserError(fmt::format("'{}' holds no {}", path, tokens));
      ++steps;
    }
    const h5::Shape shape = file_.read<i32>("/step0/tokens").shape;
    if (shape.size() != 2) throw UserError(fmt::format("'{}': /step0/tokens must be [batch, seq]", path));
    settings.batch = static_cast<i64>(shape[0]), settings.seq = static_cast<i64>(shape[1]);
    settings.warmup = 0, settings.min_ratio = 1;  // the rate is the dump's, step by step
    settings.clip = number("clip", 1e30);
    settings.beta1 = number("beta1", 0), settings.beta2 = number("beta2", 0);
    settings.eps = number("eps", 0), settings.weight_decay = number("weight_decay", 0);
    table = parameter_table(model, settings.leaves);
  }

  ModelConfig model;
  Settings settings;
  std::vector<Param> table;
  i64 steps = 0;

  const std::string& path() const { return file_.path(); }
  bool has(const std::string& name) const { return file_.has(name); }
  // AdamW can be followed: its settings are said.
  bool tells_optimizer() const { return file_.has_attribute("beta1"); }

  template <class T>
  std::vector<T> read(const std::string& name, const h5::Shape& shape) const {
    const h5::Array<T> array = file_.read<T>(name);
    if (array.shape != shape)
      throw UserError(fmt::format("'{}': {} has shape [{}]; the model and /step0/tokens want [{}]",
                                  file_.path(), name, fmt::join(array.shape, ", "), fmt::join(shape, ", ")));
    return array.values;
  }
  std::vector<i32> ids(const std::string& name) const {
    return read<i32>(name, {static_cast<hsize_t>(settings.batch), static_cast<hsize_t>(settings.seq)});
  }
  double scalar(const std::string& name) const { return file_.scalar<double>(name); }

  Weights tensors(const std::string& group) const {
    Weights all;
    for (const Param& p : table) {
      const auto rows = static_cast<hsize_t>(p.rows), cols = static_cast<hsize_t>(p.cols);
      const h5::Shape shape = p.row_dim == Dim::one ? h5::Shape{cols} : h5::Shape{rows, cols};
      all.push_back(p.tied_to >= 0 ? std::vector<float>{} : read<float>(group + "/" + p.name, shape));
    }
    return all;
  }

 private:
  double number(const char* name, double otherwise) const {
    return file_.has_attribute(name) ? std::stod(file_.attribute(name)) : otherwise;
  }
  h5::Reader file_;
};

// g is about c times g64: a factor is the commonest of faults, and easily said.
std::string factor(const std::vector<float>& g, const std::vector<double>& g64) {
  double product = 0, square = 0, rest = 0, whole = 0;
  for (std::size_t i = 0; i < g.size(); ++i) product += g[i] * g64[i], square += g64[i] * g64[i];
  const double c = product / square;
  for (std::size_t i = 0; i < g.size(); ++i)
    rest += (g[i] - c * g64[i]) * (g[i] - c * g64[i]), whole += static_cast<double>(g[i]) * g[i];
  if (!(rest < 1e-6 * whole)) return {};
  return fmt::format("; it is {:.6g} times what it should be", c);
}

// AdamW in T on the gradients that the dump says it had.
template <class T>
class Optimizer {
 public:
  explicit Optimizer(const std::vector<Param>& table)
      : table_(table), first_(table.size()), second_(table.size()) {}

  std::vector<std::vector<T>> step(const Settings& settings, i64 step, const Weights& before,
                                   const Weights& gradient, double norm) {
    std::vector<std::vector<T>> after;
    for (std::size_t i = 0; i < table_.size(); ++i) {
      std::vector<T> w(before[i].begin(), before[i].end());
      const std::vector<T> g(gradient[i].begin(), gradient[i].end());
      first_[i].resize(w.size()), second_[i].resize(w.size());
      const i64 n = static_cast<i64>(w.size());
      ops_.adamw(lanes_, w.data(), first_[i].data(), second_[i].data(), g.data(), n,
                 static_cast<T>(clip_scale(settings, norm)),
                 adamw_step<T>(settings, step, table_[i].decayed));
      after.push_back(std::move(w));
    }
    return after;
  }

 private:
  const std::vector<Param>& table_;
  Ops<T> ops_ = plain_ops<T>();
  Lanes lanes_{1};
  std::vector<std::vector<T>> first_, second_;
};

class Judge {
 public:
  explicit Judge(const std::string& path)
      : dump_(path),
        float64_(dump_.model, dump_.settings),
        float32_(dump_.model, dump_.settings, cpu_ops(), lanes_),
        optimizer64_(dump_.table),
        optimizer32_(dump_.table) {}

  Certificate judge() {
    Weights before = dump_.tensors("/initial");
    i64 k = 0;
    for (; k < dump_.steps && !before.empty() && !found_; ++k) before = step(k, before);
    if (found_) return {false, "beyond the bound: " + *found_ + (tensor_ ? "; " + *tensor_ : "")};
    if (gradients_ == 0)
      throw UserError(
          fmt::format("'{}' holds no gradients (/step0/grad), and without them nothing says that it is right",
                      dump_.path()));
    return {true, fmt::format("within the bound: {}; at most {:.2g} of it ({}); {}", number(k, "step"),
                              worst_, where_, judged(k))};
  }

 private:
  static std::string number(i64 n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  }

  // What was judged in the first k steps, and what could not be.
  std::string judged(i64 k) const {
    std::vector<std::string> seen{number(gradients_, "gradient")}, unseen;
    if (losses_ > 0) seen.insert(seen.begin(), fmt::format("{} loss{}", losses_, losses_ == 1 ? "" : "es"));
    if (norms_ > 0) seen.push_back(number(norms_, "gradient norm"));
    if (updates_ > 0) seen.push_back("weights of " + number(updates_, "step"));
    if (losses_ < k) unseen.push_back("the loss of " + number(k - losses_, "step"));
    if (with_gradients_ < k) unseen.push_back("gradients of " + number(k - with_gradients_, "step"));
    if (updates_ < k)
      unseen.push_back("weights of " + number(k - updates_, "step") +
                       " (AdamW's settings, the lr, gradients or the weights are missing)");
    if (k < dump_.steps)
      unseen.push_back(fmt::format("anything from step {} on (the weights before it are missing)", k));
    return fmt::format("judged: {}{}{}", fmt::join(seen, ", "),
                       unseen.empty() ? "" : "; not judged: ", fmt::join(unseen, ", "));
  }

  static std::string group(i64 k) { return fmt::format("/step{}/", k); }

  // Keeps the worst of all, the first beyond its bound and, where that is the loss, the first tensor after
  // it.
  void see(const std::string& what, double error, double allowed, bool tensor, const std::string& more = "") {
    const double part = error == 0 ? 0 : std::isfinite(error) ? error / allowed : INFINITY;
    if (part > worst_ || where_.empty()) worst_ = part, where_ = what;
    if (part <= 1 || tensor_) return;
    const std::string text = fmt::format("{}: {:.3g} times the bound ({:.3g} from float64, {:.3g} allowed){}",
                                         what, part, error, allowed, more);
    if (!found_)
      found_ = text, loss_ = !tensor;
    else if (tensor && loss_)
      tensor_ = text;
  }

  // The weights after it; none if the dump has not all of them.
  Weights step(i64 k, const Weights& before) {
    const std::string at = group(k), named = fmt::format("step {}: ", k);
    const std::vector<i32> tokens = dump_.ids(at + "tokens"), labels = dump_.ids(at + "labels");
    const FastReference::Step exact =
        float64_.step(before, tokens.data(), labels.data(), in_float32(before, tokens, labels));
    if (dump_.has(at + "loss")) {
      see(named + "loss", std::abs(dump_.scalar(at + "loss") - exact.loss), exact.loss_allowed, false);
      ++losses_;
    }
    const Weights gradient = dump_.has(at + "grad") ? dump_.tensors(at + "grad") : Weights{};
    for (std::size_t i = gradient.size(); i-- > 0;)  // in order of backward
      if (!gradient[i].empty()) {
        see(named + "gradient of " + dump_.table[i].name,
            distance(dump_.table[i], gradient[i], exact.gradient[i]), exact.allowed[i], true,
            factor(gradient[i], exact.gradient[i]));
        ++gradients_;
      }
    with_gradients_ += !gradient.empty();
    const Weights after = dump_.has(at + "weight") ? dump_.tensors(at + "weight") : Weights{};
    if (!gradient.empty()) optimizer(k, before, gradient, after);
    return after;
  }

  // The float32 reference's loss and gradients at these weights.
  Whole::Step in_float32(const Weights& before, const std::vector<i32>& tokens,
                         const std::vector<i32>& labels) {
    for (std::size_t i = 0; i < dump_.table.size(); ++i)
      if (!before[i].empty()) float32_.load(dump_.table[i].name, before[i].data());
    Whole::Step step;
    step.loss = float32_.step(tokens.data(), labels.data()).loss;
    for (std::size_t i = 0; i < dump_.table.size(); ++i)
      step.gradient.push_back(dump_.table[i].tied_to >= 0 ? std::vector<float>{}
                                                          : float32_.gradient(static_cast<int>(i)));
    return step;
  }

  void optimizer(i64 k, const Weights& before, const Weights& gradient, const Weights& after) {
    double squares = 0;
    for (const auto& g : gradient)
      for (const float x : g) squares += static_cast<double>(x) * x;
    const double norm = std::sqrt(squares);
    if (dump_.has(group(k) + "grad_norm")) {
      see(fmt::format("step {}: gradient norm", k), std::abs(dump_.scalar(group(k) + "grad_norm") - norm),
          kFastMultiple * kFastFloor * norm, false);
      ++norms_;
    }
    // Its moments are of all steps before.
    if (after.empty() || !dump_.tells_optimizer() || !dump_.has(group(k) + "lr") || updates_ < k) return;
    ++updates_;
    Settings settings = dump_.settings;
    settings.lr = dump_.scalar(group(k) + "lr");
    const auto w64 = optimizer64_.step(settings, k, before, gradient, norm);
    const auto w32 = optimizer32_.step(settings, k, before, gradient, norm);
    for (std::size_t i = 0; i < dump_.table.size(); ++i) {
      const Param& p = dump_.table[i];
      const double size = distance(p, w64[i], std::vector<double>(w64[i].size()));
      see(fmt::format("step {}: weight of {} after AdamW", k, p.name), distance(p, after[i], w64[i]),
          kFastMultiple * distance(p, w32[i], w64[i]) + kFastFloor * size, true);
    }
  }

  const Outside dump_;
  Lanes lanes_{1};
  Float64 float64_;
  Trainer<float> float32_;
  Optimizer<double> optimizer64_;
  Optimizer<float> optimizer32_;
  double worst_ = 0;
  std::string where_;
  std::optional<std::string> found_, tensor_;
  bool loss_ = false;                                                              // found_ is the loss
  i64 losses_ = 0, gradients_ = 0, with_gradients_ = 0, norms_ = 0, updates_ = 0;  // that were judged
};

}  // namespace

Certificate certify(const std::string& dump) { return Judge(dump).judge(); }

}  // namespace lockstep
