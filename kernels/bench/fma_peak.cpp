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
#if defined(__x86_64__)
  double (*spin)() = set == "avx2" ? spin_avx2 : set == "avx512" ? spin_avx512 : nullptr;
  if (!spin) return 0;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = thread_seconds();
    const double operations = spin();
    const double rate = operations / (thread_seconds() - start);
    if (rate > best) best = rate;
  }
  return best;
#else
  return set.empty() ? 0 : 0;
#endif
}

}  // namespace lockstep::bench
