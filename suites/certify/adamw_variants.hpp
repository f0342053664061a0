// AdamW followed step by step on the gradients that a trainer says it had, and beside it what trainers do
// that is nearly AdamW: which of them these steps can tell from it, and which of them the trainer did.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "ref/optimizer.hpp"
#include "ref/params.hpp"

namespace lockstep {

class AdamWVariants {
 public:
  // clips: the settings' clip is the trainer's.
  AdamWVariants(const std::vector<Param>&, const Settings&, bool clips);

  struct Rates {
    double here;
    std::optional<double> before, after;  // of the steps beside it
  };
  // loose: the part of the norm by which the trainer's may have been another.
  void begin(i64 step, const Rates&, double gradient_norm, double loose = 0);

  // Of one tensor: its weights after AdamW in float64, and what a right trainer's may differ from them,
  //   kFastMultiple |w32 - w64| + kFastFloor |w64 - w| + kWeightFloor |w64|      (Euclidean norms)
  // where w32 is AdamW in float32: the rounding of what is added, and that of the sum. Where gradients were
  // clipped by a norm that may have been another, twice that part of the update too.
  struct After {
    std::vector<double> weight;
    double allowed;
  };
  // after: the trainer's weights. Every tensor of each step, in order.
  After follow(int param, const std::vector<float>& before, const std::vector<float>& gradient,
               const std::vector<float>& after);

  // Of the step that was followed: the variant that made all tensors; empty: none of them did.
  std::string made_by() const;
  // Of all steps: the variants that a bound's worth, twice, never told from AdamW.
  std::vector<std::string> untold() const;

 private:
  using Tensors = std::vector<std::vector<float>>;
  enum class Decay { matrices, all, but_embedding, none, in_gradient };
  struct Variant {
    std::string name;
    Settings settings;
    Decay decay = Decay::matrices;
    int rate = 0;  // of so many steps later
    bool corrects_bias = true, corrects_eps = false, bf16_moments = false;
    bool own_moments = false;
    Tensors first{}, second{};
    double told = 0,
           off = 0;  // furthest from AdamW in any step, from the trainer in this one: parts of the bound
    bool applies = false;  // in this step
  };
  std::vector<double> weights_by(Variant&, int param, const std::vector<float>& before,
                                 const std::vector<float>& gradient, const std::vector<double>& first,
                                 const std::vector<double>& second);

  const std::vector<Param>& table_;
  Settings settings_;
  Ops<double> ops64_ = double_ops();
  Ops<float> ops32_ = cpu_ops();
  Lanes lanes_{1};
  std::vector<std::vector<double>> first64_, second64_;
  Tensors first32_, second32_;
  std::vector<Variant> variants_;
  i64 step_ = 0;
  double norm_ = 0, loose_ = 0;
  Rates rates_{};
};

}  // namespace lockstep
