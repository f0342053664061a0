// Programs that cannot go on: each ends on every rank, and the report says why.
#include "suites/tests/comm_world.hpp"

namespace lockstep::test {
namespace {

class Failures : public EveryWay {
 protected:
  // Without end the nccl communicator's watch would wait for what these programs never do.
  const NcclOptions kPatient{.patience = 0.5};
};
class Mismatches : public BothTimings {};  // NCCL's messages say nothing of themselves

const CommNeeds kNeeds{.largest_bytes = 64, .outstanding = 2};

void expect_says(const std::string& text, std::initializer_list<const char*> pieces) {
  for (const char* piece : pieces)
    EXPECT_NE(text.find(piece), std::string::npos) << "missing: " << piece << "\nin: " << text;
}

TEST_P(Failures, TwoReceivesOfEachOther) {
  World world(Mesh{.tp = 2, .pp = 2}, kNeeds, GetParam(), kPatient);
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x = 0;
    if (rank == 1) finish(comm, recv_from(3, &x, 1, "gradients", 2));
    if (rank == 3) finish(comm, recv_from(1, &x, 1, "activations", 0));
  });
  if (GetParam() == Way::nccl) {
    EXPECT_TRUE(error ==
                    "nothing has moved for 0.5 s while waiting for recv of `gradients` microbatch 2 "
                    "from rank 3 on world" ||
                error ==
                    "nothing has moved for 0.5 s while waiting for recv of `activations` microbatch 0 "
                    "from rank 1 on world")
        << error;
    return;
  }
  EXPECT_EQ(error,
            "deadlock: no rank can go on\n"
            "  rank 0 (dp 0, tp 0, pp 0) has ended\n"
            "  rank 1 (dp 0, tp 1, pp 0) waits for recv of `gradients` microbatch 2 from rank 3 on world, "
            "not started by rank 3\n"
            "  rank 2 (dp 0, tp 0, pp 1) has ended\n"
            "  rank 3 (dp 0, tp 1, pp 1) waits for recv of `activations` microbatch 0 from rank 1 on world, "
            "not started by rank 1");
}

TEST_P(Failures, TwoSendsThatCountOnBuffering) {
  World world(Mesh{.pp = 2}, kNeeds, GetParam(), kPatient);
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float in = 1, out = 0;
    finish(comm, send_to(1 - rank, &in, 1, "x", 3));
    finish(comm, recv_from(1 - rank, &out, 1, "x", 3));
  });
  if (GetParam() == Way::nccl)
    return expect_says(error, {"nothing has moved", "waiting for send of `x` microbatch 3 to rank "});
  expect_says(error,
              {"deadlock", "rank 0 (dp 0, tp 0, pp 0) waits for send of `x` microbatch 3 to rank 1 on world",
               "rank 1 (dp 0, tp 0, pp 1) waits for send of `x` microbatch 3 to rank 0 on world"});
}

TEST_P(Failures, AMissingMember) {
  World world(Mesh{.dp = 4}, kNeeds, GetParam(), kPatient);
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x = 1;
    if (rank == 2) return;
    Message m = sum_all(&x, &x, 1, "norm");
    m.axis = Axis::dp;
    finish(comm, m);
  });
  if (GetParam() == Way::nccl)
    return expect_says(error, {"nothing has moved", "all_reduce of `norm` on dp among ranks 0, 1, 2, 3"});
  expect_says(error, {"deadlock",
                      "rank 0 (dp 0, tp 0, pp 0) waits for all_reduce of `norm` on dp among ranks 0, 1, "
                      "2, 3, not started by rank 2",
                      "rank 2 (dp 2, tp 0, pp 0) has ended"});
}

// The ranks of a deadlock all get the report, whatever else they would have done.
TEST_P(Failures, EveryRankIsToldOfADeadlock) {
  std::atomic<int> told{0};
  CommNeeds needs = kNeeds;
  needs.pairs = all_pairs(Mesh{.dp = 8});
  World world(Mesh{.dp = 8}, needs, GetParam(), kPatient);
  const char* said = GetParam() == Way::nccl ? "nothing has moved" : "deadlock: ";
  EXPECT_THROW(world.run([&](int rank, Comm& comm) {
    float x = 0;
    try {
      finish(comm, recv_from((rank + 1) % 8, &x, 1, "x"));
    } catch (const CommError& e) {
      told += std::string(e.what()).starts_with(said);
      throw;
    }
  }),
               CommError);
  EXPECT_EQ(told, 8);
}

struct Mismatch {
  const char* name;
  void (*change)(Message&);
  const char* first;
  const char* second;
};

TEST_P(Mismatches, MembersThatStateDifferentOperations) {
  const Mismatch cases[] = {
      {"verb", [](Message& m) { m.verb = Verb::reduce_scatter; }, "all_reduce of `x`",
       "reduce_scatter of `x`"},
      {"no sum", [](Message& m) { m.verb = Verb::all_to_all, m.reduce = Reduce::none; }, "all_reduce of `x`",
       "all_to_all of `x`"},
      {"type", [](Message& m) { m.type = Type::i32; }, "2 f32", "2 i32"},
      {"reduce", [](Message& m) { m.reduce = Reduce::max; }, "sum", "max"},
      {"blocks", [](Message& m) { m.blocks = 2; }, "1 blocks of 2", "2 blocks of 2"},
      {"n", [](Message& m) { m.n = 1; }, "1 blocks of 2", "1 blocks of 1"},
      {"what", [](Message& m) { m.what = "y"; }, "`x`", "`y`"},
      {"microbatch", [](Message& m) { m.microbatch = 5; }, "all_reduce of `x` on", "microbatch 5"},
  };
  for (const Mismatch& c : cases) {
    LocalWorld world(Mesh{.tp = 2}, kNeeds, GetParam());
    const std::string error = error_of(world, [&](int rank, Comm& comm) {
      float in[4] = {}, out[4];
      Message m = sum_all(in, out, 2, "x");
      if (rank == 1) c.change(m);
      finish(comm, m);
    });
    SCOPED_TRACE(c.name);
    expect_says(error, {"mismatch on world", "rank 0 (dp 0, tp 0, pp 0) started",
                        "rank 1 (dp 0, tp 1, pp 0) started", c.first, c.second});
  }
}

TEST_P(Mismatches, ABroadcastFromTwoRoots) {
  LocalWorld world(Mesh{.tp = 2}, kNeeds, GetParam());
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x[2] = {}, y[2];
    Message m = sum_all(x, y, 2, "x");
    m.verb = Verb::broadcast, m.reduce = Reduce::none, m.peer = rank;
    finish(comm, m);
  });
  expect_says(error, {"mismatch on world", "root 0", "root 1"});
}

// The root alone may leave it out.
TEST_P(Mismatches, ABroadcastWithoutAnOutput) {
  LocalWorld world(Mesh{.tp = 2}, kNeeds, GetParam());
  const std::string error = error_of(world, [&](int, Comm& comm) {
    float x[2] = {};
    Message m = sum_all(x, nullptr, 2, "x");
    m.verb = Verb::broadcast, m.reduce = Reduce::none, m.peer = 0;
    finish(comm, m);
  });
  expect_says(error, {"broadcast of `x` on world: no output"});
}

TEST_P(Mismatches, ASendAndAReceiveOfDifferentSizes) {
  LocalWorld world(Mesh{.tp = 2}, kNeeds, GetParam());
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x[4] = {};
    if (rank == 0)
      finish(comm, send_to(1, x, 4, "x", 1));
    else
      finish(comm, recv_from(0, x, 3, "x", 1));
  });
  expect_says(error, {"mismatch", "send of `x` microbatch 1 to rank 1",
                      "recv of `x` microbatch 1 from rank 0", "1 blocks of 4 f32", "1 blocks of 3 f32"});
}

TEST_P(Failures, AnExceptionInOneRankEndsAll) {
  std::atomic<int> told{0};
  World world(Mesh{.dp = 4}, kNeeds, GetParam(), kPatient);
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x = 1;
    if (rank == 2) throw std::runtime_error("out of coffee");
    try {
      for (;;) finish(comm, sum_all(&x, &x, 1, "x"));
    } catch (const CommError& e) {
      told += std::string(e.what()) == "rank 2 failed: out of coffee";
      throw;
    }
  });
  EXPECT_EQ(error, "rank 2 failed: out of coffee");
  EXPECT_EQ(told, 3);
}

TEST_P(Failures, AUsersMistakeStaysOne) {
  World world(Mesh{.dp = 2}, kNeeds, GetParam(), kPatient);
  try {
    world.run([&](int rank, Comm& comm) {
      float x = 1;
      if (rank == 1) throw UserError("no such file");
      finish(comm, sum_all(&x, &x, 1, "x"));
    });
    FAIL() << "no error";
  } catch (const UserError& e) {
    EXPECT_STREQ(e.what(), "rank 1: no such file");
  }
}

TEST_P(Failures, AMachineThatIsFullStaysOne) {
  World world(Mesh{.dp = 2}, kNeeds, GetParam(), kPatient);
  for (const bool says_for_what : {false, true}) try {
      world.run([&](int rank, Comm& comm) {
        float x = 1;
        if (rank == 1 && says_for_what) throw OutOfMemory("no memory for tea");
        if (rank == 1) throw std::bad_alloc();
        finish(comm, sum_all(&x, &x, 1, "x"));
      });
      FAIL() << "no error";
    } catch (const OutOfMemory& e) {
      EXPECT_STREQ(e.what(), says_for_what ? "rank 1: no memory for tea" : "rank 1: std::bad_alloc");
    }
}

TEST_P(Failures, AnExceptionThatIsNoStdException) {
  World world(Mesh{.dp = 2}, kNeeds, GetParam(), kPatient);
  expect_says(error_of(world,
                       [](int rank, Comm&) {
                         if (rank == 1) throw 5;
                       }),
              {"rank 1 failed: unknown"});
}

TEST_P(Failures, RequestsNeverWaitedFor) {
  float memory[2][4] = {};  // outlives what is never waited for
  World world(Mesh{.dp = 2}, kNeeds, GetParam(), kPatient);
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float *x = memory[rank], *y = x + 2;
    const int a = comm.start(sum_all(x, x, 1, "x"));
    const int b = comm.start(sum_all(x + 1, y, 1, "y", 4));
    if (rank == 0) comm.wait(a), comm.wait(b);
  });
  expect_says(error, {"rank 1 (dp 1, tp 0, pp 0) ended with 2 requests never waited for: ",
                      "all_reduce of `x`", "all_reduce of `y` microbatch 4"});
}

TEST_P(Failures, MisuseIsNamed) {
  float x[64] = {};
  CommNeeds needs = kNeeds;
  const auto error_with = [&](const std::function<void(Comm&)>& body) {
    World world(Mesh{.tp = 2}, needs, GetParam(), kPatient);
    return error_of(world, [&](int rank, Comm& comm) {
      if (rank == 1) body(comm);
    });
  };
  expect_says(error_with([&](Comm& comm) { comm.start(sum_all(x, x, 17, "big")); }),
              {"rank 1 (dp 0, tp 1, pp 0)", "all_reduce of `big`", "68 bytes", "stated as 64"});
  expect_says(error_with([&](Comm& comm) {
                for (int i = 0; i < 3; ++i) comm.start(sum_all(x, x, 1, "many"));
              }),
              {"`many`", "more than the stated 2 under way"});
  expect_says(error_with([&](Comm& comm) { comm.start(send_to(1, x, 1, "self")); }),
              {"cannot send to itself"});
  expect_says(error_with([&](Comm& comm) { comm.start(send_to(2, x, 1, "far")); }),
              {"peer 2 is not in the group"});
  expect_says(error_with([&](Comm& comm) { comm.start(sum_all(nullptr, x, 1, "x")); }), {"no input"});
  expect_says(error_with([&](Comm& comm) { comm.start(sum_all(x, nullptr, 1, "x")); }), {"no output"});
  expect_says(error_with([&](Comm& comm) { comm.wait(0); }), {"waits for a request that it did not start"});
  expect_says(error_with([&](Comm& comm) {
                Message m = sum_all(x, x, 1, "alone");
                m.axis = Axis::pp;
                const int request = comm.start(m);
                comm.wait(request);
                comm.wait(request);
              }),
              {"a second time"});
  // What is stated of one axis is no other's.
  needs.by_axis.resize(static_cast<std::size_t>(Axis::count), {64, 2});
  needs.by_axis[static_cast<std::size_t>(Axis::world)] = {32, 1};
  expect_says(error_with([&](Comm& comm) { comm.start(sum_all(x, x, 9, "big")); }),
              {"36 bytes", "stated as 32"});
  expect_says(error_with([&](Comm& comm) {
                for (int i = 0; i < 2; ++i) comm.start(sum_all(x, x, 1, "many"));
              }),
              {"more than the stated 1 under way"});
}

TEST_P(Failures, AWorldCanRunAgain) {
  World world(Mesh{.dp = 4}, kNeeds, GetParam(), kPatient);
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_NE(error_of(world,
                       [&](int rank, Comm& comm) {
                         float x = 0;
                         if (rank < 3) finish(comm, sum_all(&x, &x, 1, "x"));
                       }),
              "");
    world.run([&](int, Comm& comm) {
      float x = 1;
      finish(comm, sum_all(&x, &x, 1, "x"));
      EXPECT_EQ(x, 4);
    });
  }
}

TEST(Failure, MoreRanksThanAGroupMayHave) {
  EXPECT_THROW(LocalWorld(Mesh{.dp = kMaxRanks + 1}, kNeeds, Timing::eager), CommError);
}

INSTANTIATE_TEST_SUITE_P(Ways, Failures, every_way(), way_name);
INSTANTIATE_TEST_SUITE_P(Both, Mismatches, both_timings(), timing_name);

}  // namespace
}  // namespace lockstep::test
