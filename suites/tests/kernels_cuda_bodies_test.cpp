// The bodies of the GPU's kernels, run here block by block: as a set of kernels of this program they go
// through all of the tests of vector kernels, which hold them to the plain ones bit by bit.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/table.hpp"
#include "suites/tests/kernels_cuda_here.hpp"
#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

const KernelSet set(
    "cuda-bodies", -1, [] { return true; }, cuda::fill<Here>);

TEST(CudaBodies, AreASetOfKernelsOfTheseTests) {
  ASSERT_FALSE(kernel_sets().empty());
  EXPECT_STREQ(kernel_sets().front()->name, "cuda-bodies");
}

// Every entry is there: one left out would be the plain kernel, and equal to itself.
TEST(CudaBodies, FillTheWholeTable) {
  Ops<float> ops = plain(), table = plain();
  cuda::fill<Here>(table);
  int same = 0;
  const auto differs = [&](const auto& a, const auto& b) { same += a.call == b.call; };
  differs(ops.matmul, table.matmul), differs(ops.matmul_dx, table.matmul_dx);
  differs(ops.matmul_dw, table.matmul_dw), differs(ops.embed, table.embed);
  differs(ops.embed_dw, table.embed_dw), differs(ops.rms_norm, table.rms_norm);
  differs(ops.rms_norm_dx, table.rms_norm_dx), differs(ops.rms_norm_dw, table.rms_norm_dw);
  differs(ops.rope, table.rope), differs(ops.attention, table.attention);
  differs(ops.attention_dx, table.attention_dx), differs(ops.swiglu, table.swiglu);
  differs(ops.swiglu_dx, table.swiglu_dx), differs(ops.ce_max, table.ce_max);
  differs(ops.ce_sum, table.ce_sum), differs(ops.ce_loss, table.ce_loss);
  differs(ops.ce_dx, table.ce_dx), differs(ops.add, table.add);
  differs(ops.copy, table.copy), differs(ops.zero, table.zero);
  differs(ops.swap_axes, table.swap_axes), differs(ops.repeat_rows, table.repeat_rows);
  differs(ops.sum_rows, table.sum_rows);
  differs(ops.add_squares, table.add_squares), differs(ops.adamw, table.adamw);
  EXPECT_EQ(same, 0);
}

}  // namespace
}  // namespace lockstep::simd_test
