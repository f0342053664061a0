#include "kernels/bench/fma_peak.hpp"

#include <ctime>

namespace lockstep::bench {
namespace {

double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

float sink(float x) {
  static volatile float last;
  last = x;
  return last;
}

double fma_peak(const std::string& set) {
  double (*spin)() = nullptr;
#if defined(__x86_64__)
  if (set == "avx2") spin = spin_avx2;
  if (set == "avx512") spin = spin_avx512;
#elif defined(__aarch64__)
  if (set == "neon") spin = spin_neon;
#endif
  if (!spin) return 0;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = thread_seconds();
    const double operations = spin();
    const double rate = operations / (thread_seconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}

}  // namespace lockstep::bench
