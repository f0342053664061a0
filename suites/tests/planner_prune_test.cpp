// What the planner leaves out loses nothing: its answers against a plain loop over all plans.
#include <gtest/gtest.h>

#include <algorithm>

#include "ref/error.hpp"
#include "suites/planner/answer/explain.hpp"
#include "suites/planner/course.hpp"
#include "suites/planner/pipeline.hpp"
#include "suites/progress.hpp"

namespace lockstep {
namespace {

struct Case {
  const char* model;
  i64 batch, devices;
  double memory, host_memory;  // bytes
};

struct Scene {
  explicit Scene(const Case& c) {
    model = load_model_config("suites/models/" + std::string(c.model) + ".json");
    cluster.devices = c.devices, cluster.per_node = 4;
    cluster.memory = c.memory, cluster.flops = 1e12, cluster.memory_bandwidth = 1e11, cluster.launch = 1e-7;
    cluster.node = {1e10, 2e-6, {}, {}}, cluster.network = {2e9, 1e-5, {}, {}};
    cluster.host = {3e9, 3e-6, {}, {}}, cluster.host_memory = c.host_memory, cluster.host_bandwidth = 2e10;
    cluster.communicator = 1e4;
    settings = settings_on(cluster, {});
    settings.batch = c.batch, settings.seq = 32;
  }
  ModelConfig model;
  Cluster cluster;
  Settings settings;
  const Values given = parse_values("to=host activations=device,host ckpt=none,full,attention");
};

// Every plan weighed, one after the other.
Choices plain_loop(const Scene& s) {
  Choices all;
  Composer composer(s.model, s.settings, s.cluster);
  const Values values = plan_values(s.model, s.settings, s.cluster.devices, s.given, s.cluster.per_node);
  i64 place = 0;
  const auto visit = [&](const Plan& plan) {
    const Prediction p = composer.weigh(plan);
    const Mesh mesh = lockstep::Run{s.model, s.settings, plan}.mesh();
    const Weighed w{plan.line(), p.seconds, needs(p, s.cluster, mesh), place++};
    if (const double lack = lacks(w.needs, has(s.cluster)); lack > 0) {
      if (++all.misfits == 1 || lack < all.least) all.closest = w, all.least = lack;
      all.most = std::max(all.most, lack);
      return;
    }
    ++all.fitting, all.fit.push_back(w);
    for (const auto& [word, list] : values)
      if (list.size() > 1) {
        const auto [it, fresh] = all.best[word].try_emplace(plan.text(word), w);
        if (!fresh && w.seconds < it->second.seconds) it->second = w;
      }
  };
  all.walked = each_legal_plan(s.model, s.settings, s.cluster.devices, values, visit);
  std::stable_sort(all.fit.begin(), all.fit.end(),
                   [](const Weighed& a, const Weighed& b) { return a.seconds < b.seconds; });
  return all;
}

TEST(Prune, LosesNothing) {
  for (const Case& c : {Case{"gate-tiny", 16, 4, 2.2e6, 1e9}, Case{"gate-tiny", 12, 8, 1e9, 1e9},
                        Case{"gate-untied", 16, 8, 1.4e6, 3e6}, Case{"gate-odd", 8, 2, 3e6, 2e6},
                        Case{"gate-tiny", 8, 4, 1e5, 1e5},
                        // Fewer sequences than devices: they are cut.
                        Case{"gate-untied", 4, 8, 7e5, 3e6}}) {
    const Scene s(c);
    SCOPED_TRACE(std::string(c.model) + " on " + std::to_string(c.devices));
    const Choices plain = plain_loop(s);
    Wanted wanted;
    wanted.top = 7, wanted.pareto = true, wanted.within = c.batch == 16 ? 0.1 : 0;
    const Choices pruned = choose(s.model, s.settings, s.cluster, s.given, wanted);
    ASSERT_GT(pruned.walked.legal, 300);
    EXPECT_EQ(pruned.walked.axes.at("cp").size(), c.batch < c.devices ? 3u : 1u);
    EXPECT_EQ(pruned.walked.legal, plain.walked.legal);
    EXPECT_EQ(pruned.walked.axes, plain.walked.axes);
    EXPECT_EQ(pruned.fitting, plain.fitting);
    EXPECT_EQ(pruned.misfits, plain.misfits);
    EXPECT_EQ(pruned.fitting + pruned.misfits, pruned.walked.legal);
    EXPECT_DOUBLE_EQ(pruned.least, plain.least);
    EXPECT_LE(pruned.most, plain.most);
    ASSERT_EQ(pruned.closest.has_value(), plain.closest.has_value());
    if (plain.closest) {
      EXPECT_EQ(pruned.closest->plan, plain.closest->plan);
    }
    const auto few = distinct(pruned), all = distinct(plain);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i >= 7 && all[i]->seconds > all[0]->seconds * (1 + wanted.within)) break;
      ASSERT_LT(i, few.size());
      EXPECT_EQ(few[i]->plan, all[i]->plan);
      EXPECT_DOUBLE_EQ(few[i]->seconds, all[i]->seconds);
      EXPECT_EQ(few[i]->needs, all[i]->needs);
    }
    ASSERT_EQ(pruned.best.size(), plain.best.size());
    for (const auto& [word, values] : plain.best) {
      ASSERT_EQ(pruned.best.at(word).size(), values.size()) << word;
      for (const auto& [value, w] : values)
        EXPECT_EQ(pruned.best.at(word).at(value).plan, w.plan) << word << "=" << value;
    }
    const Question q{s.model, s.settings, s.cluster};
    if (!plain.fit.empty()) {
      EXPECT_EQ(pareto_text(pruned, q), pareto_text(plain, q));
    }
    if (c.memory > 2e5 && c.memory < 1e8) {
      EXPECT_LT(pruned.fit.size(), plain.fit.size());
    }
  }
}

// Parts of the plans, each walked over by itself, are all of them, in their order.
TEST(Prune, PartsAreTheWhole) {
  const Scene s({"gate-odd", 8, 8, 1e9, 1e9});
  const Values values =
      plan_values(s.model, s.settings, 8, parse_values("to=host cp=1,2 pp=1,2,3 ckpt=none,full"));
  std::vector<std::string> whole, apart;
  const auto walk = [&](const Values& of, std::vector<std::string>& lines) {
    return each_legal_plan(s.model, s.settings, 8, of,
                           [&](const Plan& plan) { lines.push_back(plan.line()); });
  };
  const Enumerated all = walk(values, whole);
  Enumerated sum;
  std::size_t parts = 0;
  for (const Values& part : parts_of(values, 8)) sum.add(walk(part, apart)), ++parts;
  EXPECT_EQ(parts, 4 + 4 + 3 + 1u);  // of tp=1, 2, 4 and 8: three stages divide no eight devices
  EXPECT_EQ(apart, whole);
  EXPECT_EQ(sum.legal, all.legal);
  EXPECT_EQ(sum.combinations, all.combinations);
  EXPECT_EQ(sum.refused, all.refused);
  EXPECT_EQ(sum.why, all.why);
  EXPECT_EQ(sum.axes, all.axes);
}

// What is answered, and what is counted, is the same of any number of cores.
TEST(Prune, CoresMakeNoDifference) {
  const Scene s({"gate-untied", 4, 8, 7e5, 3e6});
  const Question q{s.model, s.settings, s.cluster};
  Choices of_one;
  for (const int cores : {1, 2, 7}) {
    SCOPED_TRACE(cores);
    double last = 0;
    Wanted wanted;
    wanted.pareto = true, wanted.cores = cores;
    wanted.share = [&](double part) {
      EXPECT_LE(last, part + 1e-9);
      last = part;
    };
    Choices c = choose(s.model, s.settings, s.cluster, s.given, wanted);
    EXPECT_NEAR(last, 1, 1e-9);
    EXPECT_GT(c.misfits, 0);
    c.seconds = 0;
    if (cores == 1) of_one = c;
    EXPECT_EQ(counts_text(c), counts_text(of_one));
    EXPECT_EQ(ranking_text(c, q, 5), ranking_text(of_one, q, 5));
    EXPECT_EQ(pareto_text(c, q), pareto_text(of_one, q));
    EXPECT_EQ(why_text(c, q), why_text(of_one, q));
  }
  // What does not fit, mesh by mesh.
  double least = 1e18, most = 0;
  for (const Values& part : parts_of(plan_values(s.model, s.settings, 8, s.given, s.cluster.per_node), 8)) {
    Values given = s.given;
    for (const char* word : {"tp", "cp", "pp"}) given[word] = part.at(word);
    const Choices c = choose(s.model, s.settings, s.cluster, given);
    if (c.misfits) least = std::min(least, c.least), most = std::max(most, c.most);
  }
  EXPECT_GT(most, least);
  EXPECT_EQ(of_one.least, least);
  EXPECT_EQ(of_one.most, most);
}

TEST(Prune, WhatIsThrownInAPartIsThrown) {
  const Scene s({"gate-tiny", 8, 4, 1e9, 1e9});
  for (const int cores : {1, 3}) {
    Wanted wanted;
    wanted.cores = cores;
    wanted.usable = [](const Plan& plan) -> bool {
      if (plan.number("tp") == 2) throw UserError("not this one");
      return true;
    };
    EXPECT_THROW(choose(s.model, s.settings, s.cluster, s.given, wanted), UserError);
  }
}

// Where each plan has a twin, the fastest so many are as many that differ.
TEST(Prune, TwinsTakeNoPlace) {
  const Scene s({"gate-tiny", 8, 4, 1e9, 1e9});
  const Values given = parse_values("pp=1 schedule=1f1b,gpipe micro=8,4,2 activations=device offload=none");
  const Wanted few{.top = 6, .by_value = false}, many{.top = 1000, .by_value = false};
  const Choices pruned = choose(s.model, s.settings, s.cluster, given, few),
                all = choose(s.model, s.settings, s.cluster, given, many);
  const auto some = distinct(pruned), each = distinct(all);
  ASSERT_GT(all.fit.size(), 3 * each.size() / 2);
  ASSERT_GT(each.size(), 6u);
  ASSERT_GE(some.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(some[i]->plan, each[i]->plan);
}

// Of every plan: what is said soon of its bytes is true, and what is said of its seconds is not too much.
TEST(Prune, TheOutlookIsABound) {
  const Scene s({"gate-tiny", 16, 4, 1e9, 1e9});
  Composer composer(s.model, s.settings, s.cluster);
  const Values values = plan_values(s.model, s.settings, 4, s.given, s.cluster.per_node);
  double near = 0;
  i64 plans = 0;
  each_legal_plan(s.model, s.settings, 4, values, [&](const Plan& plan) {
    const Prediction p = composer.weigh(plan);
    const Composer::Outlook o = composer.outlook(plan, 1e18);
    const double more = composer.seconds_at_least(plan);
    EXPECT_EQ(o.needs, needs(p, s.cluster, lockstep::Run{s.model, s.settings, plan}.mesh())) << plan.line();
    EXPECT_LE(o.seconds, p.seconds * (1 + 1e-9)) << plan.line();
    EXPECT_LE(more, p.seconds * (1 + 1e-9)) << plan.line();
    near += more / p.seconds, ++plans;
  });
  EXPECT_GT(near / static_cast<double>(plans), 0.9);  // or it would be of no use
}

// So it is of hundreds of microbatches, whose copies lag behind more and more, or not at all.
TEST(Prune, TheOutlookOfManyMicrobatchesIsABound) {
  Scene s({"gate-tiny", 192, 4, 1e9, 1e9});
  for (const double to_host : {3e9, 2e8, 2e7}) {
    s.cluster.host.bandwidth = to_host;
    Composer composer(s.model, s.settings, s.cluster);
    const Values values = plan_values(
        s.model, s.settings, 4,
        parse_values(
            "to=host tp=1 cp=1 micro=1 zero=0,1 ckpt=none,full offload=none activations=device,host"));
    i64 plans = 0;
    each_legal_plan(s.model, s.settings, 4, values, [&](const Plan& plan) {
      ++plans;
      EXPECT_LE(composer.seconds_at_least(plan), composer.weigh(plan).seconds * (1 + 1e-9)) << plan.line();
    });
    EXPECT_GT(plans, 40);
  }
}

// What is printed of a plan was weighed; what explains it is predicted.
TEST(Prune, WeighedAndPredictedAgree) {
  const Scene s({"gate-untied", 16, 8, 2.5e6, 1e9});
  Composer composer(s.model, s.settings, s.cluster);
  for (const Weighed& w : choose(s.model, s.settings, s.cluster, s.given).fit) {
    const Plan plan = Plan::parse(w.plan);
    const Prediction p = composer.predict(plan);
    EXPECT_NEAR(p.seconds / w.seconds, 1, 1e-6) << w.plan;
    EXPECT_EQ(needs(p, s.cluster, lockstep::Run{s.model, s.settings, plan}.mesh()), w.needs) << w.plan;
  }
}

// Legal plans by value, against the product of all values asked one by one.
TEST(Prune, LegalPlansAreCountedByAxis) {
  const Scene s({"gate-odd", 8, 4, 1e9, 1e9});
  const Values values = plan_values(
      s.model, s.settings, 4,
      {{"tp", {"1", "2", "3", "4"}}, {"to", {"host"}}, {"ckpt", {"none", "full"}}, {"bucket", {"1"}}});
  std::vector<Plan> product{Plan::parse("")};
  for (const auto& [word, list] : values) {
    std::vector<Plan> longer;
    for (const Plan& plan : product)
      for (const std::string& value : list) longer.push_back(plan), longer.back().set(word, value);
    product = std::move(longer);
  }
  std::map<std::string, std::map<std::string, i64>> axes;
  i64 legal = 0;
  for (const Plan& plan : product) {
    if (plan.ranks() != 4 || s.settings.batch % (plan.number("dp") * plan.number("micro"))) continue;
    if (refuse_anywhere(plan, s.model, s.settings)) continue;
    ++legal;
    for (const auto& [word, list] : values) ++axes[word][plan.text(word)];
  }
  i64 visited = 0;
  double last = 0;
  const Enumerated e = each_legal_plan(
      s.model, s.settings, 4, values, [&](const Plan&) { ++visited; },
      [&](double part) {
        EXPECT_LE(last, part);
        EXPECT_LE(part, 1);
        last = part;
      });
  EXPECT_GT(legal, 1000);
  EXPECT_GT(last, 0.3);
  EXPECT_EQ(e.legal, legal);
  EXPECT_EQ(visited, legal);
  EXPECT_EQ(e.axes, axes);
  EXPECT_EQ(e.axes.at("tp").count("3"), 0u);  // three do not divide four devices
}

// Of many microbatches a course is continued from few; the loops are those of all.
TEST(Prune, CoursesOfManyMicrobatchesAreWhole) {
  const Scene s({"gate-tiny", 48, 4, 1e9, 1e9});
  const auto moves = [](const Course& c, std::size_t stage) {
    std::vector<Total> one(c.moves.size());
    for (Total& t : one) t.work = 1;
    return total_of(c.stages[stage].loops, one).work;
  };
  for (const char* line : {"dp=1 pp=4", "pp=4 schedule=gpipe", "pp=4 schedule=zero-bubble",
                           "pp=4 schedule=interleaved virtual=2"}) {
    const lockstep::Run run{s.model, s.settings, Plan::parse(line)};
    const std::unique_ptr<Schedule> schedule = make_schedule(run);
    for (const int m : {48, 1000}) {
      const Course c = course(run.plan, *schedule, 4, m, true, {});
      for (std::size_t stage = 0; stage < 4; ++stage)
        EXPECT_EQ(moves(c, stage), schedule->actions(static_cast<int>(stage), 4, m).size())
            << line << ", " << m;
    }
  }
}

TEST(Prune, ProgressGoesToStderr) {
  testing::internal::CaptureStdout(), testing::internal::CaptureStderr();
  {
    PartProgress often("weighing", 0), seldom("never said", 1e9);
    often.at(0.25), seldom.at(0.25);
    often.at(0), often.at(0.5);
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "weighing: 25 %, 1 s left\nweighing: 50 %, 1 s left\n");
}

}  // namespace
}  // namespace lockstep
