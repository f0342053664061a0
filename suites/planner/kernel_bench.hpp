// Any kernel with any sizes, timed alone.
#pragma once
#include <string>
#include <vector>

#include "kernels/ops.hpp"
#include "suites/planner/sampling.hpp"

namespace lockstep {

// Operands lie behind each other in memory of the bench's own, and each call takes the next: `far` bytes
// later they come again. So with as much as a step works through, kernels find them as far away as they do in
// a step; with 0 they find them where the call before left them.
class KernelBench {
 public:
  KernelBench(const std::string& isa, int threads, double far);
  // `numbers`: the kernel's, as a trace has them. std::logic_error: no kernel of that name.
  Sample time(const std::string& kernel, const std::vector<double>& numbers, double batch_seconds = 1e-3);
  // Numbers that all operands of one call may have together.
  static constexpr i64 kMost = i64{24} << 20;

 private:
  // What is read and what is written are apart, so that no result is another call's operand, and grows or
  // fades to numbers that take longer.
  struct Ring {
    explicit Ring(i64 n) : far(n), numbers(static_cast<std::size_t>(n + kMost), 0.25f) {}
    void next_call();
    float* take(i64 n);
    i64 far, at = 0;
    std::vector<float> numbers;
  };
  float* in(i64 n) { return read_.take(n); }
  float* out(i64 n) { return written_.take(n); }
  template <class Call>
  Sample timed(const Call& call);
  Sample matmuls(const std::string& kernel, const std::vector<i64>& x);
  Sample attentions(const std::string& kernel, const std::vector<i64>& x);
  Sample ends(const std::string& kernel, const std::vector<i64>& x);
  Sample rows(const std::string& kernel, const std::vector<i64>& x);
  Sample elements(const std::string& kernel, i64 n);

  double batch_seconds_ = 1e-3;
  Ops<float> ops_;
  Lanes lanes_;
  Ring read_, written_;
  std::vector<i32> ids_;
  std::vector<i64> words_;
};

}  // namespace lockstep
