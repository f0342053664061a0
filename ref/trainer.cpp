#include "ref/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ref/error.hpp"
#include "ref/optimizer.hpp"

namespace lockstep {
namespace {

Settings checked(const Settings& s) {
  auto require = [](bool right, const std::string& wrong) {
    if (!right) throw UserError("Impossible settings: " + wrong + ".");
  };
  require(s.batch >= 1, fmt::format("batch is {}; it must be at least 1", s.batch));
  require(s.seq >= 1, fmt::format("seq is {}; it must be at least 1", s.seq));
  require(s.leaves >= 1 && (s.leaves & (s.leaves - 1)) == 0,
          fmt::format("leaves is {}; it must be a power of two", s.leaves));
  require(s.segments >= 1 && (s.segments & (s.segments - 1)) == 0 && s.seq % s.segments == 0,
          fmt::format("segments is {}; it must be a power of two that divides seq, {}", s.segments, s.seq));
  require(s.clip > 0, fmt::format("clip is {}; it must be above 0", s.clip));
  return s;
}

}  // namespace

template <class T>
Trainer<T>::Trainer(const ModelConfig& config, const Settings& settings, const Ops<Real>& ops, Lanes& lanes)
    : config_(config),
      settings_(checked(settings)),
      ops_(ops),
      lanes_(lanes),
      table_(parameter_table(config, settings.leaves)),
      weights_(tensors<T>()),
      grads_(tensors<Real>()),
      first_(tensors<Real>()),
      second_(tensors<Real>()),
      model_(config_, settings_.seq, settings_.leaves, settings_.segments, table_, weights_, ops_, lanes_) {
  if (!config_.tied) return;
  weights_.back().clear();
  for (Tensors<Real>* set : {&grads_, &first_, &second_}) set->back().clear();
}

// ======== One step ========

template <class T>
typename Trainer<T>::Result Trainer<T>::step(const i32* tokens, const i32* labels) {
  const i64 valid = count_valid(tokens, labels);
  const Real scale =
      static_cast<Real>(1.0 / static_cast<double>(valid));  // the loss is a mean over valid labels

  grads_.clear();  // before the next step's, not beside them
  Sums segments = sums_of(0, settings_.batch, tokens, labels, scale);
  Sum sum = sum_of(0, settings_.segments, segments);
  grads_ = std::move(sum.grads);
  if (config_.tied) {  // the embedding's gradient has two parts: from reading tokens, and from the head
    ops_.add(lanes_, grads_[0].data(), grads_.back().data(), grads_[0].data(), table_[0].stored());
    grads_.back().clear();
  }
  const double norm = gradient_norm();
  update(norm);
  ++step_;
  return {sum.loss / static_cast<double>(valid), norm};
}

// Gradient and loss of sequences [lo, hi), of each segment by itself: the first half's plus the second
// half's. Adding in halves keeps rounding errors small (pairwise summation, Higham 1993) and needs log2(hi -
// lo) sets of gradients, each of as many as there are segments.
template <class T>
typename Trainer<T>::Sums Trainer<T>::sums_of(i64 lo, i64 hi, const i32* tokens, const i32* labels,
                                              Real scale) const {
  const auto segments = static_cast<std::size_t>(settings_.segments);
  Sums sums(segments);
  if (hi - lo == 1) {
    const i32* sequence = tokens + lo * settings_.seq;
    const i32* targets = labels + lo * settings_.seq;
    std::vector<Tensors<Real>> grads(segments, tensors<Real>());
    Kept<T> kept = model_.forward(sequence);
    const std::vector<double> losses = model_.loss(kept, targets);
    model_.backward(kept, sequence, targets, scale, grads);
    for (std::size_t i = 0; i < segments; ++i) sums[i] = {losses[i], std::move(grads[i])};
    return sums;
  }
  const i64 mid = lo + (hi - lo) / 2;
  sums = sums_of(lo, mid, tokens, labels, scale);
  const Sums others = sums_of(mid, hi, tokens, labels, scale);
  for (std::size_t i = 0; i < segments; ++i) add(sums[i], others[i]);
  return sums;
}

// The sum over segments [lo, hi), in halves too. Uses them up.
template <class T>
typename Trainer<T>::Sum Trainer<T>::sum_of(i64 lo, i64 hi, Sums& segments) const {
  if (hi - lo == 1) return std::move(segments[static_cast<std::size_t>(lo)]);
  const i64 mid = lo + (hi - lo) / 2;
  Sum sum = sum_of(lo, mid, segments);
  add(sum, sum_of(mid, hi, segments));
  return sum;
}

template <class T>
void Trainer<T>::add(Sum& into, const Sum& other) const {
  into.loss += other.loss;
  for (std::size_t p = 0; p < table_.size(); ++p)
    ops_.add(lanes_, into.grads[p].data(), into.grads[p].data(), other.grads[p].data(), table_[p].stored());
}

// Euclidean norm over all parameters; the sum of squares is exact, so its order does not matter.
template <class T>
double Trainer<T>::gradient_norm() const {
  i64 words[kSquareWords] = {};
  for (const Tensor<Real>& grad : grads_)
    ops_.add_squares(lanes_, words, grad.data(), static_cast<i64>(grad.size()));
  return root_of_squares(words);
}

// Clips by the global norm (Pascanu, Mikolov & Bengio 2013), then AdamW on every parameter.
template <class T>
void Trainer<T>::update(double norm) {
  const auto clip = static_cast<Real>(clip_scale(settings_, norm));
  for (std::size_t p = 0; p < table_.size(); ++p) {
    const i64 n = static_cast<i64>(grads_[p].size());
    Real* const w = master(p);
    ops_.adamw(lanes_, w, first_[p].data(), second_[p].data(), grads_[p].data(), n, clip,
               adamw_step<Real>(settings_, step_, table_[p].decayed));
    if constexpr (!std::is_same_v<T, Real>) ops_.copy(lanes_, weights_[p].data(), w, n);  // rounds
  }
}

// What AdamW updates: the weights, or float32 ones that they are the rounding of.
template <class T>
Wide<T>* Trainer<T>::master(std::size_t p) {
  if constexpr (std::is_same_v<T, Real>) {
    return weights_[p].data();
  } else {
    if (masters_.empty())
      for (const Tensor<T>& weight : weights_) masters_.emplace_back(weight.begin(), weight.end());
    return masters_[p].data();
  }
}

template <class T>
i64 Trainer<T>::count_valid(const i32* tokens, const i32* labels) const {
  i64 valid = 0;
  for (i64 i = 0; i < settings_.batch * settings_.seq; ++i) {
    if (tokens[i] < 0 || tokens[i] >= config_.vocab || labels[i] >= config_.vocab)
      throw UserError(fmt::format("Token {} or its label {} is outside the model's vocabulary, 0 to {}.",
                                  tokens[i], labels[i], config_.vocab - 1));
    valid += labels[i] >= 0;
  }
  if (valid == 0) throw UserError("Every label of the step is ignored; at least one must count.");
  return valid;
}

// ======== Weights ========

template <class T>
void Trainer<T>::initialise() {
  masters_.clear();
  for (std::size_t p = 0; p < table_.size(); ++p) {
    const Param& param = table_[p];
    if (param.tied_to >= 0) continue;
    std::vector<float> values(static_cast<std::size_t>(param.cols));
    for (i64 row = 0; row < param.stored_rows; ++row) {
      initial_values(config_, param, settings_.seed, row, 0, param.cols, values.data());
      std::transform(values.begin(), values.end(), weights_[p].begin() + row * param.cols,
                     [](float x) { return static_cast<T>(x); });
    }
  }
}

template <class T>
void Trainer<T>::load(const std::string& name, const float* values) {
  const auto found =
      std::find_if(table_.begin(), table_.end(), [&](const Param& param) { return param.name == name; });
  if (found == table_.end()) throw UserError(fmt::format("The model has no parameter named {}.", name));
  const int p = static_cast<int>(found - table_.begin());
  std::transform(values, values + found->count(), weights_[owner(p)].begin(),  // pads stay zero
                 [](float x) { return static_cast<T>(x); });
  masters_.clear();
}

template <class T>
void Trainer<T>::load(const std::vector<std::vector<float>>& values) {
  for (std::size_t p = 0; p < values.size(); ++p)
    if (!values[p].empty()) load(table_[p].name, values[p].data());
}

template <class T>
std::vector<T> Trainer<T>::logits(const i32* tokens, i64 sequences) {
  const i64 V = config_.vocab, padded = padded_vocab(config_, settings_.leaves);
  std::vector<T> all;  // [sequences * T, V]
  for (i64 s = 0; s < sequences; ++s) {
    const Kept<T> kept = model_.forward(tokens + s * settings_.seq);
    for (i64 t = 0; t < settings_.seq; ++t)
      all.insert(all.end(), kept.logits.begin() + t * padded, kept.logits.begin() + t * padded + V);
  }
  return all;
}

template <class T>
template <class Y>
Tensors<Y> Trainer<T>::tensors() const {
  Tensors<Y> set;
  for (const Param& param : table_) set.emplace_back(static_cast<std::size_t>(param.stored()));
  return set;
}

// Where a parameter's values are kept.
template <class T>
std::size_t Trainer<T>::owner(int param) const {
  const int tied_to = table_[static_cast<std::size_t>(param)].tied_to;
  return static_cast<std::size_t>(tied_to >= 0 ? tied_to : param);
}

template <class T>
const std::vector<T>& Trainer<T>::weight(int param) const {
  return weights_[owner(param)];
}
template <class T>
std::vector<T>& Trainer<T>::mutable_weight(int param) {
  masters_.clear();
  return weights_[owner(param)];
}
template <class T>
const std::vector<Wide<T>>& Trainer<T>::gradient(int param) const {
  return grads_[static_cast<std::size_t>(param)];
}
template <class T>
std::vector<Wide<T>>& Trainer<T>::first_moment(int param) {
  return first_[static_cast<std::size_t>(param)];
}
template <class T>
std::vector<Wide<T>>& Trainer<T>::second_moment(int param) {
  return second_[static_cast<std::size_t>(param)];
}

template class Trainer<float>;
template class Trainer<double>;
template class Trainer<bf16>;

}  // namespace lockstep
