#include "kernels/cpu/kernel_set.hpp"
#include "kernels/cpu/sets.hpp"
#include "kernels/cpu/vec_neon.hpp"

namespace lockstep::simd {
void apply_neon(Ops<float>& ops) { apply<Neon>(ops); }
}  // namespace lockstep::simd
