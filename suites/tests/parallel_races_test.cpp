// Between its start and its wait a message's or copy's input stays as it is, and its output is nobody's: read
// from the trace, where no numbers are.
#include <gtest/gtest.h>

#include <map>

#include "suites/gates/gates.hpp"

namespace lockstep {
namespace {

using Event = Trace::Event;

// Buffers 0 and 1, a message or copy under way from one to the other, and what happens beside it.
struct BesideIt {
  bool copies = false;
  i64 first = 0;  // element of both where it begins; it is of 8

  std::string says(const std::vector<Event>& events, bool waits_before = false) const {
    Event start{copies ? Event::copy : Event::start};
    start.request = 7, start.name = "moves";
    if (copies)
      start.views = {{nullptr, 1, first}, {nullptr, 0, first}}, start.numbers = {8};
    else
      start.message.verb = Verb::all_reduce, start.message.axis = Axis::dp, start.message.n = 8,
      start.message.what = "moves", start.ends = {0, 1}, start.firsts = {first, first};
    Event wait{copies ? Event::copied : Event::wait};
    wait.request = 7;
    Prepared p;
    p.mesh.dp = 2;
    p.traces.resize(2);
    std::vector<Event>& all = p.traces[1].events;
    all = {start};
    if (waits_before) all.push_back(wait);
    all.insert(all.end(), events.begin(), events.end());
    if (!waits_before) all.push_back(wait);
    return races(p);
  }
};

Event add(int to, int a, int b, i64 first, i64 n) {  // to = a + b
  Event e{Event::run};
  e.name = "add", e.numbers = {static_cast<double>(n)}, e.writes = 1;
  for (const int block : {to, a, b}) e.views.push_back({nullptr, block, first});
  return e;
}

TEST(Races, AreWhatKernelsDoToBuffersUnderWay) {
  for (const bool copies : {false, true}) {
    const BesideIt it{copies, 4};
    EXPECT_EQ(it.says({add(0, 2, 3, 0, 5)}),
              "rank 1: `add` writes to what `moves`, which is under way, takes");
    EXPECT_EQ(it.says({add(2, 3, 1, 0, 5)}), "rank 1: `add` reads what `moves`, which is under way, brings");
    EXPECT_EQ(it.says({add(1, 2, 3, 11, 1)}),
              "rank 1: `add` writes to what `moves`, which is under way, brings");
    for (const Event& harmless : {add(2, 0, 0, 4, 8), add(0, 1, 1, 0, 4), add(1, 0, 1, 12, 4)})
      EXPECT_EQ(it.says({harmless}), "");
    EXPECT_EQ(it.says({add(0, 1, 1, 4, 8)}, true), "");
  }
}

TEST(Races, AreWhatOtherMessagesAndCopiesDoToThem) {
  Event back{Event::copy};
  back.request = 8, back.name = "back", back.numbers = {1};
  back.views = {{nullptr, 0, 0}, {nullptr, 2, 0}};
  EXPECT_EQ(BesideIt{}.says({back}), "rank 1: `back` writes to what `moves`, which is under way, takes");
  back.views = {{nullptr, 2, 0}, {nullptr, 1, 7}};
  EXPECT_EQ(BesideIt{}.says({back}), "rank 1: `back` reads what `moves`, which is under way, brings");
  back.views = {{nullptr, 2, 0}, {nullptr, 0, 0}};
  EXPECT_EQ(BesideIt{}.says({back}), "");
  // An all_gather of two ranks brings two blocks of 4: rank 1's is the second.
  Event gather{Event::start};
  gather.request = 8, gather.ends = {2, 1}, gather.firsts = {0, 8};
  gather.message.verb = Verb::all_gather, gather.message.axis = Axis::dp, gather.message.n = 4;
  gather.message.what = "gathers";
  EXPECT_EQ(BesideIt{}.says({gather}), "");
  gather.firsts = {0, 7};
  EXPECT_EQ(BesideIt{}.says({gather}),
            "rank 1: `gathers` writes to what `moves`, which is under way, brings");
}

// Which of its operands a kernel writes to, as its device notes it; and in no step of these is there a race.
TEST(Races, NoStrategyHasThem) {
  const ModelConfig model = load_model_config("suites/models/gate-untied.json");
  const std::map<std::string, unsigned> writes{{"matmul", 1},       {"rms_norm", 3}, {"attention", 3},
                                               {"attention_dx", 7}, {"adamw", 7},    {"ce_sum", 3},
                                               {"swiglu_dx", 3},    {"add", 1},      {"add_squares", 1}};
  Settings settings;
  settings.batch = 8, settings.seq = 16;
  for (const bool fast : {false, true})
    for (const char* line :
         {"dp=2 tp=2 pp=2 sp=1", "dp=4 zero=1 replicas=2 offload=weights",
          "dp=4 zero=2 pp=2 schedule=zero-bubble", "dp=2 zero=3 offload=optimizer to=disk activations=disk",
          "dp=2 cp=2 ckpt=full zero=3 activations=host"}) {
      settings.fast = fast, settings.segments = Plan::parse(line).number("cp");
      const Prepared p = prepare({model, settings, Plan::parse(line), nullptr});
      EXPECT_EQ(races(p), "") << line;
      for (const Event& e : p.traces[0].events) {
        const auto known = writes.find(e.what == Event::run ? e.name : "");
        if (known != writes.end()) {
          ASSERT_EQ(e.writes, known->second) << e.name;
        }
      }
    }
}

}  // namespace
}  // namespace lockstep
