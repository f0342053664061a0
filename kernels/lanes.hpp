// The worker threads of one rank. They split rows of outputs, never a sum, so their number changes no bit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace lockstep {

using i32 = std::int32_t;
using i64 = std::int64_t;

class Lanes {
 public:
  // Kernel scratch per thread; a kernel blocks its work to fit, whatever the shape.
  static constexpr std::size_t kScratchBytes = std::size_t{4} << 20;

  explicit Lanes(int threads = 1);
  ~Lanes();
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  int count() const { return count_; }
  // 64-byte aligned, kScratchBytes, private to one lane; contents are garbage between calls.
  void* scratch(int lane) const;

  // Calls f(begin, end, lane) so that [0, n) is covered once; boundaries are multiples of `grain`.
  // Returns when all are done. Allocates nothing. f must not throw.
  template <class F>
  void split(i64 n, i64 grain, F&& f) {
    using Fn = std::remove_reference_t<F>;
    run(
        n, grain, [](void* p, i64 lo, i64 hi, int lane) { (*static_cast<Fn*>(p))(lo, hi, lane); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Task = void (*)(void*, i64, i64, int);
  void run(i64 n, i64 grain, Task task, void* self);
  int count_;
  struct Crew;
  std::unique_ptr<Crew> crew_;
};

}  // namespace lockstep
