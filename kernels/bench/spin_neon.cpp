#include "kernels/bench/spin.hpp"
#include "kernels/cpu/vec_neon.hpp"

namespace lockstep::bench {
double spin_neon() { return spin<simd::Neon>(); }
}  // namespace lockstep::bench
