// A Llama trained on one device, step by step: the textbook every other way of training must equal.
#pragma once
#include <string>
#include <vector>

#include "kernels/ops.hpp"
#include "ref/config.hpp"
#include "ref/data_order.hpp"
#include "ref/model.hpp"
#include "ref/params.hpp"
#include "ref/settings.hpp"

namespace lockstep {

// T: float, double, or bf16. In bf16 AdamW works on float32 master weights, and what the model computes with
// is their rounding (Micikevicius et al. 2018, section 3.1); masters begin as the rounded weights.
template <class T>
class Trainer {
 public:
  using Real = Wide<T>;
  struct Result {
    double loss;       // mean over the step's valid labels
    double grad_norm;  // before clipping
  };

  // Weights are zero until initialise() or load(). UserError: impossible settings.
  Trainer(const ModelConfig&, const Settings&, const Ops<Real>&, Lanes&);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  void initialise();  // from settings.seed
  // One parameter [rows, cols], Hugging Face name. UserError: the model has no such parameter.
  void load(const std::string& name, const float* values);
  // All of them, by index in params(). An empty one, as a tied head's is, stays as it was.
  void load(const std::vector<std::vector<float>>& values);

  // One optimizer step on tokens, labels [B,T] (labels: next tokens, negative = ignored). UserError: a
  // token that is not in the vocabulary, or no label that counts.
  Result step(const i32* tokens, const i32* labels);

  // Of B sequences; for tests and fixtures: logits[B*T, V] (unpadded).
  std::vector<T> logits(const i32* tokens, i64 sequences);

  const std::vector<Param>& params() const { return table_; }
  // By index in params(); stored (padded) rows. A tied head has the embedding's weight; its own part of the
  // gradient is added into the embedding's, and its gradient is empty.
  const std::vector<T>& weight(int param) const;
  const std::vector<Real>& gradient(int param) const;  // raw: scaled by 1/valid labels, before clipping
  std::vector<T>& mutable_weight(int param);
  std::vector<Real>& first_moment(int param);
  std::vector<Real>& second_moment(int param);
  i64 steps_done() const { return step_; }

 private:
  // Of the same segment of several sequences, or of several segments.
  struct Sum {
    double loss = 0;
    Tensors<Real> grads;
  };
  using Sums = std::vector<Sum>;
  Sums sums_of(i64 lo, i64 hi, const i32* tokens, const i32* labels, Real scale) const;
  Sum sum_of(i64 lo, i64 hi, Sums& segments) const;
  void add(Sum& into, const Sum& other) const;
  double gradient_norm() const;
  void update(double norm);
  template <class Y>
  Tensors<Y> tensors() const;  // zeros, one for each parameter
  Real* master(std::size_t param);
  std::size_t owner(int param) const;
  i64 count_valid(const i32* tokens, const i32* labels) const;

  ModelConfig config_;
  Settings settings_;
  Ops<Real> ops_;
  Lanes& lanes_;
  std::vector<Param> table_;
  Tensors<T> weights_;  // a tied head's is empty, as are the next
  Tensors<Real> grads_, first_, second_;
  Tensors<Real> masters_;  // where weights are stored as something narrower; from the first step on
  Model<T> model_;
  i64 step_ = 0;
};

}  // namespace lockstep
