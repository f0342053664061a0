#include "kernels/bench/spin.hpp"
#include "kernels/cpu/vec_avx512.hpp"

namespace lockstep::bench {
double spin_avx512() { return spin<simd::Avx512>(); }
}  // namespace lockstep::bench
