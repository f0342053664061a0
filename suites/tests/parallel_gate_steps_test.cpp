// What the gates look at while a plan runs: each step, exact and fast; buffers guarded and copies late.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "suites/sweep/check_plan.hpp"
#include "suites/sweep/sweep.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

bool asked_for(const Plan& p) { return p.number("every") == 2; }

// A shelf that does something of its own whenever a layer's forward is over, and states it.
struct Busy : Shelf {
  explicit Busy(const Context& c)
      : device_(c.device), here_(c.device.take("here", Kind::host, 64)), rank_(c.rank) {}
  void put(int, int, Saved&) override { act(); }
  virtual void act() = 0;
  Device& device_;
  Buf here_;
  int rank_;
};

template <class Shelf>
struct AsShelf : Strategy<lockstep::Shelf> {
  explicit AsShelf(void (*work)(const Shape&, const KeptLayer&, StepWork&))
      : Strategy<lockstep::Shelf>(
            "busy", {{"every", "1", {}, "checkpoint layers 0, k, 2k, ... only"}}, asked_for, {},
            [](const Context& c) -> std::unique_ptr<lockstep::Shelf> { return std::make_unique<Shelf>(c); },
            stated(work)) {}
  static PriceOf<lockstep::Shelf> stated(void (*work)(const Shape&, const KeptLayer&, StepWork&)) {
    PriceOf<lockstep::Shelf> price = chosen<lockstep::Shelf>(Plan::parse("")).price;
    price.host = [](const Shape& s, const KeptElements&) -> i64 {
      return 64 * s.activation * Shelf::buffers;
    };
    price.work = work;
    return price;
  }
};

struct StepScene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Suite suite;
  StepScene() {
    settings.batch = 4, settings.seq = 8, settings.steps = 3;
    model.layers = 2;
  }
  PlanRecord record(const char* plan, const Weights& initial = {}) {
    Standard standard{suite, settings, model, data, false};
    make(standard, "", false);
    if (!initial.empty()) {
      standard.initial = initial;
      standard.reference = reference_run(model, settings, data, "auto", 1, initial);
      standard.reference_hash = standard.reference.hash();
      standard.float64 = fast_reference(model, settings, data, standard.reference, initial);
    }
    return check_plan(Plan::parse(plan), standard);
  }
};

// Zeroes its buffer: a part of it, or in two parts of which the order changes, from some step on.
struct Zeroing : Busy {
  using Busy::Busy;
  static constexpr i64 buffers = 1;
  inline static int wrong_from = 9, puts_in_a_step = 0;
  inline static bool in_order = false;
  int puts_ = 0;
  void act() override {
    const bool wrong = device_.computes() && puts_++ / puts_in_a_step >= wrong_from;
    if (in_order) {
      for (const i64 first : {wrong ? 0 : 16, wrong ? 16 : 0})
        device_.run(device_.ops().zero, here_.from(first), first == 0 ? i64{16} : i64{48});
    } else {
      device_.run(device_.ops().zero, here_, i64{wrong ? 63 : 64});
    }
  }
};

TEST(Gates, EveryStepDoesWhatTheTraceDoes) {
  const AsShelf<Zeroing> busy([](const Shape& s, const KeptLayer&, StepWork& w) {
    w.run(StepWork::kZero, s.m * (Zeroing::in_order ? 2 : 1), s.m * 64);
  });
  StepScene s;
  s.settings.steps = 2;
  Zeroing::puts_in_a_step = 2 * 4;  // layers, microbatches
  for (const bool in_order : {false, true}) {
    Zeroing::in_order = in_order, Zeroing::wrong_from = 9;
    const PlanRecord right = s.record("every=2");
    EXPECT_EQ(right.status, "ok") << complaint(right);
    Zeroing::wrong_from = 0;
    const std::string first =
        "does the same number of things as its trace, in another order or of other sizes";
    PlanRecord wrong = s.record("every=2");
    EXPECT_TRUE(says(wrong.messages, "rank 0: work: ", first)) << wrong.messages;
    EXPECT_TRUE(says(wrong.fast, "messages: rank 0: work: ", first)) << wrong.fast;
    Zeroing::wrong_from = 1;
    const std::string later = "rank 0: a later step does other things than the first, or in another order";
    wrong = s.record("every=2");
    EXPECT_EQ(wrong.status, "failed");
    EXPECT_EQ(wrong.numbers, later);
    EXPECT_EQ(wrong.fast, "numbers: " + later);
  }
}

// Copies or sums its buffer, and looks at what comes of it before it waits: made late, that is no number yet.
// What the program itself looks at is in no trace.
struct Curious : Busy {
  static constexpr i64 buffers = 2;
  inline static bool sends = false;
  inline static int looks = 0, late = 0;
  Buf there_;
  explicit Curious(const Context& c) : Busy(c), there_(c.device.take("there", Kind::host, 64)) {}
  void act() override {
    if (device_.computes()) std::memset(here_.view().at, 0, 64 * sizeof(float));
    Message m;
    m.verb = Verb::all_reduce, m.axis = Axis::tp, m.reduce = Reduce::sum, m.n = 64, m.what = "looks";
    Request request = sends ? device_.start(m, here_, there_)
                            : device_.start_copy(there_, there_, here_, here_, 64, "looks");
    if (device_.computes()) {
      float seen = 0;
      device_.look(&seen, there_, 1);
      ++looks, late += seen != seen;
    }
    sends ? device_.wait(request) : device_.wait_copy(request);
  }
};

// The exact run makes 3 steps, the guarded one with copies 2, the fast one 3: of 2 layers and 4 microbatches.
TEST(Gates, TheGuardedRunIsOfTwoStepsWhereCopiesAreMade) {
  const AsShelf<Curious> busy(
      [](const Shape& s, const KeptLayer&, StepWork& w) { w.copy("looks", s.m, s.m * 256, 0); });
  Curious::sends = false, Curious::looks = Curious::late = 0;
  StepScene s;
  const PlanRecord record = s.record("every=2");
  EXPECT_EQ(record.status, "ok") << complaint(record);
  EXPECT_EQ(Curious::looks, (3 + 2 + 3) * 2 * 4);
  EXPECT_EQ(Curious::late, 2 * 2 * 4);
}

TEST(Gates, TheGuardedRunsMessagesAreLate) {
  const AsShelf<Curious> busy([](const Shape&, const KeptLayer&, StepWork&) {});
  Curious::sends = true, Curious::looks = Curious::late = 0;
  StepScene s;
  const Prepared p = prepare({s.model, s.settings, Plan::parse("every=2"), &s.data});
  EXPECT_EQ(judge(p, reference_run(s.model, s.settings, s.data, "auto", 1), {.guarded = true}).numbers,
            "pass");
  EXPECT_EQ(Curious::looks, (3 + 1) * 2 * 4);
  EXPECT_EQ(Curious::late, 2 * 4);
}

// Zeroes its buffer while that is copied: made at once or late, the copy is right or wrong by luck.
struct Hasty : Busy {
  static constexpr i64 buffers = 2;
  Buf there_;
  explicit Hasty(const Context& c) : Busy(c), there_(c.device.take("there", Kind::host, 64)) {}
  void act() override {
    Request copy = device_.start_copy(there_, there_, here_, here_, 64, "leaves");
    device_.run(device_.ops().zero, here_, i64{64});
    device_.wait_copy(copy);
  }
};

TEST(Gates, ARaceIsNamedInBothModes) {
  const AsShelf<Hasty> busy([](const Shape& s, const KeptLayer&, StepWork& w) {
    w.copy("leaves", s.m, s.m * 256, s.m), w.run(StepWork::kZero, s.m, s.m * 64);
  });
  StepScene s;
  const PlanRecord record = s.record("every=2");
  const std::string race = "rank 0: `zero` writes to what `leaves`, which is under way, takes";
  EXPECT_EQ(record.messages, race);
  EXPECT_EQ(record.fast, "messages: " + race);
  EXPECT_EQ(complaint(record), "messages: " + race);
}

// The first run begins with the weights that it is given, the guarded one with fresh ones.
TEST(Gates, TheGuardedRunMakesItsWeights) {
  StepScene s;
  Weights initial = fresh_weights(s.model, s.settings);
  initial[1][0] += 0.5f;
  const PlanRecord record = s.record("dp=2", initial);
  EXPECT_TRUE(record.numbers.starts_with("guarded, lazy: step 0: ")) << record.numbers;
}

// A sweep times fast mode, which holds one sum of gradients where exact mode has several.
TEST(Gates, ARecordIsOfFastMode) {
  StepScene s;
  const PlanRecord record = s.record("dp=1");
  EXPECT_EQ(record.status, "ok") << complaint(record);
  EXPECT_LT(record.peak_bytes, record.exact_peak_bytes);
}

// Kernels that reference and plans share, of which one is wrong in all of them alike.
bool wrong_swiglu_runs = false;
decltype(Ops<float>::swiglu.call) right_swiglu;
const KernelSet wrong_swiglu{"test-wrong-swiglu", 2003, [] { return wrong_swiglu_runs; },
                             [](Ops<float>& ops) {
                               right_swiglu = ops.swiglu.call;
                               ops.swiglu.call = [](Lanes& lanes, float* a, const float* g, const float* u,
                                                    i64 n) {
                                 right_swiglu(lanes, a, g, u, n);
                                 for (i64 i = 0; i < n; ++i) a[i] *= 1.25f;
                               };
                             }};

TEST(Gates, WhatReferenceAndPlansHaveWrongAlikeIsInvalid) {
  const TemporaryFolder folder;
  const std::string verdict = folder.path() + "/verdict";
  Suite suite;
  suite.model = "suites/models/gate-tiny.json", suite.data = "datasets/excerpt-v509.tok";
  suite.settings.batch = 16, suite.settings.seq = 32, suite.settings.steps = 3;
  suite.settings.lr = 0.003, suite.settings.warmup = 1, suite.settings.clip = 0.5;
  const auto says_of_it = [&] {
    Enumeration one;
    one.plans.push_back(Plan::parse("dp=1"));
    Sweep sweep(suite, std::move(one), {.timed = false, .verdict_file = verdict});
    const int status = sweep.run();
    std::string line;
    std::getline(std::ifstream(verdict) >> std::ws, line);
    return std::pair(status, line);
  };
  const auto right = says_of_it();
  EXPECT_EQ(right.first, 0);
  EXPECT_TRUE(says(right.second, "VALID: 1 plan, one hash "));
  wrong_swiglu_runs = true;
  const auto wrong = says_of_it();
  wrong_swiglu_runs = false;
  EXPECT_EQ(wrong.first, 1);
  EXPECT_TRUE(says(wrong.second, "INVALID: the reference is wrong: step ", "is off float64's by "));
}

}  // namespace
}  // namespace lockstep
