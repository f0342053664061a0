// Whole plans over the nccl communicator, on a fabric that needs no GPU: every message of a real step goes
// through its channels, and all plans have the reference's hash.
#include <gtest/gtest.h>

#include "parallel/trace/pairs.hpp"
#include "suites/gates/gates.hpp"
#include "suites/run/reference.hpp"
#include "suites/tests/fabric_stand_in.hpp"

namespace lockstep {
namespace {

struct Tiny {
  Tiny() {
    settings.batch = 8, settings.seq = 16, settings.steps = 2;
    initial = fresh_weights(model, settings);
  }
  // The hash of a plan's steps, and what is wrong with them.
  std::string run(const Prepared& p, Fabrics* fabrics) const {
    Assembly assembly(p, settings.steps);
    launch(p, {.fabrics = fabrics}, [&](RankView v) {
      initialise(v, initial);
      for (i64 k = 0; k < settings.steps; ++k) {
        const StepResult r = v.executor.step(
            k, [&] { assembly.gradients(k, v); }, [&] { assembly.weights(k, v); });
        assembly.result(k, r, v.rank);
      }
    });
    const std::string problem = assembly.problem();
    return problem.empty() ? assembly.whole().hash() : problem;
  }
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Weights initial;
};

TEST(NcclPlans, HaveTheHashOfOneDevice) {
  Tiny tiny;
  const Whole whole = reference_run(tiny.model, tiny.settings, tiny.data, "auto", 1, tiny.initial);
  tiny.settings.segments = 2;
  const Whole halves = reference_run(tiny.model, tiny.settings, tiny.data, "auto", 1, tiny.initial);
  for (const char* line :
       {"cp=2", "dp=2 cp=2 zero=3 micro=2", "dp=2 cp=2 pp=2 zero=2 replicas=2 ckpt=full", "dp=1",
        "dp=2 tp=2 pp=2 zero=1 ckpt=full micro=1", "dp=4 zero=2 micro=2", "dp=4 zero=2 micro=1",
        "dp=2 zero=3 pp=2 micro=1", "tp=4 sp=1 micro=2", "tp=4 pp=2 micro=1", "pp=4 micro=1",
        "pp=2 schedule=interleaved virtual=2 micro=1", "pp=4 schedule=gpipe micro=2",
        "pp=3 schedule=zero-bubble micro=1", "dp=2 bucket=3 pp=2 micro=2 offload=optimizer",
        "dp=2 zero=3 offload=weights activations=host micro=2", "dp=4 zero=2 replicas=2 micro=2"}) {
    test::StandIns fabrics;
    const Plan plan = Plan::parse(line);
    tiny.settings.segments = plan.number("cp");
    const Whole& reference = plan.number("cp") == 2 ? halves : whole;
    ASSERT_FALSE(refuse(plan, tiny.model, tiny.settings)) << line;
    const Prepared p = prepare({tiny.model, tiny.settings, plan, &tiny.data});
    EXPECT_EQ(tiny.run(p, &fabrics), reference.hash()) << line;
  }
}

// The library's sums have another order, so the numbers are others, and yet close; every replica has the
// same.
TEST(NcclPlans, InFastModeTheReductionsAreTheLibrarys) {
  Tiny tiny;
  tiny.settings.fast = true;
  for (const char* line :
       {"dp=4 micro=2", "dp=2 cp=2 micro=2", "dp=4 tp=2 zero=1 micro=1", "tp=4 sp=1 micro=2"}) {
    test::StandIns fabrics;
    const Prepared p = prepare({tiny.model, tiny.settings, Plan::parse(line), &tiny.data});
    const std::string here = tiny.run(p, nullptr), there = tiny.run(p, &fabrics);
    EXPECT_EQ(here.size(), 32u) << here;  // a hash, no problem
    EXPECT_EQ(there.size(), 32u) << there;
    EXPECT_NE(here, there) << line;
  }
}

// What each rank starts, as it would be traced.
std::vector<Trace> traces_of(const std::vector<std::vector<Message>>& by_rank) {
  std::vector<Trace> traces;
  for (const auto& messages : by_rank) {
    Trace& t = traces.emplace_back();
    for (const Message& m : messages) {
      Trace::Event e{Trace::Event::start};
      e.message = m;
      t.events.push_back(e);
    }
  }
  return traces;
}

TEST(NcclPlans, TracesThatDisagreeAreRefused) {
  const Mesh mesh{.pp = 2};
  const auto transfer = [](Verb verb, int peer, i64 n, i64 tag) {
    Message m;
    m.verb = verb, m.axis = Axis::pp, m.peer = peer, m.n = n, m.tag = tag, m.what = "x";
    return m;
  };
  const auto sum = [](i64 n, const char* what) {
    Message m;
    m.reduce = Reduce::sum, m.axis = Axis::pp, m.n = n, m.what = what;
    return m;
  };
  const auto why = [&](const std::vector<std::vector<Message>>& by_rank) -> std::string {
    try {
      check_order(traces_of(by_rank), mesh);
    } catch (const CommError& e) {
      return e.what();
    }
    return "";
  };
  const Message send = transfer(Verb::send, 1, 4, 7), recv = transfer(Verb::recv, 0, 4, 7);
  EXPECT_EQ(why({{send, sum(3, "a")}, {sum(3, "a"), recv}}), "");
  EXPECT_NE(why({{send}, {transfer(Verb::recv, 0, 5, 7)}}).find("mismatch on pp"), std::string::npos);
  EXPECT_NE(why({{send, transfer(Verb::send, 1, 4, 8)}, {transfer(Verb::recv, 0, 4, 8), recv}})
                .find("rank 0 sends and rank 1 receives in different orders: send of `x`"),
            std::string::npos);
  EXPECT_NE(why({{send, send}, {recv}}).find("rank 0 sends 2 messages to rank 1, which receives 1"),
            std::string::npos);
  EXPECT_NE(why({{sum(3, "a"), sum(4, "b")}, {sum(4, "b"), sum(3, "a")}}).find("mismatch on pp"),
            std::string::npos);
  EXPECT_NE(why({{sum(3, "a")}, {}}).find("starts 0 collectives, but rank 0 starts 1"), std::string::npos);
}

TEST(NcclPlans, TheTraceSaysWhoSendsAndHowMuchIsStaged) {
  const Tiny tiny;
  const auto needs_of = [&](const char* line) {
    const Prepared p = prepare({tiny.model, tiny.settings, Plan::parse(line), &tiny.data});
    return channel_needs(p.needs, p.traces, p.mesh);
  };
  using Pairs = std::vector<CommNeeds::Pair>;
  EXPECT_EQ(needs_of("pp=3 micro=1").pairs,
            (Pairs{{Axis::pp, 0, 1}, {Axis::pp, 1, 0}, {Axis::pp, 1, 2}, {Axis::pp, 2, 1}}));
  EXPECT_EQ(needs_of("pp=2 dp=2 micro=1").pairs,  // rank = dp + 2 pp
            (Pairs{{Axis::pp, 0, 2}, {Axis::pp, 1, 3}, {Axis::pp, 2, 0}, {Axis::pp, 3, 1}}));
  const CommNeeds needs = needs_of("tp=2 sp=1 micro=1");
  EXPECT_TRUE(needs.pairs.empty());
  // [b, T, D] of f32: 1 x 16 x 64 x 4 bytes; norm weights' gradients and the loss are smaller.
  EXPECT_GE(needs.on_axis[static_cast<int>(Axis::tp)].largest_bytes, 16 * tiny.model.hidden * 4);
  EXPECT_FALSE(needs.on_axis[static_cast<int>(Axis::pp)].largest_bytes > 0);
  // The largest that is exchanged is q: of the 8 tokens of a segment 8 heads of 8, each token's by itself.
  const CommNeeds::Collectives exchanged = needs_of("cp=2 micro=1").on_axis[static_cast<int>(Axis::cp)];
  EXPECT_EQ(exchanged.largest_bytes, 8 * 64 * 4);
  EXPECT_TRUE(exchanged.in_blocks);
}

}  // namespace
}  // namespace lockstep
