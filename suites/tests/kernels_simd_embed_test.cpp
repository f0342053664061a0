// The embedding and its gradient give the plain ones' bits, where a GPU's kernels have their edges: 2048
// tokens are looked at together, four rows are added at once, a block makes 4096 columns.
#include <fmt/format.h>

#include "kernels/bf16.hpp"
#include "suites/tests/kernels_simd.hpp"

namespace lockstep::simd_test {
namespace {

struct Case {
  i64 T, D, vocabulary;  // 0: all tokens alike. The rank has two thirds of the rows
  int shift = 0;         // elements by which an address is off
};

class SimdEmbed : public testing::TestWithParam<Case> {
 protected:
  const Case c = GetParam();
  const i64 first = c.vocabulary > 0 ? 2 : 0, rows = 2 * c.vocabulary / 3 + 1;
  Random random{21};
  std::vector<i32> ids = [&] {
    std::vector<i32> all(static_cast<std::size_t>(c.T));
    for (i32& id : all) id = static_cast<i32>(random.below(c.vocabulary > 0 ? c.vocabulary + 2 : 1));
    for (i64 t = 7; t < c.T; t += 50) all[t] = -100;  // ignored
    return all;
  }();
  template <class X>
  std::vector<X> numbers(i64 n) {
    std::vector<X> x;
    for (i64 i = 0; i < n + c.shift; ++i) x.push_back(X(random.value(1.0f)));
    return x;
  }

  template <class X>
  void rows_are_taken() {
    const auto table = numbers<X>(rows * c.D);
    const auto run = [&](const Ops<float>& ops, Lanes& lanes) {
      std::vector<X> y(static_cast<std::size_t>(c.T * c.D + 1), X(7));  // one more, that must stay
      ops.embed(lanes, y.data(), table.data() + c.shift, ids.data(), c.T, c.D, first, rows);
      return std::vector<float>(y.begin(), y.end());
    };
    const auto want = run(plain(), one_lane());
    for_every_set([&](const Ops<float>& ops, Lanes& lanes) { EXPECT_EQ(run(ops, lanes), want); });
  }

  template <class X>
  void gradient_is_added_in_order() {
    const auto dy = numbers<X>(c.T * c.D);
    const auto before = random.values(rows * c.D);
    for (const bool add : {true, false}) {
      const auto run = [&](const Ops<float>& ops, Lanes& lanes) {
        Output dtable(before);
        ops.embed_dw(lanes, dtable.data(), dy.data() + c.shift, ids.data(), c.T, c.D, first, rows, add);
        return dtable;
      };
      const Output want = run(plain(), one_lane());
      for_every_set([&](const Ops<float>& ops, Lanes& lanes) {
        EXPECT_TRUE(same(want, run(ops, lanes), c.D, add ? "added" : "alone"));
      });
    }
  }
};

TEST_P(SimdEmbed, RowsEqualPlain) { rows_are_taken<float>(), rows_are_taken<bf16>(); }
TEST_P(SimdEmbed, GradientEqualsPlain) {
  gradient_is_added_in_order<float>(), gradient_is_added_in_order<bf16>();
}

// Every token of two windows alike, and one more; few rows, each in every window; most tokens alone; tokens
// that begin in the second window and come again in the third; more columns than a block's; columns or
// addresses that cannot be had in eights.
INSTANTIATE_TEST_SUITE_P(Of, SimdEmbed,
                         testing::Values(Case{4097, 8, 0}, Case{6150, 40, 5}, Case{2100, 16, 3000},
                                         Case{4500, 8, 3000}, Case{300, 4200, 40}, Case{60, 8200, 9},
                                         Case{2500, 13, 6}, Case{2200, 24, 30, 1}),
                         [](const auto& of) {
                           return fmt::format("T{}D{}V{}S{}", of.param.T, of.param.D, of.param.vocabulary,
                                              of.param.shift);
                         });

}  // namespace
}  // namespace lockstep::simd_test
