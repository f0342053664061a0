// Any kernel with any sizes, timed alone.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.hpp"
#include "parallel/device/engine.hpp"
#include "suites/planner/measure/sampling.hpp"

namespace lockstep {

// Operands lie behind each other in memory of the bench's own, and each call takes the next: `far` bytes
// later they come again. So with as much as a step works through, kernels find them as far away as they do in
// a step; with 0 they find them where the call before left them.
class KernelBench {
 public:
  // most: numbers that all operands of one call may have together.
  KernelBench(const std::string& isa, int threads, double far, i64 most = kMost);
  // In the memory of an accelerator, by its kernels. The engine has to stay, and keeps that memory.
  KernelBench(Engine&, double far, i64 most);
  // `numbers`, `halves`: the kernel's, as a trace has them. std::logic_error: no kernel of that name, or too
  // large.
  Sample time(const std::string& kernel, const std::vector<double>& numbers, double batch_seconds = 1e-3,
              unsigned halves = 0);
  static i64 operands(const std::string& kernel, const std::vector<double>& numbers);  // of a call, numbers
  static constexpr i64 kMost = i64{24} << 20;

 private:
  KernelBench(Engine*, const Ops<float>&, std::unique_ptr<Lanes>, double far, i64 most);
  // What is read and what is written are apart, so that no result is another call's operand, and grows or
  // fades to numbers that take longer.
  struct Ring {
    float* numbers;
    i64 far, size, at = 0;
    void next_call();
    float* take(i64 n);
  };
  float* in(i64 n) { return read_.take(n); }
  float* out(i64 n) { return written_.take(n); }
  template <class T>
  T* memory(i64 n);
  void put(void* to, const void* from, i64 bytes);
  void fill(const Ring&, i64 n, const std::vector<float>& with);
  template <class Call>
  Sample timed(const Call& call);
  template <class... P, class... A>
  void call(const Op<P...>&, A...);
  Sample matmuls(const std::string& kernel, const std::vector<i64>& x);
  Sample attentions(const std::string& kernel, const std::vector<i64>& x);
  Sample ends(const std::string& kernel, const std::vector<i64>& x);
  Sample rows(const std::string& kernel, const std::vector<i64>& x);
  Sample elements(const std::string& kernel, i64 n);

  double batch_seconds_ = 1e-3;
  unsigned halves_ = 0;
  Engine* engine_;
  Ops<float> ops_;
  std::unique_ptr<Lanes> own_lanes_;
  Lanes& lanes_;
  std::vector<std::unique_ptr<double[]>> own_;  // memory of this program
  i64 most_;
  Ring read_, written_;
  i64* words_;
};

}  // namespace lockstep
