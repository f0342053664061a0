// A step allocates nothing; and no instruction set, thread count or timing of messages changes a bit.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "suites/run/assembly.hpp"
#include "suites/run/reference.hpp"
#include "suites/settings_list.hpp"

namespace {
thread_local bool watched = false;
std::atomic<int> allocations{0};
}  // namespace

// Not inlined: the compiler would see free() under a foreign new.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (watched) ++allocations;
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace lockstep {
namespace {

Settings settings() {
  Settings s;
  s.batch = 8, s.seq = 16, s.steps = 2;
  return s;
}

TEST(Step, AllocatesNothing) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  for (const char* line : {"dp=1 micro=2", "dp=2 tp=2 pp=2 ckpt=full", "tp=4 sp=1 pp=2",
                           "dp=2 offload=optimizer to=disk", "dp=2 cp=2 zero=2 ckpt=attention",
                           "pp=2 activations=disk", "dp=2 zero=3 offload=weights to=disk activations=host"})
    for (const char* dtype : {"float32", "bf16"}) {
      Settings s = settings();
      set_dtype(s, dtype);
      const Prepared p = prepare({model, s, Plan::parse(line), &data});
      allocations = 0;
      launch(p, {}, [&](RankView v) {
        v.executor.initialise({});
        for (i64 k = 0; k < 2; ++k) {
          watched = true;
          v.executor.step(k);
          watched = false;
        }
      });
      EXPECT_EQ(allocations, 0) << line << ' ' << dtype;
    }
}

std::string hash_of(const Prepared& p, const Launch& how) {
  Assembly assembly(p, p.run.settings.steps);
  launch(p, how, [&](RankView v) {
    v.executor.initialise({});
    for (i64 k = 0; k < p.run.settings.steps; ++k)
      assembly.result(k,
                      v.executor.step(
                          k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); }),
                      v.rank);
  });
  EXPECT_EQ(assembly.problem(), "");
  return assembly.whole().hash();
}

TEST(Step, OneHashForEveryInstructionSetThreadCountAndTiming) {
  for (const char* config : {"gate-tiny", "gate-untied"}) {
    const ModelConfig model = load_model_config(std::string("suites/models/") + config + ".json");
    const TokenFile data("datasets/excerpt-v509.tok");
    const std::string expected = reference_run(model, settings(), data, "plain", 1).hash();
    const Prepared p = prepare({model, settings(), Plan::parse("dp=2 tp=2 pp=2 micro=2"), &data});
    std::vector<std::string> sets = {"auto", "plain"};
    for (const KernelSet* s : kernel_sets())
      if (s->runs_here()) sets.push_back(s->name);
    for (const std::string& isa : sets)
      for (const int threads : {1, 2})
        for (const Timing timing : {Timing::eager, Timing::lazy})
          EXPECT_EQ(hash_of(p, {isa, threads, timing, false}), expected)
              << config << " " << isa << " " << threads;
  }
}

// Longer than a suite's run, and with a limit on the gradient's norm that is never met.
TEST(Step, OneHashOfManyStepsThatAreNotClipped) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings s = settings();
  s.batch = 4, s.seq = 8, s.steps = 8, s.clip = 1e6;
  const Whole reference = reference_run(model, s, data, "auto", 1);
  for (const Whole::Step& step : reference.steps) EXPECT_LT(step.grad_norm, s.clip);
  for (const char* line :
       {"dp=2 tp=2", "pp=2 zero=1 dp=2", "dp=2 zero=3 offload=optimizer to=disk", "dp=4 offload=weights"})
    EXPECT_EQ(hash_of(prepare({model, s, Plan::parse(line), &data}), {}), reference.hash()) << line;
}

// Numbers too small for a normal float are numbers (kernels/EXACT.md): on threads of ranks, and of their
// lanes.
TEST(Step, DenormalNumbersAreKept) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  std::atomic<int> kept = 0;
  launch(prepare({model, settings(), Plan::parse("dp=2"), &data}), {.threads = 2}, [&](RankView) {
    Lanes lanes(2);
    lanes.split(2, 1, [&](i64 begin, i64 end, int) {
      for (i64 i = begin; i < end; ++i) {
        const volatile float least = 0x1p-126f, half = 0.5f;
        const volatile float below = least * half;
        kept += below > 0 && below + below == least;
      }
    });
  });
  EXPECT_EQ(kept, 2 * 2);
}

// More ranks than one host has devices, and sums of more parts than any other test's.
TEST(Step, OneHashOfAHundredRanksAndMore) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings s = settings();
  s.batch = 128, s.seq = 2;
  const std::string expected = reference_run(model, s, data, "auto", 2).hash();
  EXPECT_EQ(hash_of(prepare({model, s, Plan::parse("dp=128 zero=1"), &data}), {}), expected);
}

// In bf16 too, where key/value heads are shared by ranks, state rests below the device and sums wait.
TEST(Step, OneHashInBf16) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data("datasets/excerpt-v509.tok");
  Settings s = settings();
  set_dtype(s, "bf16");
  const std::string expected = reference_run(model, s, data, "auto", 2).hash();
  EXPECT_NE(expected, reference_run(model, settings(), data, "auto", 2).hash());
  for (const char* line :
       {"dp=2 tp=2 pp=2 micro=2", "tp=4 sp=1 schedule=gpipe", "dp=2 zero=3 offload=optimizer to=disk micro=2",
        "pp=2 schedule=zero-bubble ckpt=full", "dp=4 zero=2 offload=weights activations=host"}) {
    const Prepared p = prepare({model, s, Plan::parse(line), &data});
    EXPECT_EQ(hash_of(p, {.timing = Timing::lazy, .guard = true}), expected) << line;
  }
}

}  // namespace
}  // namespace lockstep
