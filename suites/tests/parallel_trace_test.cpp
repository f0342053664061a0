#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "parallel/cluster.hpp"

namespace lockstep {
namespace {

using Event = Trace::Event;

Event message(int request, Verb verb, int peer, i64 tag = 0) {
  Event e{Event::start};
  e.request = request;
  e.message.verb = verb;
  e.message.axis = verb == Verb::all_reduce ? Axis::world : Axis::pp;
  e.message.peer = peer;
  e.message.tag = tag;
  e.message.n = 1;
  e.message.what = "x";
  e.message.microbatch = 3;
  return e;
}
Event wait(int request) {
  Event e{Event::wait};
  e.request = request;
  return e;
}

TEST(Deadlock, TwoReceivesWaitForEachOther) {
  std::vector<Trace> t(2);
  t[0].events = {message(0, Verb::recv, 1), wait(0), message(1, Verb::send, 1), wait(1)};
  t[1].events = {message(0, Verb::recv, 0), wait(0), message(1, Verb::send, 0), wait(1)};
  const std::string stuck = find_deadlock(t, Mesh{1, 1, 2});
  EXPECT_NE(stuck.find("rank 0 (dp 0, tp 0, pp 0) waits for recv of `x` microbatch 3 from rank 1 on pp"),
            std::string::npos)
      << stuck;
  EXPECT_NE(stuck.find("rank 1 (dp 0, tp 0, pp 1) waits for recv of `x` microbatch 3 from rank 0 on pp"),
            std::string::npos)
      << stuck;
}

TEST(Deadlock, SendsAreNotBuffered) {
  std::vector<Trace> t(2);
  t[0].events = {message(0, Verb::send, 1), wait(0), message(1, Verb::recv, 1), wait(1)};
  t[1].events = {message(0, Verb::send, 0), wait(0), message(1, Verb::recv, 0), wait(1)};
  EXPECT_NE(find_deadlock(t, Mesh{1, 1, 2}), "");
  // The same with the receive posted first goes through.
  t[0].events = {message(1, Verb::recv, 1), message(0, Verb::send, 1), wait(0), wait(1)};
  EXPECT_EQ(find_deadlock(t, Mesh{1, 1, 2}), "");
}

TEST(Deadlock, TagsAndMissingMembersMatter) {
  std::vector<Trace> t(2);
  t[0].events = {message(0, Verb::send, 1, 7), wait(0)};
  t[1].events = {message(0, Verb::recv, 0, 8), wait(0)};
  EXPECT_NE(find_deadlock(t, Mesh{1, 1, 2}), "");
  t[1].events = {message(0, Verb::recv, 0, 7), wait(0)};
  EXPECT_EQ(find_deadlock(t, Mesh{1, 1, 2}), "");
  t[0].events = {message(0, Verb::all_reduce, -1), wait(0)};
  t[1].events = {};
  EXPECT_NE(find_deadlock(t, Mesh{1, 1, 2}), "");
}

TEST(Peaks, CountEachKindAndTheTotalAtItsOwnWorstTime) {
  Trace t;
  t.take(0, "w", Kind::weights, 100);
  t.take(1, "a", Kind::buffers, 40);
  t.relabel(1, Kind::activations);
  t.take(2, "b", Kind::buffers, 10);
  t.give(1);
  t.take(3, "c", Kind::buffers, 20);
  t.give(2), t.give(3);
  const Peaks p = peaks(t);
  auto of = [&](Kind k) { return p.by_kind[static_cast<int>(k)]; };
  EXPECT_EQ(of(Kind::weights), 100);
  EXPECT_EQ(of(Kind::activations), 40);
  EXPECT_EQ(of(Kind::buffers), 40);
  EXPECT_EQ(p.total, 150);
}

// No two buffers alive together may share a byte of what is laid out.
void check_layout(const Trace& trace, const ArenaPlan& arena, Medium medium) {
  std::map<int, ArenaPlan::Place> alive;
  std::size_t takes = 0;
  for (const Event& e : trace.events) {
    if (e.what == Event::give) alive.erase(e.block);
    if (e.what != Event::take || medium_of(e.kind) != medium) continue;
    const ArenaPlan::Place mine = arena.places.at(takes++);
    EXPECT_EQ(mine.bytes, e.bytes);
    EXPECT_LE(mine.offset + mine.bytes, arena.bytes);
    for (const auto& [block, other] : alive)
      EXPECT_TRUE(mine.offset + mine.bytes <= other.offset || other.offset + other.bytes <= mine.offset)
          << "blocks " << e.block << " and " << block;
    alive[e.block] = mine;
  }
  EXPECT_EQ(takes, arena.places.size());
  EXPECT_LE(arena.bytes * 100, arena.live * 105);
}

TEST(Arena, KeepsLiveBuffersApartAndWastesLittle) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 16, settings.seq = 32;
  for (const char* line :
       {"dp=1", "pp=4 micro=2", "tp=2 sp=1 pp=2 ckpt=full", "dp=2 tp=4 pp=2 micro=4",
        "tp=4 pp=4 schedule=interleaved virtual=2",
        "tp=4 pp=4 ckpt=norms schedule=interleaved sp=1 virtual=2 zero=1",
        "pp=2 offload=weights activations=disk", "tp=2 pp=2 micro=2 schedule=zero-bubble activations=host",
        "dp=2 pp=2 zero=3 offload=weights to=disk activations=host ckpt=selective every=2"}) {
    SCOPED_TRACE(line);
    const Prepared p = prepare({model, settings, Plan::parse(line), nullptr});
    EXPECT_EQ(p.deadlock, "");
    for (int r = 0; r < p.mesh.size(); ++r)
      for (const Medium m : {Medium::device, Medium::host, Medium::disk})
        check_layout(p.traces[r], p.layout(r, m), m);
  }
}

TEST(Show, PrintsEveryKernelMessageAndOffset) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const Prepared p = prepare({model, Settings{}, Plan::parse("tp=2 pp=2"), nullptr});
  const std::string text = program(p.traces[2], p.layouts[2]);
  for (const char* piece : {"start   recv pp `chunk1.x`", "run     matmul(", "all_reduce tp `head.max`",
                            "backward: chunk 1", "@0x"})
    EXPECT_NE(text.find(piece), std::string::npos) << piece;
  EXPECT_NE(text.find("recv pp `chunk1.x` peer 0 microbatch 0"), std::string::npos);
  std::smatch base, later;  // losses are float64
  ASSERT_TRUE(std::regex_search(text, base, std::regex("losses#[0-9]+@(0x[0-9a-f]+)")));
  ASSERT_TRUE(std::regex_search(text, later, std::regex("losses#[0-9]+[+]([0-9]+)@(0x[0-9a-f]+)")));
  EXPECT_EQ(std::stoll(later[2], nullptr, 16), std::stoll(base[1], nullptr, 16) + 8 * std::stoll(later[1]));
}

// The embedding's output and h1 are 2 x 16 x 32 numbers of two bytes each, and begin what waits on the host.
TEST(Show, ACopysEndsLieWhereItsNumbersAre) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 2, settings.seq = 16, settings.weight_bytes = settings.activation_bytes = 2;
  const Prepared p = prepare({model, settings, Plan::parse("activations=host"), nullptr});
  const std::string text = program(p.traces[0], p.layouts[0]);
  for (const char* end : {"@0x0 <- embedding output#", "+1024@0x800 <- h1#", "+1024@0x1000 <- rstd1#"})
    EXPECT_NE(text.find(end), std::string::npos) << end;
}

}  // namespace
}  // namespace lockstep
