#include "kernels/bench/spin.hpp"
#include "kernels/cpu/vec_avx2.hpp"

namespace lockstep::bench {
double spin_avx2() { return spin<simd::Avx2>(); }
}  // namespace lockstep::bench
