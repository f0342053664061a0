#include <stdexcept>
#include <string>

#include "suites/tests/kernels_check.hpp"

namespace lockstep::kernel_test {
namespace {

// Two sets of this test's own, which pretend to run here only while it looks.
bool on = false;
void slow_zero(Lanes&, float*, i64) {}
void slow_copy(Lanes&, float*, const float*, i64) {}
void fast_zero(Lanes&, float*, i64) {}

const KernelSet fast{"test-fast", 1001, [] { return on; },
                     [](Ops<float>& ops) { ops.zero.call = fast_zero; }};
const KernelSet slow{"test-slow", 1000, [] { return on; },
                     [](Ops<float>& ops) {
                       ops.zero.call = slow_zero;
                       ops.copy.call = slow_copy;
                     }};
const KernelSet never{"test-never", 999, [] { return false; },
                      [](Ops<float>& ops) { ops.zero.call = nullptr; }};

std::string complaint(const std::string& isa) {
  try {
    cpu_ops(isa);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "none";
}

TEST(KernelSets, AreListedSlowestFirst) {
  const auto& sets = kernel_sets();
  ASSERT_GE(sets.size(), 3u);
  for (std::size_t i = 1; i < sets.size(); ++i) EXPECT_LE(sets[i - 1]->speed, sets[i]->speed);
}

TEST(KernelSets, FasterOverridesSlowerOverridesPlain) {
  on = true;
  const Ops<float> plain = plain_ops<float>();
  const Ops<float> best = cpu_ops("auto"), one = cpu_ops("test-slow"), none = cpu_ops("plain");
  on = false;
  EXPECT_EQ(best.zero.call, fast_zero);
  EXPECT_EQ(best.copy.call, slow_copy);
  EXPECT_EQ(one.zero.call, slow_zero);
  EXPECT_EQ(none.zero.call, plain.zero.call);
  EXPECT_EQ(none.copy.call, plain.copy.call);
  EXPECT_NE(cpu_ops("auto").zero.call, fast_zero);
}

TEST(KernelSets, WrongNamesAreExplained) {
  EXPECT_NE(complaint("neon").find("there is no isa 'neon'"), std::string::npos);
  EXPECT_NE(complaint("neon").find("plain"), std::string::npos);
  EXPECT_NE(complaint("").find("there is no isa ''"), std::string::npos);
  EXPECT_NE(complaint("test-never").find("does not run on this machine"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::kernel_test
