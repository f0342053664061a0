#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

template <class Real>
class Embed : public testing::Test {
 protected:
  const Ops<Real> ops = plain_ops<Real>();
};
TYPED_TEST_SUITE(Embed, Reals);

std::vector<i32> random_ids(i64 n, i64 vocabulary) {
  Random random(1);
  std::vector<i32> ids;
  for (i64 i = 0; i < n; ++i) ids.push_back(static_cast<i32>(random.below(vocabulary)));
  return ids;
}

TYPED_TEST(Embed, TakesRowsThisRankHolds) {
  const i64 M = 23, D = 5, first = 6, rows = 7;
  const auto table = random_vector<TypeParam>(rows * D, 2);
  const auto ids = random_ids(M, 20);
  const auto y = on_lanes<TypeParam>([&](Lanes& lanes) {
    std::vector<TypeParam> out(M * D, TypeParam(7));
    this->ops.embed(lanes, out.data(), table.data(), ids.data(), M, D, first, rows);
    return out;
  });
  for (i64 m = 0; m < M; ++m)
    for (i64 d = 0; d < D; ++d) {
      const bool mine = ids[m] >= 6 && ids[m] < 13;
      ASSERT_EQ(y[m * D + d], mine ? table[(ids[m] - 6) * D + d] : TypeParam(0));
    }
}

// Every shard's rows are the whole table's, in the same order of additions.
TYPED_TEST(Embed, GradientSumsTokensInOrder) {
  const i64 T = 40, D = 1037, vocabulary = 12;
  const auto dy = random_vector<TypeParam>(T * D, 3);
  const auto ids = random_ids(T, vocabulary - 2);  // two rows stay untouched
  for (const i64 shards : {1, 2, 3})
    for (i64 shard = 0; shard < shards; ++shard)
      for (const bool add : {false, true}) {
        const i64 rows = vocabulary / shards, first = shard * rows;
        const auto before = random_vector<TypeParam>(rows * D, 4);
        const auto got = on_lanes<TypeParam>([&](Lanes& lanes) {
          auto out = before;
          this->ops.embed_dw(lanes, out.data(), dy.data(), ids.data(), T, D, first, rows, add);
          return out;
        });
        for (i64 row = 0; row < rows; ++row)
          for (i64 d = 0; d < D; ++d) {
            TypeParam sum = 0;
            for (i64 t = 0; t < T; ++t)
              if (ids[t] == first + row) sum = sum + dy[t * D + d];
            ASSERT_EQ(got[row * D + d], add ? before[row * D + d] + sum : sum) << row << "," << d;
          }
      }
}

TEST(EmbedGradient, AgreesWithDifferences) {
  const Ops<double> ops = plain_ops<double>();
  Lanes lanes;
  const i64 T = 20, D = 3, rows = 6, first = 2;
  const auto ids = random_ids(T, 10);
  const auto dy = random_vector<double>(T * D, 5), table = random_vector<double>(rows * D, 6);
  std::vector<double> dtable(rows * D);
  ops.embed_dw(lanes, dtable.data(), dy.data(), ids.data(), T, D, first, rows, false);
  const auto f = [&](const std::vector<double>& moved) {
    std::vector<double> y(T * D);
    ops.embed(lanes, y.data(), moved.data(), ids.data(), T, D, first, rows);
    return y;
  };
  expect_gradient(f, table, dy, dtable, "dtable");
}

}  // namespace
}  // namespace lockstep::kernel_test
