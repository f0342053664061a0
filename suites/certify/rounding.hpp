// How far a right trainer's loss and gradients may be from float64's: a few times what rounding does to the
// reference, in the trainer's type of numbers, at the trainer's own weights.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "suites/gates/fast.hpp"

namespace lockstep {

// How long a gradient is along float64's. Rounding errors point in all directions and mostly cancel along
// this one; a wrong divisor changes only this.
struct Along {
  double product = 0, square = 0;  // with float64's; of float64's
  Along() = default;
  Along(const Param&, const std::vector<float>& gradient, const std::vector<double>& float64s);
  double scale() const { return product / square; }
  Along& operator+=(const Along& other);
};

class Rounding {
 public:
  using Weights = std::vector<std::vector<float>>;  // by parameter [rows, cols]; a tied head's is empty

  // Settings say the numbers: float32, or bf16 beside float32 master weights.
  Rounding(const ModelConfig&, const Settings&, int threads = 1);
  ~Rounding();

  // The step in float64, from master weights, on tokens and labels [B, T]. What the reference's was off is
  // learned, at these weights and twice at some that differ in the last bits of their type.
  const FastReference::Step& step(i64 number, const Weights& before, const std::vector<i32>& tokens,
                                  const std::vector<i32>& labels);

  // Of the step above:  kFastMultiple r + fast_floor |float64's|.  r of the loss: the most it was off so far;
  // beside bf16 its floor is a rounding to that, which some trainers keep their loss in.
  double loss_allowed() const;
  // r of a gradient (Euclidean norms): the largest part of a float64 gradient by which the reference's was
  // off, of all tensors of that name in any layer, so far. One tensor's own may come out small by chance,
  // and there are many.
  double allowed(std::size_t param) const;
  double part_allowed(std::size_t param) const;                      // of the gradient
  double length(std::size_t param) const { return length_[param]; }  // of float64's
  // Whether rounding is more than reference_bound() of the gradient: then of its numbers nothing can be said.
  // Of its length there can, unless rounding is all of it: the least and most that a right one has, else 0
  // and infinity.
  bool drowned(std::size_t param) const { return drowned_[param]; }
  std::pair<double, double> lengths(std::size_t param) const;
  // How far from 1 the scale may be: of a gradient, and of all together that are not drowned. As r, of all
  // tensors of that name so far, or of any on average; those of one are few, and may come out small by
  // chance.
  double scale_allowed(std::size_t param) const;
  double common_scale_allowed() const;

 private:
  struct Reference;
  template <class T>
  struct ReferenceIn;
  void learn(const Whole::Step& rounded);
  void learn_scales();
  double mean_scale_off() const;  // root mean square

  const Settings settings_;
  const std::vector<Param> table_;
  Float64 float64_;
  std::unique_ptr<Reference> reference_;
  FastReference::Step exact_;
  std::vector<double> length_;         // of its gradients, by parameter
  std::vector<std::string> kinds_;     // by parameter
  std::map<std::string, double> off_;  // by kind of tensor: r
  double loss_off_ = 0;
  std::vector<bool> drowned_;                // by parameter
  std::vector<double> least_, most_;         // length of the reference's gradient in this step
  std::vector<bool> nothing_but_;            // rounding
  std::vector<std::vector<Along>> along_;    // of the reference's gradients in this step, by parameter
  std::map<std::string, double> scale_off_;  // by kind of tensor, the most so far
  double common_off_ = 0;                    // likewise, of all together
  double scale_squares_ = 0, scales_ = 0;    // sum over all samples so far; their number
};

}  // namespace lockstep
