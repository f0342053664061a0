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

template <class T>
class Trainer {
 public:
  struct Result {
    double loss;       // mean over the step's valid labels
    double grad_norm;  // before clipping
  };

  // Weights are zero until initialise() or load(). UserError: impossible settings.
  Trainer(const ModelConfig&, const Settings&, const Ops<T>&, Lanes&);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  void initialise();  // from settings.seed
  // One parameter [rows, cols], Hugging Face name. UserError: the model has no such parameter.
  void load(const std::string& name, const float* values);

  // One optimizer step on tokens, labels [B,T] (labels: next tokens, negative = ignored). UserError: a
  // token that is not in the vocabulary, or no label that counts.
  Result step(const i32* tokens, const i32* labels);

  // Of B sequences; for tests and fixtures: logits[B*T, V] (unpadded).
  std::vector<T> logits(const i32* tokens, i64 sequences);

  const std::vector<Param>& params() const { return table_; }
  // By index in params(); stored (padded) rows. A tied head has the embedding's weight; its own part of the
  // gradient is added into the embedding's, and its gradient is empty.
  const std::vector<T>& weight(int param) const;
  const std::vector<T>& gradient(int param) const;  // raw: scaled by 1/valid labels, before clipping
  std::vector<T>& mutable_weight(int param);
  std::vector<T>& first_moment(int param);
  std::vector<T>& second_moment(int param);
  i64 steps_done() const { return step_; }

 private:
  double gradient_of(i64 lo, i64 hi, const i32* tokens, const i32* labels, T scale, Tensors<T>& grads) const;
  double gradient_norm() const;
  void update(double norm);
  Tensors<T> tensors() const;  // zeros, one for each parameter
  std::size_t owner(int param) const;
  i64 count_valid(const i32* tokens, const i32* labels) const;

  ModelConfig config_;
  Settings settings_;
  Ops<T> ops_;
  Lanes& lanes_;
  std::vector<Param> table_;
  Tensors<T> weights_, grads_, first_, second_;  // a tied head's are empty
  Model<T> model_;
  i64 step_ = 0;
};

}  // namespace lockstep
