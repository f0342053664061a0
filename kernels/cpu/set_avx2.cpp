#include "kernels/cpu/kernel_set.hpp"
#include "kernels/cpu/sets.hpp"
#include "kernels/cpu/vec_avx2.hpp"

namespace lockstep::simd {
void apply_avx2(Ops<float>& ops) { apply<Avx2>(ops); }
}  // namespace lockstep::simd
