// The gate of fast mode, where sums have any order and bits may differ. Every compared step starts from the
// reference's weights, so that nothing but one gradient's rounding is compared; the optimizer is then
// checked bit for bit on the plan's own gradients.
#pragma once
#include <memory>

#include "suites/gates/gates.hpp"

namespace lockstep {

// What a tensor's gradient g may differ from float64's g64, as a norm:
//   |g - g64| <= kFastMultiple |gr - g64| + fast_floor |g64|,   gr: the reference's, in the run's type of
//   numbers
inline constexpr double kFastMultiple = 4, kFastFloor = 0x1p-20, kFastFloorBf16 = 0x1p-10;
inline double fast_floor(const Settings& s) { return s.activation_bytes == 2 ? kFastFloorBf16 : kFastFloor; }

// The single-device run in float64, each step from the reference's weights.
struct FastReference {
  struct Step {
    double loss;
    std::vector<std::vector<double>> gradient;  // by parameter, stored rows; a tied head's is empty
    std::vector<double> allowed;                // by parameter: the bound above
    double loss_allowed;
    // Where the reference is furthest from these, as a part of theirs: "gradient of ...".
    double reference_off = 0;
    std::string where;
  };
  std::vector<Step> steps;
};
// Further than this is no rounding: the kernels that the reference and all plans share are wrong then, and
// the bound above would grow with their error. Rounding came to 1.3e-6 of a gradient in the suites, in
// bf16 to 0.02.
inline double reference_bound(const Settings& s) { return s.activation_bytes == 2 ? 0x1p-3 : 0x1p-10; }
// Empty: the reference is as near to float64 as it must be.
std::string strays(const FastReference&, const Settings&);
// Of one step of any tokens and labels [B, T], from any weights. reference: the reference's step.
class Float64 {
 public:
  Float64(const ModelConfig&, const Settings&, int threads = 1);
  ~Float64();
  FastReference::Step step(const std::vector<std::vector<float>>& before, const i32* tokens,
                           const i32* labels, const Whole::Step& reference);

 private:
  struct Training;
  std::unique_ptr<Training> training_;
};

FastReference fast_reference(const ModelConfig&, const Settings&, const TokenFile&, const Whole& reference,
                             const std::vector<std::vector<float>>& initial);

// Euclidean norm of a - b over the rows that exist (pads are the last ones). T: float, double.
template <class T>
double distance(const Param&, const std::vector<T>& a, const std::vector<double>& b);
template <class T>
double norm(const Param&, const std::vector<T>& a);

struct FastVerdict {
  std::string numbers = "not run", messages = "not run", memory = "not run";
  double worst = 0;   // largest difference, as a part of what is allowed
  std::string where;  // and of what: "step 1: gradient of model.norm.weight"
  bool pass() const { return numbers == "pass" && messages == "pass" && memory == "pass"; }
};

// Runs a plan that was prepared with settings.fast. Never throws for what the plan does wrong.
FastVerdict judge_fast(const Prepared&, const Whole& reference, const FastReference&, const GateOptions&,
                       const std::vector<std::vector<float>>& initial);

}  // namespace lockstep
