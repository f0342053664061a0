// Covering arrays of plans, against brute force: the whole product of the axes, judged plan by plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <string>

#include "suites/sweep/suite.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

using Tuples = std::set<std::set<std::string>>;

struct Scene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  CoverOrder order;
  Scene() {
    settings.batch = 16, settings.seq = 32;
    order.axes = {
        {"dp", {"1", "2", "4"}},   {"tp", {"1", "2", "4"}},   {"pp", {"1", "2", "4"}},
        {"micro", {"1", "2"}},     {"sp", {"0", "1"}},        {"schedule", {"1f1b", "gpipe", "interleaved"}},
        {"virtual", {"1", "2"}},   {"zero", {"0", "1", "3"}}, {"offload", {"none", "optimizer"}},
        {"ckpt", {"none", "full"}}};
  }
  std::optional<Refusal> judge(const Plan& p) const {
    if (p.ranks() > 16) return Refusal{"limit-ranks", "", {"dp", "tp", "pp"}};
    return refuse(p, model, settings);
  }
  CoveringArray cover() const {
    return covering_array(order, [this](const Plan& p) { return judge(p); });
  }
  std::vector<Plan> product() const {
    std::vector<Plan> plans{Plan::parse("")};
    for (const SuiteAxis& axis : order.axes) {
      std::vector<Plan> longer;
      for (const Plan& plan : plans)
        for (const std::string& value : axis.values) longer.emplace_back(plan).set(axis.word, value);
      plans = std::move(longer);
    }
    return plans;
  }
  std::vector<Plan> legal() const {
    std::vector<Plan> plans = product();
    std::erase_if(plans, [this](const Plan& p) { return judge(p).has_value(); });
    return plans;
  }
};

std::set<std::string> values_of(const Plan& p, const CoverOrder& order) {
  std::set<std::string> values;
  for (const SuiteAxis& axis : order.axes) values.insert(axis.word + "=" + p.text(axis.word));
  return values;
}

// What the plan does that one device does not, said by hand.
std::set<std::string> strategies_of(const Plan& p, const CoverOrder&) {
  std::set<std::string> list;
  if (p.number("tp") > 1) list.insert(p.number("sp") ? "sequence parallel" : "tensor parallel");
  if (p.number("pp") > 1) {
    list.insert(p.text("schedule"));
    if (p.number("virtual") > 1) list.insert("virtual=" + p.text("virtual"));
  }
  if (p.number("dp") > 1) list.insert(p.number("zero") ? "zero " + p.text("zero") : "data parallel");
  if (p.text("offload") != "none") list.insert("offload");
  if (p.text("ckpt") != "none") list.insert("checkpoint " + p.text("ckpt"));
  return list;
}

std::set<std::string> wide_with_strategies(const Plan& p, const CoverOrder& order) {
  const int dp = p.number("dp"), tp = p.number("tp"), pp = p.number("pp");
  std::set<std::string> list;
  if (dp < 2 || tp < 2 || pp < 2) return list;
  for (const std::string& s : strategies_of(p, order)) {
    if (dp == 4) list.insert("wide dp, " + s);
    if (tp == 4) list.insert("wide tp, " + s);
    if (pp == 4) list.insert("wide pp, " + s);
  }
  return list;
}

using Facts = std::set<std::string> (*)(const Plan&, const CoverOrder&);

// All sets of n facts that hold together in one of the plans.
Tuples shown(const std::vector<Plan>& plans, const CoverOrder& order, Facts facts, std::size_t n) {
  Tuples all;
  for (const Plan& p : plans) {
    Tuples sets{{}};
    for (const std::string& fact : facts(p, order))
      for (const auto& smaller : Tuples(sets))
        if (smaller.size() < n) {
          auto larger = smaller;
          larger.insert(fact);
          sets.insert(larger);
        }
    for (const auto& s : sets)
      if (s.size() == n) all.insert(s);
  }
  return all;
}

struct Kind {
  const char* name;
  Facts facts;
  std::size_t n;
};
const std::vector<Kind> kinds = {{"pairs of values", values_of, 2},
                                 {"pairs of strategies", strategies_of, 2},
                                 {"triples of strategies", strategies_of, 3},
                                 {"strategies on wide meshes", wide_with_strategies, 1}};

// What some legal plan shows, and none of the chosen.
Tuples missing(const Kind& kind, const std::vector<Plan>& legal, const std::vector<Plan>& chosen,
               const CoverOrder& order) {
  Tuples left = shown(legal, order, kind.facts, kind.n);
  for (const auto& t : shown(chosen, order, kind.facts, kind.n)) left.erase(t);
  return left;
}

std::vector<std::string> lines(const std::vector<Plan>& plans) {
  std::vector<std::string> list;
  for (const Plan& p : plans) list.push_back(p.line());
  return list;
}

TEST(Cover, ShowsWhatAnyLegalPlanShows) {
  const Scene s;
  const std::vector<Plan> legal = s.legal();
  const CoveringArray cover = s.cover();
  EXPECT_LT(cover.plans.size() * 20, legal.size());
  for (const Plan& p : cover.plans) EXPECT_FALSE(s.judge(p)) << p.line();
  for (const Kind& kind : kinds) {
    const Tuples left = missing(kind, legal, cover.plans, s.order);
    EXPECT_TRUE(left.empty()) << left.size() << " " << kind.name << " are missing, among them "
                              << testing::PrintToString(*left.begin());
    const auto count = std::find_if(cover.counts.begin(), cover.counts.end(),
                                    [&](const auto& c) { return c.what == kind.name; });
    ASSERT_NE(count, cover.counts.end()) << kind.name;
    EXPECT_EQ(count->legal, static_cast<int>(shown(legal, s.order, kind.facts, kind.n).size())) << kind.name;
    EXPECT_EQ(count->covered, count->legal) << kind.name;
    EXPECT_EQ(count->undecided, 0) << kind.name;
  }
}

// The check above sees it when one combination, of any kind, is left out.
TEST(Cover, OneCombinationLessIsSeen) {
  const Scene s;
  const std::vector<Plan> legal = s.legal(), chosen = s.cover().plans;
  for (const Kind& kind : kinds) {
    const auto tuple = *shown(legal, s.order, kind.facts, kind.n).begin();
    std::vector<Plan> fewer = chosen;
    std::erase_if(fewer, [&](const Plan& p) {
      const auto facts = kind.facts(p, s.order);
      return std::includes(facts.begin(), facts.end(), tuple.begin(), tuple.end());
    });
    EXPECT_LT(fewer.size(), chosen.size());
    EXPECT_TRUE(missing(kind, legal, fewer, s.order).count(tuple)) << kind.name;
  }
}

// cp splits a sequence as tp does a layer, and a cover of it shows it with every other strategy.
TEST(Cover, KnowsTheStrategyOfSegments) {
  const auto splits_sequences = [](const std::vector<SuiteAxis>& axes) {
    const std::vector<StrategyWords> all = strategies_within(axes);
    return std::count_if(all.begin(), all.end(), [](const StrategyWords& s) { return s.split == "cp"; });
  };
  EXPECT_EQ(splits_sequences({{"cp", {"1", "2"}}, {"zero", {"0", "1"}}}), 1);
  EXPECT_EQ(splits_sequences({{"dp", {"1", "2"}}, {"zero", {"0", "1"}}}), 0);
}

TEST(Cover, IsTheSameEveryTimeAndAnotherWithAnotherSeed) {
  Scene s;
  s.order.plans = 60;
  const auto first = lines(s.cover().plans);
  EXPECT_EQ(first, lines(s.cover().plans));
  s.order.seed = 2;
  EXPECT_NE(first, lines(s.cover().plans));
}

TEST(Cover, MorePlansAreDistinctLegalAndShowMoreTriples) {
  Scene s;
  const CoveringArray few = s.cover();
  s.order.plans = few.needed + 40;
  const CoveringArray many = s.cover();
  ASSERT_EQ(static_cast<int>(many.plans.size()), s.order.plans);
  EXPECT_EQ(many.needed, few.needed);
  const auto all = lines(many.plans);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
  for (const Plan& p : many.plans) EXPECT_FALSE(s.judge(p)) << p.line();
  // Ten times, as many legal plans drawn by lot show fewer triples of values than those chosen for them.
  const std::vector<Plan> legal = s.legal();
  std::mt19937 lot(1);
  for (int draw = 0; draw < 10; ++draw) {
    std::vector<Plan> drawn = few.plans;
    std::set<std::string> taken(all.begin(), all.begin() + few.needed);
    while (drawn.size() < many.plans.size())
      if (const Plan& p = legal[lot() % legal.size()]; taken.insert(p.line()).second) drawn.push_back(p);
    EXPECT_GT(shown(many.plans, s.order, values_of, 3).size(), shown(drawn, s.order, values_of, 3).size());
  }
}

TEST(Cover, AskedForMoreThanThereAreItGivesAll) {
  Scene s;
  s.order.axes = {{"dp", {"1", "2"}}, {"pp", {"1", "16"}}, {"zero", {"0", "3"}}, {"every", {"1", "2"}}};
  s.order.plans = 100;
  const auto found = lines(s.cover().plans);
  const auto all = lines(s.legal());
  EXPECT_EQ(all.size(), 4u);  // dp x zero; the model has 8 layers, and nothing is checkpointed
  EXPECT_EQ(std::set<std::string>(found.begin(), found.end()), std::set<std::string>(all.begin(), all.end()));
  EXPECT_EQ(found.size(), all.size());
}

// A refusal's words are its whole reason: with their values, no plan is legal.
TEST(Cover, ARefusalNamesEveryWordItLookedAt) {
  const Scene s;
  std::set<std::vector<std::string>> reasons;
  std::set<std::string> rules;
  std::vector<Plan> legal;
  for (const Plan& p : s.product()) {
    const auto refusal = s.judge(p);
    if (!refusal) {
      legal.push_back(p);
      continue;
    }
    EXPECT_LT(refusal->words.size(), 6u) << refusal->rule;
    std::vector<std::string> reason;
    for (const std::string& word : refusal->words) reason.push_back(word + "=" + p.text(word));
    reasons.insert(reason), rules.insert(refusal->rule);
  }
  EXPECT_TRUE(rules.count("word-without-effect") && rules.count("interleaved-needs-stages") &&
              rules.count("interleaved-groups") && rules.count("limit-ranks"));
  for (const Plan& p : legal) {
    std::set<std::string> values;
    for (const auto& [word, value] : p.words()) values.insert(word + "=" + value);
    for (const auto& reason : reasons)
      ASSERT_FALSE(std::includes(values.begin(), values.end(), reason.begin(), reason.end()))
          << p.line() << " is legal, but " << testing::PrintToString(reason) << " was said to be refused";
  }
}

// ---- The search by itself, with rules made for it
// ----------------------------------------------------------

// Legal: micro = dp and tp = 8 - dp, of 8 x 8 x 8 x 8 plans.
std::optional<Refusal> narrow(const Plan& p) {
  if (p.text("micro") != p.text("dp")) return Refusal{"a", "", {"dp", "micro"}};
  if (p.number("tp") != 8 - p.number("dp")) return Refusal{"b", "", {"dp", "tp"}};
  return {};
}
const std::vector<std::string> to_eight = {"1", "2", "3", "4", "5", "6", "7", "8"};
const std::vector<SuiteAxis> four_axes = {
    {"dp", to_eight}, {"tp", to_eight}, {"pp", to_eight}, {"micro", to_eight}};

TEST(PlanSearch, FindsEveryLegalPlanAndNoOther) {
  PlanSearch search(four_axes, narrow, 100000);
  for (const bool random : {false, true}) {
    Dice dice(1);
    for (int dp = 0; dp < 8; ++dp)
      for (int tp = 0; tp < 8; ++tp)
        for (int pp = 0; pp < 8; ++pp) {
          const Box box{1u << dp, 1u << tp, 1u << pp, 255};
          const auto found = search.find(box, random ? &dice : nullptr);
          ASSERT_EQ(found.has_value(), dp + 1 + tp + 1 == 8);
          EXPECT_FALSE(search.gave_up());
          EXPECT_EQ(found.value_or(Choice{dp, tp, pp, dp}), (Choice{dp, tp, pp, dp}));
        }
  }
  for (int i = 0; i < 7 * 8; ++i) {
    const auto plan = search.find(search.everything());
    ASSERT_TRUE(plan);
    EXPECT_FALSE(narrow(search.plan(*plan)));
    search.exclude(*plan);
  }
  EXPECT_FALSE(search.find(search.everything()));
  EXPECT_FALSE(search.gave_up());
}

// The rule looks at two words. Each of their 64 values is asked about once, and then only the 8 that are
// legal.
TEST(PlanSearch, AsksOncePerReason) {
  int asked = 0;
  PlanSearch search(
      four_axes,
      [&](const Plan& p) {
        ++asked;
        return p.text("dp") == p.text("micro") ? std::nullopt
                                               : std::optional<Refusal>({"a", "", {"dp", "micro"}});
      },
      100000);
  for (const int expected : {64, 8}) {
    asked = 0;
    for (int dp = 0; dp < 8; ++dp)
      for (int micro = 0; micro < 8; ++micro)
        EXPECT_EQ(search.find({1u << dp, 255, 255, 1u << micro}).has_value(), dp == micro);
    EXPECT_EQ(asked, expected);
  }
}

TEST(PlanSearch, SaysWhenItGivesUp) {
  const auto never = [](const Plan&) {
    return std::optional<Refusal>({"a", "", {"dp", "tp", "pp", "micro"}});
  };
  PlanSearch patient(four_axes, never, 4096), hasty(four_axes, never, 4095);
  EXPECT_FALSE(patient.find(patient.everything()));
  EXPECT_FALSE(patient.gave_up());
  EXPECT_FALSE(hasty.find(hasty.everything()));
  EXPECT_TRUE(hasty.gave_up());
  const CoveringArray cover = covering_array({four_axes, 0, 1, 10}, never);
  int undecided = 0, legal = 0;
  for (const auto& c : cover.counts) undecided += c.undecided, legal += c.legal;
  EXPECT_GT(undecided, 0);
  EXPECT_EQ(legal, 0);
}

// A mesh that is too large with some cp is not for all of them.
TEST(Suite, TheLimitOfRanksCountsThoseOfASequence) {
  const TemporaryFolder folder;
  for (const char* cp : {"[1, 2]", "[2, 1]"}) {
    const Suite s = read_suite(folder.write(
        "s.toml",
        std::string("[run]\nmodel = \"") +
            std::filesystem::absolute("suites/models/gate-untied.json").string() +
            "\"\ndata = \"none.tok\"\nbatch = 16\nseq = 32\nmode = \"fast\"\n[cover]\ndp = [1, 8]\ncp = " +
            cp + "\n[limits]\nranks = 8\n"));
    std::set<std::string> lines;
    for (const Plan& p : enumerate(s, load_model_config(s.model)).plans) lines.insert(p.line());
    EXPECT_EQ(lines, (std::set<std::string>{"dp=1 tp=1 pp=1", "dp=1 tp=1 pp=1 cp=2", "dp=8 tp=1 pp=1"}))
        << cp;
  }
}

TEST(Suite, ACoverOfNoPlanSaysWhy) {
  const TemporaryFolder folder;
  const auto mistake = [&](const std::string& cover) {
    const Suite s = read_suite(folder.write(
        "s.toml", "[run]\nmodel = \"" + std::filesystem::absolute("suites/models/gate-untied.json").string() +
                      "\"\ndata = \"none.tok\"\nbatch = 16\nseq = 32\nsegments = 2\n[cover]\n" + cover));
    return refusal([&] { enumerate(s, load_model_config(s.model)); });
  };
  EXPECT_TRUE(says(mistake("dp = [1, 2]\npp = [1, 2]\n"), "suite s: no plan of [cover] is legal",
                   "cp-is-segments: cp=1 cuts"));
  EXPECT_TRUE(says(mistake("dp = [1, 2]\n"), "suite s: [cover] has no two axes"));
}

// ---- The suite that comes with the program
// -----------------------------------------------------------------

TEST(Suite, CombinationsCoversEverything) {
  const Suite s = read_suite("suites/combinations.toml");
  const Enumeration all = enumerate(s, load_model_config(s.model));
  EXPECT_GE(all.plans.size(), 300u);
  EXPECT_TRUE(all.refused.empty());
  for (const Plan& p : all.plans) EXPECT_LE(p.ranks(), 16);
  EXPECT_GE(all.covered.size(), 4u);
  for (const auto& c : all.covered) {
    EXPECT_GT(c.legal, 0) << c.what;
    EXPECT_EQ(c.undecided, 0) << c.what;
  }
  // Every listed value of every word is there without being named.
  for (const Word& word : plan_words())
    for (const std::string& value : word.values)
      EXPECT_TRUE(std::any_of(all.plans.begin(), all.plans.end(),
                              [&](const Plan& p) { return p.text(word.name) == value; }))
          << word.name << "=" << value;
}

}  // namespace
}  // namespace lockstep
