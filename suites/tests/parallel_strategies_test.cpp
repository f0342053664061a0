// What the author of a strategy can do wrong is said in one sentence that names it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "parallel/contract.hpp"
#include "parallel/strategy_error.hpp"
#include "suites/gates/fast.hpp"
#include "suites/planner/planner.hpp"
#include "suites/run/reference.hpp"
#include "suites/sweep/check_plan.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

template <class Action>
std::string mistake(const Action& action) {
  return refusal<StrategyError>(action);
}

// Registered as long as it lives, and with words that there are.
template <class Role>
struct Another : Strategy<Role> {
  Another(const char* its_name, bool (*wanted)(const Plan&), std::vector<Word> its_words = {},
          PriceOf<Role> its_price = {})
      : Strategy<Role>(its_name, std::move(its_words), wanted, {}, nullptr, its_price) {}
};

bool gpipe(const Plan& p) { return p.text("schedule") == "gpipe"; }
bool never(const Plan&) { return false; }
bool every_second(const Plan& p) { return p.number("every") == 2; }

template <class Role>
std::string chooses(const char* plan) {
  return chosen<Role>(Plan::parse(plan)).name;
}

TEST(Strategies, EachRoleOfAPlanIsNamed) {
  EXPECT_EQ(
      chosen_names(Plan::parse("")),
      "seam whole, spread together, schedule 1f1b, store data, home on-device, stash keep, shelf at-hand");
  EXPECT_EQ(
      chosen_names(Plan::parse("dp=2 tp=2 pp=2 zero=3 schedule=gpipe ckpt=full offload=weights "
                               "activations=disk")),
      "seam tensor, spread together, schedule gpipe, store zero-2-3, home offload, stash checkpoint, shelf "
      "activation-offload");
}

TEST(Strategies, SegmentsOfSequencesAreUlyssesToBring) {
  EXPECT_EQ(
      chosen_names(Plan::parse("cp=2 tp=2")),
      "seam tensor, spread ulysses, schedule 1f1b, store data, home on-device, stash keep, shelf at-hand");
}

TEST(Strategies, ACopyWithoutWantsIsASecondDefault) {
  EXPECT_EQ(mistake([] { check_strategies(); }), "");
  {
    const Another<Schedule> mine("mine", nullptr);
    for (const auto& said : {mistake([] { check_strategies(); }),
                             mistake([] { chosen<Schedule>(Plan::parse("schedule=gpipe")); })})
      EXPECT_TRUE(says(said, "schedule `1f1b`", "schedule `mine`", "have no `wants`")) << said;
  }
  EXPECT_EQ(chooses<Schedule>(""), "1f1b");  // it has left
}

TEST(Strategies, TwoThatWantOnePlanAreNamedWithIt) {
  const Another<Schedule> mine("mine", gpipe);
  EXPECT_TRUE(says(mistake([] { chosen<Schedule>(Plan::parse("pp=2 schedule=gpipe")); }), "schedule `gpipe`",
                   "schedule `mine`", "`dp=1 tp=1 pp=2 schedule=gpipe`"));
  EXPECT_EQ(chooses<Schedule>("pp=2"), "1f1b");
}

bool cut(const Plan& p) { return p.number("cp") > 1; }

// A second way to spread a sequence, which a ring would be.
TEST(Strategies, TwoThatSpreadASequenceAreNamedWithTheirPlan) {
  {
    const Another<Spread> mine("ring", cut);
    EXPECT_TRUE(says(mistake([] { chosen<Spread>(Plan::parse("cp=2 pp=2")); }), "spread `ulysses`",
                     "spread `ring`", "`dp=1 tp=1 pp=2 cp=2`"));
    EXPECT_EQ(chooses<Spread>("pp=2"), "together");
  }
  {
    const Another<Spread> mine("apart", nullptr);
    EXPECT_TRUE(
        says(mistake([] { check_strategies(); }), "spread `together`", "spread `apart`", "have no `wants`"));
  }
  {
    const Another<Spread> mine("ulysses", never);
    EXPECT_TRUE(says(mistake([] { check_strategies(); }), "spread `ulysses` and spread `ulysses`"));
  }
  EXPECT_EQ(chooses<Spread>("cp=2"), "ulysses");
}

TEST(Strategies, TwoOfOneNameAreNamed) {
  const Another<Stash> mine("checkpoint", never);
  EXPECT_TRUE(says(mistake([] { check_strategies(); }), "stash `checkpoint` and stash `checkpoint`"));
}

template <class Role>
void two_of_one_name(const char* role, const char* name) {
  const Another<Role> mine(name, never);
  const std::string twice = std::string(role) + " `" + name + "`";
  EXPECT_TRUE(says(mistake([] { check_strategies(); }), twice + " and " + twice));
}

TEST(Strategies, TwoOfOneNameAreNamedInEachRole) {
  two_of_one_name<Seam>("seam", "tensor"), two_of_one_name<Schedule>("schedule", "gpipe");
  two_of_one_name<Store>("store", "zero-1"), two_of_one_name<Home>("home", "offload");
  two_of_one_name<Shelf>("shelf", "activation-offload");
}

// A value that a second file adds to a word is that file's alone; in a process of its own, for words stay.
TEST(Strategies, WantOnlyValuesThatTheyList) {
  for (const auto& [word, fallback] : {std::pair{"ckpt", "none"},
                                       {"zero", "0"},
                                       {"offload", "none"},
                                       {"activations", "device"},
                                       {"schedule", "1f1b"}})
    EXPECT_EXIT(
        {
          declare_word({word, fallback, {"9"}, ""});
          const Plan plan = Plan::parse(std::string(word) + "=9");
          std::exit(chosen_names(plan) == chosen_names(Plan::parse("")) ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << word;
}

// Else a schedule that lists a value and does not want it never runs, and its plan is judged as 1F1B's.
TEST(Strategies, AValueThatTheChosenOneDoesNotListHasNoEffect) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  PriceOf<Home> price{};
  price.rest = [](const Shape&) { return Kind::weights; };
  const Another<Home> mine("mine", every_second, {{"to", "host", {"host"}, "where offloaded data rests"}},
                           price);
  EXPECT_FALSE(refuse(Plan::parse("ckpt=full every=2"), model, {}));
  const auto refusal = refuse(Plan::parse("ckpt=full every=2 to=disk"), model, {});
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->rule, "word-without-effect");
}

TEST(Strategies, AWordThatNobodyListsIsNamed) {
  const Plan plan = Plan::parse("");
  for (const auto& said : {mistake([&] { plan.text("depth"); }), mistake([&] { plan.number("depth"); }),
                           mistake([&] { word_bit("depth"); })})
    EXPECT_TRUE(says(said, "the word `depth`", "none lists it"));
}

// ---- What a schedule owes -------------------------------------------------------------------------------

using Actions = std::vector<Action>;
constexpr Pass F = Pass::forward, B = Pass::backward, I = Pass::input_grad, W = Pass::weight_grad;

// Of stage 1 of 2, with two microbatches.
std::string wrong_with(const Actions& actions, int chunks_per_stage = 1) {
  return mistake([&] { check_actions("mine", actions, 1, 2, chunks_per_stage, 2); });
}

TEST(Actions, RightOnesAreTaken) {
  EXPECT_EQ(wrong_with({{F, 1, 0, false}, {F, 1, 1, false}, {B, 1, 1, false}, {B, 1, 0, true}}), "");
  EXPECT_EQ(
      wrong_with({{F, 1, 0, false}, {I, 1, 0, false}, {F, 1, 1, false}, {B, 1, 1, false}, {W, 1, 0, true}}),
      "");
  EXPECT_EQ(wrong_with({{F, 1, 0, false},
                        {F, 1, 1, false},
                        {F, 3, 0, false},
                        {F, 3, 1, false},
                        {B, 3, 0, false},
                        {B, 3, 1, true},
                        {B, 1, 0, false},
                        {B, 1, 1, true}},
                       2),
            "");
}

TEST(Actions, EachMistakeIsOneSentence) {
  const Action f0{F, 1, 0, false}, f1{F, 1, 1, false}, b0{B, 1, 0, false}, last{B, 1, 1, true};
  const auto expect = [](const Actions& actions, const std::string& why, int chunks_per_stage = 1) {
    const std::string said = wrong_with(actions, chunks_per_stage);
    EXPECT_TRUE(said.starts_with("schedule `mine`, stage 1 of 2: " + why)) << said;
    EXPECT_EQ(said.find('\n'), std::string::npos);
  };
  ASSERT_EQ(wrong_with({f0, f1, b0, last}), "");
  expect({b0, f0, f1, last}, "backward of chunk 1, microbatch 0 comes before its forward");
  for (const int chunk : {-1, 0, 3})
    expect({f0, f1, b0, {F, chunk, 0, false}, last},
           "forward of chunk " + std::to_string(chunk) + ", microbatch 0: that chunk is not here");
  for (const int j : {-1, 2})
    expect({f0, f1, b0, {F, 1, j, false}, last},
           "forward of chunk 1, microbatch " + std::to_string(j) + ": microbatches are 0 to 1");
  expect({}, "forward of chunk 1, microbatch 0 is missing");
  expect({f0, b0}, "forward of chunk 1, microbatch 1 is missing");
  expect({f0, f1, last}, "backward of chunk 1, microbatch 0 is missing");
  expect({f0, f0, f1, b0, last}, "forward of chunk 1, microbatch 0 comes twice");
  expect({f0, f1, b0, b0, last}, "backward of chunk 1, microbatch 0 comes when it has gone back");
  expect({f0, f1, {I, 1, 0, false}, b0, last},
         "backward of chunk 1, microbatch 0 comes when it has gone back");
  expect({f0, f1, b0, {W, 1, 0, false}, last}, "weight gradients of chunk 1, microbatch 0 comes when");
  expect({f0, f1, {I, 1, 0, false}, last}, "weight gradients of chunk 1, microbatch 0 is missing");
  expect({f0, f1, {W, 1, 0, false}, last},
         "weight gradients of chunk 1, microbatch 0 comes before its input gradients");
  expect({f0, f1, b0, last}, "forward of chunk 3, microbatch 0 is missing", 2);
  const std::string right =
      "it belongs on the chunk's final weight gradients, backward of chunk 1, microbatch 1";
  expect({f0, f1, b0, {B, 1, 1, false}}, "`last` is not set on backward of chunk 1, microbatch 1; " + right);
  expect({f0, f1, {B, 1, 0, true}, last}, "`last` is set on backward of chunk 1, microbatch 0; " + right);
  expect({{F, 1, 0, true}, f1, b0, last}, "`last` is set on forward of chunk 1, microbatch 0; " + right);
}

// What the executor and the planner ask.
class Stuck final : public Schedule {
 public:
  explicit Stuck(int chunks) : chunks_(chunks) {}
  int chunks_per_stage() const override { return chunks_; }
  // The first stage waits for what the second gives only when it has had everything.
  std::vector<Action> actions(int stage, int, int microbatches) const override {
    Actions list;
    for (const int part : {0, 1}) {
      for (int j = 0; j < microbatches; ++j) {
        if (stage == 0 || part == 0) list.push_back({F, stage, j, false});
        if (stage == 0 || part == 1) list.push_back({B, stage, j, j == microbatches - 1});
      }
      if (stage == 0) break;
    }
    return list;
  }

 private:
  int chunks_;
};

bool several_chunks(const Plan& p) { return p.number("virtual") > 1; }

struct StuckStrategy : Strategy<Schedule> {
  explicit StuckStrategy(std::unique_ptr<Schedule> (*made_by)(const Context&))
      : Strategy<Schedule>("stuck", {{"virtual", "1", {}, "chunks"}}, several_chunks, {}, made_by,
                           chosen<Schedule>(Plan::parse("schedule=gpipe")).price) {}
};

struct StrategyScene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  StrategyScene() { settings.batch = 2, settings.seq = 8, settings.steps = 1; }
  lockstep::Run run(const char* plan) const { return {model, settings, Plan::parse(plan), &data}; }
};

TEST(Actions, AreLookedAtWhereARankIsMade) {
  const StrategyScene s;
  const auto said = [&] { return mistake([&] { prepare(s.run("pp=2 virtual=2")); }); };
  {
    const StuckStrategy two(
        [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<Stuck>(2); });
    EXPECT_TRUE(says(said(), "schedule `stuck`, stage 0 of 2: forward of chunk 2, microbatch 0 is missing"));
  }
  {
    const StuckStrategy five(
        [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<Stuck>(5); });
    EXPECT_TRUE(says(said(), "schedule `stuck`: 5 chunks on each of 2 stages", "the model 8"));
  }
  const StuckStrategy none([](const Context&) -> std::unique_ptr<Schedule> { return nullptr; });
  EXPECT_EQ(said(), "strategies: `make` of schedule `stuck` returns nothing");
}

TEST(Strategies, ASpreadThatIsNotMadeIsNamed) {
  const Strategy<Spread> none(
      "none", {}, every_second, {}, [](const Context&) -> std::unique_ptr<Spread> { return nullptr; },
      chosen<Spread>(Plan::parse("")).price);
  const StrategyScene s;
  EXPECT_EQ(mistake([&] { prepare(s.run("every=2")); }),
            "strategies: `make` of spread `none` returns nothing");
}

// What the planner says of a plan: whole, and at first sight.
std::vector<std::string> planner_says(const char* line) {
  StrategyScene s;
  s.settings.batch = 8;
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  cluster.devices = 2;
  const Settings settings = settings_on(cluster, s.settings);
  const Plan plan = Plan::parse(line);
  Composer whole(s.model, settings, cluster), glance(s.model, settings, cluster);
  return {mistake([&] { whole.predict(plan); }), mistake([&] { glance.outlook(plan, 1e30); })};
}

TEST(Actions, AreLookedAtByThePlanner) {
  const StuckStrategy two(
      [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<Stuck>(2); });
  for (const std::string& said : planner_says("pp=2 virtual=2"))
    EXPECT_TRUE(says(said, "schedule `stuck`, stage 0 of 2: forward of chunk 2, microbatch 0 is missing"));
}

// A stage's first wait is for what the other would give after its own.
TEST(Deadlock, IsTheVerdictOfTheMessagesGate) {
  const StuckStrategy stuck(
      [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<Stuck>(1); });
  const StrategyScene s;
  const Plan plan = Plan::parse("pp=2 virtual=2");
  ASSERT_FALSE(refuse(plan, s.model, s.settings));
  const std::string waits =
      "rank 0 (dp 0, tp 0, pp 0) waits for recv of `chunk0.dy` microbatch 0 from rank 1";
  EXPECT_TRUE(says(mistake([&] { refuse_deadlock(prepare(s.run("pp=2 virtual=2"))); }),
                   "`dp=1 tp=1 pp=2 virtual=2` would hang", waits));
  Suite suite;
  Standard standard{suite, s.settings, s.model, s.data, false};
  make(standard, "", false);
  const PlanRecord record = check_plan(plan, standard);
  EXPECT_EQ(record.status, "failed");
  EXPECT_TRUE(says(record.messages, "deadlock: ", waits));
}

TEST(Deadlock, IsARefusalToThePlanner) {
  const StuckStrategy stuck(
      [](const Context&) -> std::unique_ptr<Schedule> { return std::make_unique<Stuck>(1); });
  StrategyScene s;
  s.settings.batch = 8;
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  cluster.devices = 2;
  const Settings settings = settings_on(cluster, s.settings);
  const auto search = [&](const char* virtuals) {
    return choose(
        s.model, settings, cluster,
        parse_values(std::string("dp=1 pp=2 tp=1 micro=1 zero=0 schedule=1f1b sp=0 ckpt=none bucket=1 "
                                 "offload=none activations=device virtual=") +
                     virtuals));
  };
  const Choices c = search("1,2");
  EXPECT_EQ(c.walked.legal, 1);
  EXPECT_EQ(c.fitting, 1);
  ASSERT_EQ(c.walked.refused.count("hangs"), 1u);
  EXPECT_EQ(c.walked.refused.at("hangs"), 1);
  EXPECT_EQ(c.walked.axes.at("virtual").at("1"), 1);
  EXPECT_EQ(c.walked.axes.at("virtual").at("2"), 0);
  EXPECT_TRUE(says(c.walked.why.at("hangs"),
                   "`dp=1 tp=1 pp=2 virtual=2` would hang:", "stage 0 at backward of chunk 0, microbatch 0",
                   "stage 1 at forward of chunk 1, microbatch 1"));
  ASSERT_EQ(c.fit.size(), 1u);
  EXPECT_EQ(c.fit[0].plan, "dp=1 tp=1 pp=2");
}

// ---- What a stash owes ----------------------------------------------------------------------------------

struct Without final : Stash {
  std::vector<Part> parts;
  explicit Without(std::vector<Part> dropped) : parts(std::move(dropped)) {}
  bool keeps(int layer, Part part) const override {
    return layer != 3 || std::find(parts.begin(), parts.end(), part) == parts.end();
  }
};

TEST(Kept, AGroupKeptInPartIsNamed) {
  const auto wrong = [](std::vector<Part> dropped) {
    dropped.insert(dropped.end(), {Part::e1, Part::e2});
    return mistake([&] { check_kept("mine", Without(dropped), 3); });
  };
  using enum Part;
  for (const std::vector<Part>& dropped : std::vector<std::vector<Part>>{
           {}, {h1, rstd1}, {q, k, v}, {o, oh, lse}, {h2, rstd2}, {x2, h2, rstd2}, {gate, up, act}, {act}})
    EXPECT_EQ(wrong(dropped), "");
  const auto expect = [&](Part dropped, const std::string& kept) {
    EXPECT_TRUE(wrong({dropped}).starts_with("stash `mine`, layer 3: keeps " + kept + " without " +
                                             part_name(dropped)))
        << wrong({dropped});
  };
  expect(rstd1, "h1"), expect(h1, "rstd1"), expect(q, "k"), expect(k, "q"), expect(v, "q");
  expect(lse, "o"), expect(oh, "o"), expect(o, "oh"), expect(rstd2, "h2"), expect(h2, "rstd2"),
      expect(x2, "h2");
  expect(up, "gate"), expect(gate, "up");
  EXPECT_TRUE(wrong({gate, up}).starts_with("stash `mine`, layer 3: keeps act without gate"));
  EXPECT_EQ(mistake([] { check_kept("mine", Without({Part::e2}), 3); }),
            "stash `mine`, layer 3: keeps e1, which the seam gathers anew");
  EXPECT_EQ(mistake([] { check_kept("mine", Without({Part::e1}), 3); }),
            "stash `mine`, layer 3: keeps e2, which the seam gathers anew");
}

// A stash that the first rank finds wrong, not backward.
TEST(Kept, IsLookedAtWhereARankIsMade) {
  const Strategy<Stash> part(
      "part", {}, every_second, {},
      [](const Context&) -> std::unique_ptr<Stash> { return std::make_unique<Without>(std::vector<Part>{}); },
      {[](const Shape&, i64) { return Dropped{}; }});
  const StrategyScene s;
  EXPECT_TRUE(says(mistake([&] { prepare(s.run("every=2")); }), "stash `part`, layer 0: keeps e1"));
  for (const std::string& said : planner_says("pp=2 every=2"))
    EXPECT_TRUE(says(said, "stash `part`, layer 0: keeps e1"));
}

// ---- Steps that are not alike ---------------------------------------------------------------------------

// From its second step on, which begins after all layers of both microbatches, it zeroes its own buffer, or
// copies it, or sends one more message, or as many, but another.
class Restless final : public Shelf {
 public:
  enum class Adds { kernel, copy, message, other_message };
  inline static Adds adds;
  explicit Restless(const Context& c)
      : device_(c.device),
        puts_in_a_step_(c.model.layers * c.settings.batch),
        here_(c.device.take("here", Kind::optimizer, 64)),
        there_(c.device.take("there", Kind::host, 64)) {}
  void put(int, int, Saved&) override {
    const bool later = ++puts_ > puts_in_a_step_;
    if (adds == Adds::message || adds == Adds::other_message) talk(later && adds == Adds::other_message);
    if (!later) return;
    if (adds == Adds::kernel) device_.run(device_.ops().zero, here_, i64{64});
    if (adds == Adds::message) talk(false);
    if (adds != Adds::copy) return;
    Request copy = device_.start_copy(there_, there_, here_, here_, 64, "restless");
    device_.wait_copy(copy);
  }

 private:
  void talk(bool less) {
    device_.all_reduce(Axis::tp, Reduce::sum, here_, here_, less ? 32 : 64, "restless", -1);
  }
  Device& device_;
  const i64 puts_in_a_step_;
  Buf here_, there_;
  i64 puts_ = 0;
};

TEST(Gates, ALaterStepIsHeldToTheFirst) {
  const Strategy<Shelf> restless(
      "restless", {}, every_second, {},
      [](const Context& c) -> std::unique_ptr<Shelf> { return std::make_unique<Restless>(c); },
      chosen<Shelf>(Plan::parse("")).price);
  StrategyScene s;
  s.settings.steps = 2;
  const Weights initial = fresh_weights(s.model, s.settings);
  const Whole reference = reference_run(s.model, s.settings, s.data, "auto", 1, initial);
  const FastReference exact = fast_reference(s.model, s.settings, s.data, reference, initial);
  const std::string wrong = "rank 0: a later step does other things than the first, or in another order";
  using enum Restless::Adds;
  for (const auto adds : {kernel, copy, message, other_message}) {
    Restless::adds = adds;
    s.settings.fast = false;
    EXPECT_EQ(judge(prepare(s.run("every=2")), reference, {}).numbers, wrong) << static_cast<int>(adds);
    s.settings.fast = true;
    EXPECT_EQ(judge_fast(prepare(s.run("every=2")), reference, exact, {}, initial).numbers, wrong)
        << static_cast<int>(adds);
  }
}

}  // namespace
}  // namespace lockstep
