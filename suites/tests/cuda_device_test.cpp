// On a GPU. The tests of vector kernels are linked into this program: its memory is made the GPU's to read
// and write too, so that the GPU's kernels are one more set that they hold to the plain ones bit by bit.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "parallel/device/engine.hpp"
#include "suites/gates/gates.hpp"
#include "suites/run/reference.hpp"
#include "suites/tests/kernels_flash.hpp"
#include "suites/tests/kernels_simd.hpp"

namespace lockstep {
namespace {

// Host memory of the engine's in blocks of powers of two; what has been given back is handed out again.
class Slab {
 public:
  static constexpr std::size_t kBytes = std::size_t{3} << 30;
  void begin(void* at) { begin_ = next_ = static_cast<std::byte*>(at); }
  bool holds(const void* at) const { return begin_ && at >= begin_ && at < begin_ + kBytes; }
  void* take(std::size_t bytes) {
    const int size = std::bit_width(bytes + kHead - 1);
    const std::lock_guard lock(mutex_);
    std::byte* at = free_[size];
    if (at) {
      free_[size] = *reinterpret_cast<std::byte**>(at + kHead);
    } else {
      at = next_;
      if (at + (std::size_t{1} << size) > begin_ + kBytes) throw std::bad_alloc();
      next_ += std::size_t{1} << size;
    }
    *reinterpret_cast<int*>(at) = size;
    return at + kHead;
  }
  void give(void* p) {
    std::byte* at = static_cast<std::byte*>(p) - kHead;
    const std::lock_guard lock(mutex_);
    std::byte*& list = free_[*reinterpret_cast<int*>(at)];
    *static_cast<std::byte**>(p) = list;
    list = at;
  }
  explicit operator bool() const { return begin_; }

 private:
  static constexpr std::size_t kHead = 64;
  std::mutex mutex_;
  std::byte *begin_ = nullptr, *next_ = nullptr;
  std::byte* free_[64] = {};
};
Slab slab;

}  // namespace
}  // namespace lockstep

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (lockstep::slab) return lockstep::slab.take(bytes);
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  lockstep::slab.holds(p) ? lockstep::slab.give(p) : std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { operator delete(p); }

namespace lockstep {
namespace {

std::string complaint;  // why there is no GPU

// Before the tests, for all memory that they take must be the slab's. It lives as long as the program.
Engine* const engine = [] {
  Engine* found = nullptr;
  try {
    found = accelerator("cuda").engine(0, plain_ops<float>(), false).release();
    slab.begin(found->allocate(Medium::host, static_cast<i64>(Slab::kBytes)));
  } catch (const std::exception& e) {
    complaint = e.what();
  }
  return found;
}();

// Entries of the GPU's table, each done when it returns.
void wait(Engine& on) {
  float nothing = 0;
  on.download(&nothing, &nothing, 0);
}
template <auto entry, class... A>
void set(Op<A...>& op) {
  op.call = [](Lanes&, A... a) {
    (engine->ops().*entry).call(engine->lanes(), a...);
    wait(*engine);
  };
  if ((engine->ops().*entry).mixed)
    op.mixed = [](Lanes&, unsigned halves, A... a) {
      (engine->ops().*entry).mixed(engine->lanes(), halves, a...);
      wait(*engine);
    };
}
const KernelSet cuda_set(
    "cuda", 1000, [] { return engine != nullptr; },
    [](Ops<float>& ops) {
      using T = Ops<float>;
      set<&T::matmul>(ops.matmul), set<&T::matmul_dx>(ops.matmul_dx), set<&T::matmul_dw>(ops.matmul_dw);
      set<&T::embed>(ops.embed), set<&T::embed_dw>(ops.embed_dw), set<&T::rms_norm>(ops.rms_norm);
      set<&T::rms_norm_dx>(ops.rms_norm_dx), set<&T::rms_norm_dw>(ops.rms_norm_dw), set<&T::rope>(ops.rope);
      set<&T::attention>(ops.attention), set<&T::attention_dx>(ops.attention_dx), set<&T::swiglu>(ops.swiglu);
      set<&T::swiglu_dx>(ops.swiglu_dx), set<&T::ce_max>(ops.ce_max), set<&T::ce_sum>(ops.ce_sum);
      set<&T::ce_loss>(ops.ce_loss), set<&T::ce_dx>(ops.ce_dx), set<&T::add>(ops.add);
      set<&T::copy>(ops.copy), set<&T::zero>(ops.zero), set<&T::add_squares>(ops.add_squares);
      set<&T::adamw>(ops.adamw), set<&T::swap_axes>(ops.swap_axes);
      set<&T::repeat_rows>(ops.repeat_rows), set<&T::sum_rows>(ops.sum_rows);
    });

class CudaDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (!engine) GTEST_SKIP() << "no GPU: " << complaint;
  }
};

// The kernels that fibers run elsewhere (kernels_flash_test.cpp).
template <class X>
void check_fast_attention(Engine* fast) {
  for (const auto& [T, H, K, hd] : {std::array<i64, 4>{63, 2, 1, 64},
                                    {129, 4, 1, 64},
                                    {200, 2, 1, 128},
                                    {300, 2, 2, 128},
                                    {600, 4, 2, 64},
                                    {600, 2, 1, 128}}) {
    const cuda::Problem<X> p(2, T, H, K, hd);
    cuda::Attended<X> got(p);
    fast->ops().attention(fast->lanes(), got.o.data(), got.lse.data(), p.q.data(), p.k.data(), p.v.data(), 2,
                          T, H, K, hd);
    fast->ops().attention_dx(fast->lanes(), got.dq.data(), got.dk.data(), got.dv.data(), p.dO.data(),
                             p.q.data(), p.k.data(), p.v.data(), p.o.data(), p.lse.data(), 2, T, H, K, hd);
    wait(*fast);
    cuda::expect_near(cuda::distances(got, p), p);
    // The exact kernels would be near too, and are not meant.
    cuda::Attended<X> exact(p);
    engine->ops().attention(engine->lanes(), exact.o.data(), exact.lse.data(), p.q.data(), p.k.data(),
                            p.v.data(), 2, T, H, K, hd);
    engine->ops().attention_dx(engine->lanes(), exact.dq.data(), exact.dk.data(), exact.dv.data(),
                               p.dO.data(), p.q.data(), p.k.data(), p.v.data(), p.o.data(), p.lse.data(), 2,
                               T, H, K, hd);
    wait(*engine);
    const auto same = [](const std::vector<X>& a, const std::vector<X>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(X)) == 0;
    };
    EXPECT_FALSE(same(got.o, exact.o)) << T;
    EXPECT_FALSE(same(got.dq, exact.dq)) << T;
    EXPECT_FALSE(same(got.dv, exact.dv)) << T;
  }
}
// With this variable of the environment, or null and the reason.
std::unique_ptr<Engine> fast_engine(const char* name, const char* value, std::string& why) {
  setenv(name, value, 1);
  std::unique_ptr<Engine> made;
  try {
    made = accelerator("cuda").engine(0, plain_ops<float>(), true);
  } catch (const std::exception& e) {
    why = e.what();
  }
  unsetenv(name);
  return made;
}
TEST_F(CudaDevice, AttentionOfWarpsIsNearFloat64) {
  std::string why;
  const auto fast = fast_engine("LOCKSTEP_ATTENTION", "warps", why);
  ASSERT_TRUE(fast) << why;
  check_fast_attention<bf16>(fast.get());
  check_fast_attention<float>(fast.get());
}
TEST_F(CudaDevice, AttentionOfWarpgroupsIsNearFloat64) {
  std::string why;
  const auto fast = fast_engine("LOCKSTEP_ATTENTION", "warpgroups", why);
  if (!fast) GTEST_SKIP() << why;
  check_fast_attention<bf16>(fast.get());
}
TEST_F(CudaDevice, AttentionOfAnotherNameIsRefused) {
  std::string why;
  EXPECT_FALSE(fast_engine("LOCKSTEP_ATTENTION", "warp groups", why));
  EXPECT_NE(why.find("LOCKSTEP_ATTENTION"), std::string::npos) << why;
}

TEST_F(CudaDevice, MatmulsOfAnotherNameAreRefused) {
  std::string why;
  EXPECT_FALSE(fast_engine("LOCKSTEP_MATMUL", "best", why));
  EXPECT_NE(why.find("LOCKSTEP_MATMUL"), std::string::npos) << why;
}
// While the ways are tried, when they have been, and what a graph keeps: each call is one exact product.
TEST_F(CudaDevice, TimedMatmulsAreProducts) {
  constexpr i64 M = 64, N = 128, K = 256;
  constexpr int kCalls = 40;
  std::string why;
  const auto fast = fast_engine("LOCKSTEP_MATMUL", "timed", why);
  ASSERT_TRUE(fast) << why;
  std::vector<float> x(M * K), w(N * K), y(M * N), want(M * N), sum(M * N), at_once(M * N);
  for (i64 i = 0; i < M * K; ++i) x[i] = static_cast<float>(i % 5 - 2);
  for (i64 i = 0; i < N * K; ++i) w[i] = static_cast<float>(i % 7 - 3);
  for (i64 m = 0; m < M; ++m)
    for (i64 n = 0; n < N; ++n)
      for (i64 k = 0; k < K; ++k) want[m * N + n] += x[m * K + k] * w[n * K + k];
  std::vector<float> x_turned(K * M), w_turned(K * N);
  for (i64 k = 0; k < K; ++k) {
    for (i64 m = 0; m < M; ++m) x_turned[k * M + m] = x[m * K + k];
    for (i64 n = 0; n < N; ++n) w_turned[k * N + n] = w[n * K + k];
  }
  const auto add = [&](std::vector<float>& to) {
    fast->ops().matmul_dw(fast->lanes(), to.data(), x_turned.data(), w_turned.data(), K, M, N, true);
  };
  for (int call = 0; call < kCalls; ++call) add(at_once);  // the host runs ahead
  fast->begin_graph();
  add(at_once);
  fast->end_graph();
  fast->run_graph(0);
  wait(*fast);
  for (i64 i = 0; i < M * N; ++i) ASSERT_EQ(at_once[i], static_cast<float>(kCalls + 1) * want[i]);
  for (int call = 0; call < kCalls; ++call) {
    std::fill(y.begin(), y.end(), 9.0f);
    fast->ops().matmul(fast->lanes(), y.data(), x.data(), w.data(), M, N, K, 1);
    add(sum);
    wait(*fast);
    ASSERT_EQ(y, want) << call;
    for (i64 i = 0; i < M * N; ++i) ASSERT_EQ(sum[i], static_cast<float>(call + 1) * want[i]) << call;
  }
}

TEST_F(CudaDevice, ItsKernelsAreASetOfTheseTests) {
  bool found = false;
  for (const KernelSet* s : kernel_sets()) found |= s == &cuda_set && s->runs_here();
  EXPECT_TRUE(found);
}

TEST_F(CudaDevice, PlansPassTheGates) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings settings;
  settings.batch = 8, settings.seq = 16, settings.steps = 2;
  const Whole reference = reference_run(model, settings, data, "plain", 1);
  for (const char* line : {"dp=1 micro=2", "dp=2 tp=2 pp=2 zero=1 ckpt=full", "dp=2 offload=optimizer",
                           "dp=2 zero=3 offload=weights to=disk activations=host"}) {
    const Prepared p = prepare({model, settings, Plan::parse(line), &data});
    const Verdict v = judge(p, reference, {.isa = "plain", .accelerator = &accelerator("cuda")});
    EXPECT_EQ(v.numbers, "pass") << line;
    EXPECT_EQ(v.messages, "pass") << line;
    EXPECT_EQ(v.memory, "pass") << line;
    EXPECT_EQ(v.hash, reference.hash()) << line;
  }
  settings.segments = 2;
  const Whole in_segments = reference_run(model, settings, data, "plain", 1);
  const Verdict v = judge(prepare({model, settings, Plan::parse("dp=2 cp=2 zero=2 ckpt=attention"), &data}),
                          in_segments, {.isa = "plain", .accelerator = &accelerator("cuda")});
  EXPECT_EQ(v.numbers, "pass");
  EXPECT_EQ(v.messages, "pass");
  EXPECT_EQ(v.memory, "pass");
}

}  // namespace
}  // namespace lockstep

// The tests of vector kernels would pass without a GPU, by the sets that are here: then only those of this
// file are asked, and say that they are skipped.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!lockstep::engine) testing::GTEST_FLAG(filter) = "CudaDevice.*";
  return RUN_ALL_TESTS();
}
