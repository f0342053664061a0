// What the planner chooses, against all plans tried one by one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/work.hpp"
#include "suites/planner/answer/explain.hpp"
#include "suites/planner/answer/plan_json.hpp"
#include "suites/planner/answer/plan_timeline.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

Cluster four_devices() {
  Cluster c;
  c.devices = 4, c.per_node = 2;
  c.memory = 3e6, c.flops = 1e12, c.memory_bandwidth = 1e11, c.launch = 1e-7;
  c.node = {1e10, 2e-6, {}, {}}, c.network = {2e9, 1e-5, {}, {}};
  c.host = {3e9, 3e-6, {}, {}}, c.host_memory = 1e9, c.host_bandwidth = 2e10;
  return c;
}

struct AskedOfFour {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Cluster cluster = four_devices();
  Settings settings = settings_on(cluster, small());
  static Settings small() {
    Settings s;
    s.batch = 8, s.seq = 32;
    return s;
  }
};

// Plans that are weighed apart, one for each tp and pp; and two one after another, the second lacking less.
TEST(Choose, SaysTheLeastAndTheMostThatPlansLack) {
  AskedOfFour a;
  a.cluster.memory = 1e4;
  const std::string rest = " micro=1 schedule=1f1b sp=0 ckpt=none bucket=1 offload=none activations=device ";
  Composer composer(a.model, a.settings, a.cluster);
  for (const auto& [words, plans] :
       {std::pair{"tp=1,2,4 pp=1,2,4 zero=0",
                  std::vector{"dp=4", "dp=2 tp=2", "tp=4", "dp=2 pp=2", "tp=2 pp=2", "pp=4"}},
        {"tp=1 pp=1 replicas=1 zero=0,3", {"dp=4", "dp=4 zero=3"}}}) {
    std::vector<double> lack;
    for (const char* line : plans) {
      const Plan plan = Plan::parse(line);
      const Mesh mesh = lockstep::Run{a.model, a.settings, plan}.mesh();
      lack.push_back(lacks(needs(composer.predict(plan), a.cluster, mesh), has(a.cluster)));
    }
    for (const int cores : {1, 2}) {
      const Choices c = choose(a.model, a.settings, a.cluster, parse_values(words + rest), {.cores = cores});
      EXPECT_EQ(c.misfits, std::ssize(lack)) << words;
      EXPECT_DOUBLE_EQ(c.least, *std::min_element(lack.begin(), lack.end())) << words;
      EXPECT_DOUBLE_EQ(c.most, *std::max_element(lack.begin(), lack.end())) << words;
    }
  }
}

TEST(Choose, SaysInGiBOrTiBWhatPlansLack) {
  Choices c;
  c.misfits = 12345, c.least = 0.05 * (1 << 30), c.most = 2048.0 * (1 << 30), c.closest = Weighed{"dp=4"};
  EXPECT_TRUE(
      says(counts_text(c), " 12,345 do not fit, by 0.050 GiB to at least 2.0 TiB; the closest is `dp=4`\n"));
  c.least = 1.5 * (1 << 30), c.most = 999.0 * (1 << 30);
  EXPECT_TRUE(says(counts_text(c), " by 1.5 GiB to at least 999.0 GiB;"));
}

// The product of all words on four devices, each plan asked about by itself.
TEST(Choose, FindsTheFastestPlanOfAll) {
  const AskedOfFour a;
  const Values given =
      parse_values("to=host activations=device ckpt=none,full offload=none,optimizer micro=1,2");
  const Choices c = choose(a.model, a.settings, a.cluster, given);
  i64 legal = 0, fit = 0;
  double fastest = 1e9;
  for (const int tp : {1, 2, 4})
    for (const int pp : {1, 2, 4})
      for (const char* schedule : {"1f1b", "gpipe", "zero-bubble", "interleaved"})
        for (const char* rest : {"", " offload=optimizer", " ckpt=full", " ckpt=full offload=optimizer"})
          for (const int v : {1, 2, 4, 8})
            for (const int micro : {1, 2})
              for (const int zero : {0, 1, 2, 3})
                for (const int sp : {0, 1})
                  for (const int groups : {1, 2}) {  // of a node each, where all is sharded and no stages are
                    if (4 % (tp * pp) != 0 || (groups > 1 && (zero < 3 || pp > 1))) continue;
                    const Plan plan = Plan::parse(
                        fmt::format("dp={} tp={} pp={} micro={} zero={} sp={} schedule={} virtual={} "
                                    "replicas={}{}",
                                    4 / tp / pp, tp, pp, micro, zero, sp, schedule, v, groups, rest));
                    if (refuse_anywhere(plan, a.model, a.settings)) continue;
                    ++legal;
                    const lockstep::Run run{a.model, a.settings, plan};
                    const Prediction p = predict_by_trace(run, a.cluster);
                    if (lacks(needs(p, a.cluster, run.mesh()), has(a.cluster)) > 0) continue;
                    ++fit;
                    fastest = std::min(fastest, p.seconds);
                  }
  EXPECT_EQ(c.walked.legal, legal);
  EXPECT_EQ(c.fitting, fit);
  EXPECT_EQ(c.misfits, legal - fit);
  EXPECT_GT(fit, 20);
  EXPECT_GT(c.misfits, 20);
  ASSERT_FALSE(c.fit.empty());
  EXPECT_NEAR(c.fit.front().seconds / fastest, 1, 1e-6);
  i64 refused = 0;
  for (const auto& [rule, n] : c.walked.refused) refused += n;
  EXPECT_EQ(refused + legal, c.walked.combinations);
  const Question q{a.model, a.settings, a.cluster};
  EXPECT_TRUE(says(why_text(c, q), "the next one", "slower"));
  EXPECT_TRUE(says(plan_text(c.fit.front().plan, q), "compute", "weights", "beside it"));
}

// Words that make one choice have one plan without them, which is said once.
TEST(Choose, SaysEachOtherPlanOnce) {
  const AskedOfFour a;
  const Choices c = choose(a.model, a.settings, a.cluster, {}, {.top = 2});
  const std::string why = why_text(c, {a.model, a.settings, a.cluster});
  std::map<std::string, int> said;
  std::istringstream lines(why);
  for (std::string line; std::getline(lines, line);)
    if (const std::size_t from = line.find('`'); from != std::string::npos)
      ++said[line.substr(from, line.find('`', from + 1) - from)];
  for (const auto& [plan, times] : said) EXPECT_EQ(times, 1) << plan << "\n" << why;
  EXPECT_GT(said.size(), 2u);
  EXPECT_TRUE(says(why, "\n  without ", ", ")) << why;
}

// Plans that no prediction tells apart are one; those within 1 % are named by what may decide.
TEST(Choose, SaysWhichPlansAreAsGood) {
  Choices c;
  for (const auto& [plan, seconds, bytes] : {std::tuple{"a=1 b=1 c=1", 1.0, 50.0},
                                             {"a=1 b=1 c=2", 1.0, 50.0},
                                             {"a=1 b=2", 1.0, 60.0},
                                             {"a=2 b=1 c=1 d=1", 1.009, 20.0},
                                             {"a=3", 1.011, 10.0}})
    c.fit.push_back({plan, seconds, {bytes * (1 << 30), 0, 0}});
  const auto names = [](const std::vector<const Weighed*>& list) {
    std::string all;
    for (const Weighed* w : list) all += std::string(all.empty() ? "" : ", ") + w->plan;
    return all;
  };
  EXPECT_EQ(names(distinct(c)), "a=1 b=1 c=1, a=1 b=2, a=2 b=1 c=1 d=1, a=3");
  EXPECT_EQ(names(alike(c)), "a=1 b=1 c=1, a=1 b=2, a=2 b=1 c=1 d=1");
  EXPECT_EQ(names(front(c)), "a=1 b=1 c=1, a=2 b=1 c=1 d=1, a=3");
  EXPECT_EQ(alike_text(c),
            "2 other plans are within 1 % of the first, no worse as far as can be predicted\n"
            "  the smallest: `a=2 b=1 c=1 d=1`, 20.0 GiB, 0.9 % slower\n"
            "  the plainest: `a=1 b=2`, 60.0 GiB, 0.0 % slower\n");
  const AskedOfFour a;  // 256 tokens a step
  EXPECT_TRUE(says(pareto_text(c, {a.model, a.settings, a.cluster}), "256 ", "100.0 %", "254 ", "99.1 %",
                   "253 ", "98.9 %"));
  c.fit.erase(c.fit.begin() + 3);
  EXPECT_TRUE(says(alike_text(c), "one other plan is within", "the smallest: the first\n"));
  c.fit.erase(c.fit.begin() + 2);
  EXPECT_EQ(alike_text(c), "no other plan is within 1 % of the first\n");
}

// A step's seconds are all accounted for, on every stage.
TEST(Choose, TimeByKindAddsUp) {
  const AskedOfFour a;
  Composer composer(a.model, a.settings, a.cluster);
  for (const char* line :
       {"dp=2 pp=2 zero=3", "tp=2 pp=2 sp=1 ckpt=full", "dp=4 offload=weights", "pp=4 schedule=gpipe"}) {
    const Prediction p = composer.predict(Plan::parse(line));
    for (const StagePrediction& s : p.stages) {
      double sum = s.compute + s.update + s.copies + s.bubble;
      for (const double x : s.exposed) sum += x;
      EXPECT_NEAR(sum / p.seconds, 1, 1e-9) << line;
    }
  }
}

StagePrediction stage_of(double compute, double bubble, i64 bytes = 0) {
  StagePrediction s;
  s.compute = compute, s.bubble = bubble, s.live[0] = bytes;
  return s;
}

// Of three stages that compute 1, 3 and 2 s and wait 3, 0 and 1; against one that waits 2 s more on average,
// a quarter of the step, and computes 1 s less.
TEST(Choose, WhatASecondPlanLosesIsOfTheFirstsStep) {
  Prediction first, second;
  first.seconds = 8, second.seconds = 9;
  first.stages = {stage_of(1, 3), stage_of(3, 0), stage_of(2, 1.5)};
  second.stages = {stage_of(1, 3.5)};
  const auto kinds = time_by_kind(first);
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0], (std::pair{std::string("compute"), 2.0}));
  EXPECT_EQ(kinds[1], (std::pair{std::string("bubble"), 1.5}));
  EXPECT_EQ(losses(first, second), "loses on bubble 25.0 %; gains on compute 12.5 %");
  EXPECT_EQ(losses(first, first), "much the same everywhere");
}

// Programs are told how many plans fit, not how many were looked at closely.
TEST(Choose, ProgramsAreToldHowManyFit) {
  const AskedOfFour a;
  const Choices c = choose(a.model, a.settings, a.cluster, parse_values("to=host activations=device micro=1"),
                           {.top = 1, .by_value = false});
  ASSERT_LT(std::ssize(c.fit), c.fitting);
  const auto j = nlohmann::json::parse(json_of(c, {a.model, a.settings, a.cluster}, 1, false));
  EXPECT_EQ(j["fit"], c.walked.legal - c.misfits);
  EXPECT_EQ(j["plans"].size(), 1u);
}

// A step of too many bars is shown by its beginning and its end, equally long.
TEST(Choose, APictureHasTheStepsEnd) {
  const AskedOfFour a;
  const Question q{a.model, a.settings, a.cluster};
  const Plan plan = Plan::parse("pp=4 micro=1");
  const std::vector<Timeline> whole = timelines_on(plan, q), parts = timelines_on(plan, q, 40);
  ASSERT_EQ(whole.size(), 1u);
  ASSERT_EQ(parts.size(), 2u);
  const double step = whole[0].seconds;
  EXPECT_EQ(parts[0].from, 0);
  EXPECT_LT(parts[0].seconds, 0.5 * step);
  EXPECT_NEAR(parts[1].from, step - parts[0].seconds, 1e-9 * step);
  EXPECT_NEAR(parts[1].seconds, parts[0].seconds, 1e-9 * step);
}

// The middle one of three is the fullest.
TEST(Choose, TheFullestStageIsNoNeighboursNeighbour) {
  const AskedOfFour a;
  Prediction p;
  for (const i64 bytes : {10, 30, 20, 25}) p.stages.push_back(stage_of(1, 0, bytes));
  const Held held = held_by("pp=4", p, {a.model, a.settings, a.cluster});
  EXPECT_EQ(held.stage, 1);
  EXPECT_EQ(held.together, 30);
}

// What is short is what is needed less what is there, and stages are named by their own times: the last one
// alone has the head.
TEST(Choose, APlansTextIsOfItsNumbers) {
  AskedOfFour a;
  a.settings.batch = 256, a.cluster.memory = 1 << 24;
  const char* plan = "pp=4 micro=256";
  const Question q{a.model, a.settings, a.cluster};
  const Prediction p = predicted(plan, q);
  const double short_of = held_by(plan, p, q).needs[0] / (1 << 30) - 1.0 / 64;
  ASSERT_GT(short_of, 0);
  const auto ms = [&](int stage) {
    return fmt::format("{:.2f} ms (stage {})", 1e3 * p.stages[stage].compute, stage);
  };
  int least = 0;
  for (int s = 1; s < 4; ++s)
    if (p.stages[s].compute < p.stages[least].compute) least = s;
  EXPECT_TRUE(says(plan_text(plan, q), fmt::format("too much by {:.3f} GiB", short_of),
                   "stages compute " + ms(least) + " to " + ms(3)));
}

// The rule that refuses most comes first; values are in the order of their numbers.
TEST(Choose, CountsAreInOrder) {
  Choices c;
  c.walked.legal = 26, c.walked.combinations = 1234 + 5 + 26;
  c.walked.refused = {{"few", 5}, {"many", 1234}};
  c.walked.axes["micro"] = {{"1", 10}, {"16", 4}, {"2", 8}, {"4", 4}};
  const std::string text = counts_text(c);
  EXPECT_TRUE(says(text, "weighed 26 legal plans of 1,265 combinations",
                   "         1,234 refused by many\n               5 refused by few\n",
                   " 1: 10  2: 8  4: 4  16: 4 "));
}

TEST(Choose, TheRuleThatRefusesMostIsNamed) {
  Enumerated all;
  all.combinations = 30, all.refused = {{"a", 20}, {"b", 4}, {"c", 6}};
  all.why = {{"a", "as a says"}, {"b", "as b says"}, {"c", "as c says"}};
  const AskedOfFour a;
  EXPECT_EQ(refusal([&] { check_any_legal(all, a.settings, 4, parse_values("dp=4 tp=1 pp=1 cp=1")); }),
            "plan: none of 30 combinations is legal; 20 are refused by a: as a says");
}

// One microbatch: all stages keep as many layers' activations, and the last has the logits besides.
TEST(Choose, WhatIsHeldIsOfTheFullestStage) {
  const AskedOfFour a;
  const Question q{a.model, a.settings, a.cluster};
  const char* line = "pp=4 micro=8";
  const Prediction p = predicted(line, q);
  const Held held = held_by(line, p, q);
  EXPECT_EQ(held.stage, 3);
  for (const StagePrediction& stage : p.stages) EXPECT_LE(static_cast<double>(stage.live[0]), held.together);
  EXPECT_EQ(held.kinds, peak_bytes(Plan::parse(line), a.model, a.settings, 3));  // rank 3 is that stage
}

// 6 operations for each weight of a matmul and token (Kaplan et al. 2020, section 2.1), by the kernels of a
// trace.
TEST(Choose, ModelFlopsAreThoseOfTheKernels) {
  const AskedOfFour a;
  std::set<std::string> names;
  const Trace trace = trace_rank(lockstep::Run{a.model, a.settings, Plan::parse("dp=1")}, 0, names);
  double matmuls = 0;
  for (const Trace::Event& e : trace.events)
    if (e.what == Trace::Event::run) {
      const Work work = work_of(e.name, e.numbers);
      if (work.kind == Work::matmul) matmuls += work.flops;
    }
  const double heads = static_cast<double>(a.model.heads * a.model.head_dim);
  const double attention =
      static_cast<double>(a.settings.batch * a.settings.seq * a.settings.seq * a.model.layers) * 6 * heads;
  // The trace pads the vocabulary to a multiple of 8.
  EXPECT_NEAR((model_flops(a.model, a.settings) - attention) / matmuls, 1, 0.02);
}

// Values that heads and key/value heads may be dealt by, where there are fewer sequences than devices, or
// long ones.
TEST(Choose, SequencesAreCutWhereThatMayWin) {
  const ModelConfig model = load_model_config("suites/models/llama-3-8b.json");
  const auto values = [&](i64 batch, i64 seq, i64 devices, const Values& given = {}) {
    Settings s;
    s.batch = batch, s.seq = seq;
    return plan_values(model, s, devices, given).at("cp");
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(values(64, 8192, 64), (List{"1"}));
  EXPECT_EQ(values(63, 8192, 64), (List{"1", "2", "4", "8"}));
  EXPECT_EQ(values(64, 16384, 64), (List{"1", "2", "4", "8"}));
  EXPECT_EQ(values(64, 16383, 64), (List{"1"}));
  EXPECT_EQ(values(1, 8192, 12), (List{"1", "2", "4"}));
  EXPECT_EQ(values(64, 8192, 64, parse_values("cp=2,16")), (List{"2", "16"}));
}

// Groups of replicas that nobody asked for: whole nodes or more of them, of plans that shard all and have no
// stages. What was asked for is looked at everywhere.
TEST(Choose, ReplicasAreGroupedWhereThereAreNodes) {
  const ModelConfig model = load_model_config("suites/models/llama-3-8b.json");
  using Found = std::map<int, std::set<int>>;  // groups by tp
  const auto found = [&](i64 devices, i64 per_node, const std::string& given) {
    Settings s;
    s.batch = devices, s.seq = 8192, s.fast = true;
    const Values values = plan_values(
        model, s, devices, parse_values("micro=1 ckpt=none offload=none activations=device sp=0 " + given),
        per_node);
    Found all;
    each_legal_plan(model, s, devices, values, [&](const Plan& plan) {
      const int groups = plan.number("replicas");
      all[plan.number("tp")].insert(groups);
      if (groups == 1 || given.find("replicas") != std::string::npos) return;
      EXPECT_EQ(plan.number("zero"), 3) << plan.line();
      EXPECT_EQ(plan.number("pp"), 1) << plan.line();
    });
    return all;
  };
  EXPECT_EQ(found(8, 8, "tp=1"), (Found{{1, {1}}}));
  EXPECT_EQ(found(16, 8, "tp=1,2"), (Found{{1, {1, 2}}, {2, {1, 2}}}));
  EXPECT_EQ(found(64, 8, "tp=1,8"), (Found{{1, {1, 2, 8}}, {8, {1, 2}}}));
  EXPECT_EQ(found(256, 8, "tp=1,2"), (Found{{1, {1, 2, 8, 32}}, {2, {1, 2, 8, 32}}}));
  EXPECT_EQ(found(48, 8, "tp=1"), (Found{{1, {1, 2, 6}}}));
  EXPECT_EQ(found(192, 8, "tp=1"), (Found{{1, {1, 2, 4, 8, 24}}}));
  EXPECT_EQ(found(64, 8, "tp=1 zero=1,2"), (Found{{1, {1}}}));
  EXPECT_EQ(found(64, 8, "tp=1 pp=2 zero=1 replicas=2"), (Found{{1, {2}}}));
}

// What could be other and was not looked at; of one device there is no other mesh.
TEST(Choose, SaysWhatItHasNotVaried) {
  AskedOfFour a;
  a.cluster.memory = 1e9;
  const Values given = parse_values("micro=1 to=host activations=device ckpt=none offload=none");
  EXPECT_TRUE(says(counts_text(choose(a.model, a.settings, a.cluster, given)),
                   "\n  not varied: cp=1 bucket=1 every=1 (--words names other values)\n"));
  a.cluster.devices = 1;
  EXPECT_TRUE(says(counts_text(choose(a.model, a.settings, a.cluster, given)),
                   "\n  not varied: bucket=1 every=1 (--words names other values)\n"));
}

// Where a network is slow they win.
TEST(Choose, GroupsWinWhereTheNetworkIsSlow) {
  AskedOfFour a;
  a.cluster.memory = 1e9, a.cluster.network.bandwidth = 2e7;
  const Choices c = choose(a.model, a.settings, a.cluster, parse_values("tp=1 pp=1 zero=3 micro=1 to=host"));
  const Choices one =
      choose(a.model, a.settings, a.cluster, parse_values("tp=1 pp=1 zero=3 micro=1 to=host replicas=1"));
  ASSERT_FALSE(c.fit.empty() || one.fit.empty());
  EXPECT_EQ(Plan::parse(c.fit.front().plan).number("replicas"), 2) << c.fit.front().plan;
  EXPECT_LT(c.fit.front().seconds, 0.9 * one.fit.front().seconds);
}

// 8 key/value heads are 2 on a rank of tp=4: for two ranks of cp one each, and for four only by request.
TEST(Choose, RanksOfASequenceShareHeadsUponRequest) {
  const ModelConfig model = load_model_config("suites/models/llama-3-8b.json");
  const std::string words =
      "tp=4 pp=1 micro=1 ckpt=none offload=none activations=device zero=3 sp=0 schedule=1f1b";
  const auto found = [&](const std::string& given) {
    Settings s;
    s.batch = 4, s.seq = 8192, s.fast = true;
    std::set<int> all;
    each_legal_plan(model, s, 16, plan_values(model, s, 16, parse_values(words + given)),
                    [&](const Plan& plan) { all.insert(plan.number("cp")); });
    return all;
  };
  EXPECT_EQ(found(""), (std::set<int>{1, 2}));
  EXPECT_EQ(found(" cp=1,2,4"), (std::set<int>{1, 2, 4}));
}

// The plan that is trained is one that its mode can: sums of exact mode have places, which segments fix.
TEST(Choose, TheFastestHereCutsAsTheRunDoes) {
  AskedOfFour a;
  a.cluster.per_node = 4, a.cluster.memory = 1e9;
  a.settings = {};
  a.settings.seq = 32;
  for (const i64 batch : {2, 8})
    for (const i64 segments : {1, 2}) {
      a.settings.batch = batch, a.settings.segments = segments;
      const Plan plan = fastest_here(a.model, a.settings, a.cluster);
      EXPECT_EQ(plan.number("cp"), segments) << plan.line();
      EXPECT_FALSE(refuse(plan, a.model, a.settings)) << plan.line();
    }
}

// No list of ranks is ever made: a million costs what a few do, and equals the trace.
TEST(Choose, AMillionRanks) {
  const ModelConfig model = load_model_config("suites/models/llama-3.1-405b.json");
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  cluster.devices = 1 << 20;
  Settings settings = settings_on(cluster, {});
  settings.batch = 1 << 16, settings.seq = 8192;
  Composer composer(model, settings, cluster);
  const Plan plan = Plan::parse("dp=8192 tp=8 pp=16 zero=1");
  ASSERT_EQ(plan.ranks(), 1 << 20);
  const Prediction composed = composer.predict(plan);
  const Prediction whole = predict_by_trace({model, settings, plan}, cluster);
  EXPECT_NEAR(composed.seconds / whole.seconds, 1, 1e-6);
  ASSERT_EQ(composed.stages.size(), 16u);
  for (std::size_t p = 0; p < 16; ++p) EXPECT_EQ(composed.stages[p].live, whole.stages[p].live) << p;
}

TEST(Choose, WordsThatNobodyKnowsAreNamed) {
  EXPECT_TRUE(says(refusal([] { parse_values("zerro=1"); }), "zerro", "did you mean `zero`"));
  EXPECT_TRUE(says(refusal([] { parse_values("zero=7"); }), "zero", "0, 1, 2, 3"));
  EXPECT_TRUE(says(refusal([] { parse_values("zero"); }), "word=value"));
  EXPECT_EQ(parse_values("zero=0,3 offload=none").at("zero"), (std::vector<std::string>{"0", "3"}));
}

}  // namespace
}  // namespace lockstep
