// When inputs are read and outputs written, and what that shows about a program that breaks the rules.
#include <atomic>
#include <cmath>

#include "parallel/comm/exchange.hpp"
#include "suites/tests/comm_world.hpp"

namespace lockstep::test {
namespace {

class Timings : public BothTimings {};
class Waits : public EveryWay {};

// Eagerly another rank may bring an output before its wait, so that nobody may look at it until then.
TEST_P(Timings, AnOutputIsPoisonUntilItsWait) {
  LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 64}, GetParam());
  world.run([&](int rank, Comm& comm) {
    const auto check = [&](auto zero, Message m, int n, int out_n) {
      using T = decltype(zero);
      std::vector<T> in = values<T>(8, rank), out(8, 1);
      m.axis = Axis::tp;
      m.type = type_of<T>();
      m.n = n;
      m.in = in.data();
      m.out = out.data();
      const int request = comm.start(m);
      for (int i = 0; i < out_n && GetParam() == Timing::lazy; ++i)
        EXPECT_TRUE(poisoned(out[i])) << verb_name(m.verb);
      for (int i = out_n; i < 8; ++i) EXPECT_EQ(out[i], 1) << "beyond the output";
      comm.wait(request);
      for (int i = 0; i < out_n; ++i) EXPECT_FALSE(poisoned(out[i])) << verb_name(m.verb);
    };
    const auto all_types = [&](const Message& m, int n, int out_n) {
      check(0.0f, m, n, out_n);
      check(0.0, m, n, out_n);
      check(i64{0}, m, n, out_n);
      check(i32{0}, m, n, out_n);
    };
    all_types({.verb = Verb::all_reduce, .reduce = Reduce::max}, 5, 5);
    all_types({.verb = Verb::reduce_scatter, .reduce = Reduce::max}, 3, 3);
    all_types({.verb = Verb::all_gather}, 3, 6);
    all_types({.verb = Verb::all_to_all}, 3, 6);
    all_types({.verb = Verb::broadcast, .peer = 1}, 5, 5);
  });
}

TEST_P(Timings, ADroppedWaitLeavesPoison) {
  std::vector<float> in{1, 2}, out{0, 0};
  LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 8}, GetParam());
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    if (rank == 0) {
      comm.start(recv_from(1, out.data(), 2, "x"));
    } else {
      finish(comm, send_to(0, in.data(), 2, "x"));
    }
  });
  EXPECT_EQ(error,
            "rank 0 (dp 0, tp 0, pp 0) ended with 1 request never waited for: "
            "recv of `x` from rank 1 on world");
  EXPECT_TRUE(poisoned(out[0]) && poisoned(out[1]));
}

// A rank that is ahead brings the late one its output before it fills the same slot again.
TEST(LateRanks, GetWhatWasGivenThem) {
  constexpr int kRounds = 20;
  LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 16}, Timing::eager);
  std::atomic<int> started{0};  // by rank 0
  world.run([&](int rank, Comm& comm) {
    for (int round = 0; round < kRounds; ++round) {
      const auto mine = values<float>(4, 2 * round + rank), other = values<float>(4, 2 * round + 1 - rank);
      std::vector<float> out(4);
      const int request = comm.start(sum_all(mine.data(), out.data(), 4, "x"));
      if (rank == 0) started = round + 1;
      // Rank 0 has finished this round, and given to the next, when rank 1 comes to its wait.
      while (rank == 1 && round + 1 < kRounds && started < round + 2) std::this_thread::yield();
      comm.wait(request);
      for (int i = 0; i < 4; ++i)
        EXPECT_EQ(out[i], mine[i] + other[i]) << "rank " << rank << " round " << round;
    }
  });
}

// A rank that fails with a message under way tells before its memory goes; nobody writes there from then on.
TEST(LateRanks, AreLeftAloneWhenTheyLeave) {
  LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 4}, Timing::eager);
  std::atomic<bool> waited{false}, left{false};
  const float in[2] = {1, 2};
  float out[2] = {0, 0};
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    const int request = comm.start(sum_all(&in[rank], &out[rank], 1, "x"));
    if (rank == 1) {
      while (!waited) std::this_thread::yield();
      comm.leave();
      out[1] = 7;
      left = true;
      throw std::runtime_error("broken");
    }
    comm.wait(request);
    waited = true;
    while (!left) std::this_thread::yield();
    comm.start(sum_all(&in[rank], &out[rank], 1, "x"));
  });
  EXPECT_EQ(error, "rank 1 failed: broken");
  EXPECT_EQ(out[1], 7);
}

// Which slot a contribution takes follows from its member's own starts and waits, however late the others
// are.
TEST(LateRanks, CostNoMemory) {
  Exchange exchange(Mesh{.tp = 2}.group(Axis::tp, 0),
                    CommNeeds::OfAxis{.largest_bytes = 64, .outstanding = 2}, Timing::eager);
  Slot* const first = exchange.take(0);
  Slot* const second = exchange.take(0);
  EXPECT_NE(first, second);
  Message m = sum_all(nullptr, nullptr, 4, "x");
  m.axis = Axis::tp;
  Operation& op = exchange.match(0, m, Mesh{.tp = 2});
  ASSERT_EQ(&exchange.match(1, m, Mesh{.tp = 2}), &op);
  op.parts[0].slot = first, first->user = &op;
  exchange.deliver(op, 0), exchange.finish(op, 0);
  EXPECT_EQ(exchange.take(0), first);
  EXPECT_EQ(first->user, &op) << "the late member has not got it";
  exchange.deliver(op, 1);
  EXPECT_EQ(first->user, nullptr);
}

TEST_P(Timings, InAnInPlaceGatherOnlyTheOwnPartKeepsItsValues) {
  LocalWorld world(Mesh{.tp = 3}, CommNeeds{.largest_bytes = 24}, GetParam());
  world.run([&](int rank, Comm& comm) {
    std::vector<float> x(6, 5);
    Message m = sum_all(&x[2 * rank], x.data(), 2, "x");
    m.verb = Verb::all_gather;
    const int request = comm.start(m);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(poisoned(x[i]), i / 2 != rank);
    comm.wait(request);
  });
}

// A program that reuses its input too early: eagerly it goes unseen, lazily the numbers are wrong.
TEST(Timing, AnInputReusedBeforeItsWaitShowsLazily) {
  const auto run = [](Timing timing) {
    std::vector<float> got(2);
    LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 4}, timing);
    world.run([&](int rank, Comm& comm) {
      float in = static_cast<float>(1 + rank);
      const int request = comm.start(sum_all(&in, &got[rank], 1, "x"));
      in = 100;
      comm.wait(request);
    });
    return got;
  };
  EXPECT_EQ(run(Timing::eager), (std::vector<float>{3, 3}));
  EXPECT_EQ(run(Timing::lazy), (std::vector<float>{200, 200}));
}

// The same in a group of one, so that a solo run shows it too.
TEST(Timing, AGroupOfOneIsLazyToo) {
  for (Timing timing : {Timing::eager, Timing::lazy}) {
    LocalWorld world(Mesh{}, CommNeeds{.largest_bytes = 4}, timing);
    world.run([&](int, Comm& comm) {
      float in = 1, out = 0;
      const int request = comm.start(sum_all(&in, &out, 1, "x"));
      in = 2;
      comm.wait(request);
      EXPECT_EQ(out, timing == Timing::eager ? 1 : 2);
    });
  }
}

// Rank 0 waits for what rank 1 has sent but not yet waited for, while rank 1 waits for rank 0: right under
// any timing. The lazy contributions are read when nothing else can move.
TEST_P(Waits, AWaitNeedsOnlyTheOthersStarts) {
  World world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 4, .outstanding = 2}, GetParam());
  world.run([&](int rank, Comm& comm) {
    const float in[2] = {static_cast<float>(1 + rank), static_cast<float>(10 + rank)};
    float sum = 0, other = 0;
    const int first = comm.start(sum_all(in, &sum, 1, "x"));
    if (rank == 0) {
      comm.wait(first);
      finish(comm, send_to(1, &in[1], 1, "y"));
    } else {
      finish(comm, recv_from(0, &other, 1, "y"));
      EXPECT_EQ(other, 10);
      comm.wait(first);
    }
    EXPECT_EQ(sum, 3);
  });
}

// The last resort reads only what a blocked rank waits for: rank 1's `y` is still read at its own wait.
TEST(Timing, TheLastResortReadsNoMoreThanItMust) {
  float y = 0;
  LocalWorld world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 4, .outstanding = 3}, Timing::lazy);
  world.run([&](int rank, Comm& comm) {
    float in[2] = {1, 2}, x = 0, z = 0;
    if (rank == 0) {
      const int later = comm.start(recv_from(1, &y, 1, "y", -1, 1));
      finish(comm, recv_from(1, &x, 1, "x"));
      finish(comm, send_to(1, in, 1, "z"));
      comm.wait(later);
    } else {
      const int send_x = comm.start(send_to(0, &in[0], 1, "x"));
      const int send_y = comm.start(send_to(0, &in[1], 1, "y", -1, 1));
      finish(comm, recv_from(0, &z, 1, "z"));
      in[1] = 5;  // against the rules
      comm.wait(send_y);
      comm.wait(send_x);
    }
  });
  EXPECT_EQ(y, 5);
}

// A send's wait is a rendezvous: it ends only when the receiver has started.
TEST_P(Waits, ASendWaitsForItsReceiver) {
  std::atomic<bool> started{false};
  bool seen = false;
  World world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 4, .outstanding = 2}, GetParam());
  world.run([&](int rank, Comm& comm) {
    float x = 1;
    if (rank == 0) {
      finish(comm, send_to(1, &x, 1, "x"));
      seen = started;
    } else {
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
      started = true;
      finish(comm, recv_from(0, &x, 1, "x"));
    }
  });
  EXPECT_TRUE(seen);
}

// Stage s and s + 1 in the steady state of 1F1B: each starts its receive before it waits for its send.
TEST_P(Waits, OneForwardOneBackwardPasses) {
  const int stages = 4, microbatches = 6;
  World world(Mesh{.pp = stages}, CommNeeds{.largest_bytes = 4, .outstanding = 4}, GetParam());
  std::vector<float> arrived;
  world.run([&](int stage, Comm& comm) {
    const auto on_pp = [](Message m) {
      m.axis = Axis::pp;
      return m;
    };
    float act[microbatches], grad[microbatches], out[microbatches], back[microbatches];
    int sends[2 * microbatches], count = 0;
    const auto forward = [&](int m) {
      act[m] = static_cast<float>(m);
      if (stage > 0) finish(comm, on_pp(recv_from(stage - 1, &act[m], 1, "activations", m, 0)));
      out[m] = act[m] + 10;
    };
    const int warm_up = std::min(stages - 1 - stage, microbatches);
    for (int m = 0; m < warm_up; ++m) {
      forward(m);
      finish(comm, on_pp(send_to(stage + 1, &out[m], 1, "activations", m, 0)));
    }
    for (int b = 0; b < microbatches; ++b) {
      const int f = warm_up + b;
      if (f < microbatches) forward(f);
      if (stage + 1 < stages) {
        const int receive = comm.start(on_pp(recv_from(stage + 1, &grad[b], 1, "gradients", b, 1)));
        if (f < microbatches) finish(comm, on_pp(send_to(stage + 1, &out[f], 1, "activations", f, 0)));
        comm.wait(receive);
      } else {
        grad[b] = out[b];
        arrived.push_back(out[b]);
      }
      back[b] = 2 * grad[b];
      if (count >= 1) comm.wait(sends[--count]);
      if (stage > 0) sends[count++] = comm.start(on_pp(send_to(stage - 1, &back[b], 1, "gradients", b, 1)));
    }
    while (count > 0) comm.wait(sends[--count]);
    for (int b = 0; stage == 0 && b < microbatches; ++b) EXPECT_EQ(back[b], 16 * (b + 40));
  });
  for (int m = 0; m < microbatches; ++m) EXPECT_EQ(arrived[m], m + 40);
}

TEST(Lazy, AGroupOfOneMayNotLookAtItsOutputEither) {
  LocalWorld(Mesh{}, CommNeeds{.largest_bytes = 64}, Timing::lazy).run([](int, Comm& comm) {
    float x = 1, y = 2;
    const int request = comm.start(sum_all(&x, &y, 1, "x"));
    EXPECT_TRUE(std::isnan(y));
    comm.wait(request);
    EXPECT_EQ(y, 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Both, Timings, both_timings(), timing_name);
INSTANTIATE_TEST_SUITE_P(Ways, Waits, every_way(), way_name);

}  // namespace
}  // namespace lockstep::test
