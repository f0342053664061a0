// Whether a run fits this machine is asked before it takes anything: of all ranks that are here.
#include <gtest/gtest.h>

#include <cstdio>

#include "parallel/comm/mpi.hpp"
#include "suites/run/enough_memory.hpp"
#include "suites/tests/far_accelerator.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// A job of which so many processes are on this machine.
class Job final : public MpiWorld {
 public:
  Job(int rank, int here) : rank_(rank), here_(here) {}
  int rank() const override { return rank_; }
  int size() const override { return 4; }
  int ranks_here() const override { return here_; }
  int rank_here() const override { return 0; }
  void run(const Mesh&, const CommNeeds&, const std::function<void(int, Comm&)>&) override {}
  void gather(const std::string&, const std::function<void(int, const std::string&)>&) override {}
  int from_first(int value) override { return value; }
  std::string from_first(const std::string& text) override { return text; }
  void from_first(void*, i64) override {}
  int cores_each() const override { return 1; }
  bool cores_suffice(int) override { return true; }

 private:
  int rank_, here_;
};

struct Gigabytes {
  double arenas = 0, weights = 0;
};

Gigabytes refused(const Prepared& p, const Launch& how, int copies) {
  const std::string said = refusal([&] { check_memory(p, how, copies); });
  Gigabytes gb;
  EXPECT_EQ(std::sscanf(said.substr(said.find(": ")).c_str(),
                        ": its arenas take %lf GB and the whole weights beside them %lf GB", &gb.arenas,
                        &gb.weights),
            2)
      << said;
  return gb;
}

// More than any machine has, of one rank too.
struct TooLarge {
  ModelConfig model = load_model_config("suites/models/llama-3.1-405b.json");
  Settings settings;
  TooLarge() { settings.batch = 4, settings.seq = 8; }
  Prepared prepared(const char* plan) const { return prepare({model, settings, Plan::parse(plan), nullptr}); }
};
const double kParameters = 405'853'388'800 / 1e9;  // as published

// A rank of dp=4 has weights, gradients and two moments of all parameters, 16 bytes each; activations of 8
// tokens are next to nothing.
TEST(EnoughMemory, EveryProcessOfThisMachineHasItsOwn) {
  const Prepared p = TooLarge().prepared("dp=4");
  const Gigabytes threads = refused(p, {}, 3);
  EXPECT_NEAR(threads.arenas, 4 * 16 * kParameters, 4 * 16 * kParameters / 100);
  EXPECT_NEAR(threads.weights, 3 * 4 * kParameters, 0.06);
  for (const int here : {1, 2, 4}) {
    Job job(3, here);
    const Gigabytes processes = refused(p, {.mpi = &job}, 3);
    EXPECT_NEAR(processes.arenas, threads.arenas * here / 4, 0.06) << here;
    EXPECT_NEAR(processes.weights, threads.weights * here, 0.3) << here;
  }
}

TEST(EnoughMemory, OfAProcessItsOwnRankIsCounted) {
  Prepared p = TooLarge().prepared("pp=2");
  for (const int rank : {0, 1})
    p.layouts[rank][static_cast<int>(Medium::device)].bytes = (rank + 8) * i64{1'000'000'000'000'000};
  EXPECT_EQ(refused(p, {}, 0).arenas, 17e6);
  for (const int rank : {0, 1}) {
    Job job(rank, 1);
    EXPECT_EQ(refused(p, {.mpi = &job}, 0).arenas, (rank + 8) * 1e6);
  }
}

// The rest is in the accelerator's memory, which is not the machine's.
TEST(EnoughMemory, BesideAnAcceleratorOnlyTheHostsArenaCounts) {
  Prepared p = TooLarge().prepared("dp=1");
  p.layouts[0][static_cast<int>(Medium::device)].bytes = 2'000'000'000'000'000;
  p.layouts[0][static_cast<int>(Medium::host)].bytes = 7'000'000'000'000'000;
  p.layouts[0][static_cast<int>(Medium::disk)].bytes = 9'000'000'000'000'000;
  far::Far device;
  EXPECT_EQ(refused(p, {.accelerator = &device}, 0).arenas, 7e6);
  EXPECT_EQ(refused(p, {}, 0).arenas, 9e6);
}

TEST(EnoughMemory, WhatFitsIsNotRefused) {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 4, settings.seq = 8;
  EXPECT_NO_THROW(check_memory(prepare({model, settings, Plan::parse("dp=4"), nullptr}), {}, 8));
}

}  // namespace
}  // namespace lockstep
