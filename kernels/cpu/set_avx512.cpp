#include "kernels/cpu/kernel_set.hpp"
#include "kernels/cpu/sets.hpp"
#include "kernels/cpu/vec_avx512.hpp"

namespace lockstep::simd {
void apply_avx512(Ops<float>& ops) { apply<Avx512>(ops); }
}  // namespace lockstep::simd
