// What only the nccl communicator has: sums on the GPU, channels, NCCL's own errors, fast mode. Over the
// stand-in; nothing here needs a GPU.
#include <barrier>

#include "kernels/cuda/ordered.hpp"
#include "parallel/comm/tree.hpp"
#include "suites/tests/comm_world.hpp"

namespace lockstep::test {
namespace {

// A kernel, block by block on the host, last thread first.
struct Here {
  template <class Kernel>
  static void launch(Lanes&, const Kernel& kernel, i64 blocks, int threads, i64) {
    for (i64 block = 0; block < blocks; ++block)
      for (int t = threads; t-- > 0;) {
        typename Kernel::State state{};
        for (i64 p = 0; p < kernel.phases(block); ++p) kernel.phase(p, {block, t, threads, nullptr}, state);
      }
  }
};

template <class T>
void same_as_tree(int count, i64 n) {
  std::vector<std::vector<T>> of;
  std::vector<const void*> parts;
  for (int i = 0; i < count; ++i) of.push_back(values<T>(n, 70 + i));
  if constexpr (std::is_floating_point_v<T>)
    if (n > 2 && count > 1) of[count / 2][1] = std::numeric_limits<T>::quiet_NaN(), of[0][2] = T(-0.0);
  for (const auto& o : of) parts.push_back(o.data());
  Lanes lanes(1);
  for (const Reduce reduce : {Reduce::sum, Reduce::max}) {
    std::vector<T> right(static_cast<std::size_t>(n)), got(right);
    combine_tree(type_of<T>(), reduce, parts.data(), count, n, right.data());
    const auto run =
        reduce == Reduce::sum ? cuda::ordered<Here, T, cuda::Sum> : cuda::ordered<Here, T, cuda::Max>;
    run(lanes, parts.data(), count, n, got.data());
    EXPECT_TRUE(same_bits(got, right)) << type_name(type_of<T>()) << ", " << count << " parts of " << n;
    for (const int in_place : {0, count - 1}) {
      auto own = of;
      std::vector<const void*> at;
      for (const auto& o : own) at.push_back(o.data());
      run(lanes, at.data(), count, n, own[in_place].data());
      EXPECT_TRUE(same_bits(own[in_place], right)) << "in place of part " << in_place;
    }
  }
}

// Numbers of parts up to the most there may be, all of those that the small kernel takes; the sizes around a
// block of threads.
TEST(Ordered, TheKernelGivesTheBitsOfTheTree) {
  for (int count = 1; count <= kMaxRanks; count += count < 70 ? 1 : count < 1000 ? 311 : 21) {
    const i64 n = count % 4 == 0 ? 257 : count % 4 == 1 ? 1 : count % 4 == 2 ? 256 : 1031;
    same_as_tree<float>(count, n);
    same_as_tree<double>(count, n);
    same_as_tree<i64>(count, n);
    same_as_tree<i32>(count, n);
  }
  same_as_tree<float>(8, 0);
}

Message on_pp(Message m) {
  m.axis = Axis::pp;
  return m;
}

// NCCL knows no tags: the order of a pair is the pairing, whatever else is under way. Each direction is a
// channel of its own, so both ends may first send, or first receive.
TEST(Nccl, SendsMeetReceivesInTheOrderOfTheirPair) {
  NcclWorld world(Mesh{.pp = 3}, CommNeeds{.largest_bytes = 4, .outstanding = 8}, {});
  std::vector<std::vector<float>> got(3, std::vector<float>(4));
  world.run([&](int rank, Comm& comm) {
    const int up = (rank + 1) % 3, down = (rank + 2) % 3;
    const float in[4] = {10.f * rank + 1, 10.f * rank + 2, 10.f * rank + 3, 10.f * rank + 4};
    std::vector<int> requests;
    // Stages alternate between receiving first and sending first.
    const auto receive = [&] {
      for (int k = 0; k < 2; ++k)
        requests.push_back(comm.start(on_pp(recv_from(down, &got[rank][k], 1, "up", k, 100 - k))));
      for (int k = 0; k < 2; ++k)
        requests.push_back(comm.start(on_pp(recv_from(up, &got[rank][2 + k], 1, "down", k, 7))));
    };
    if (rank != 1) receive();
    for (int k = 0; k < 2; ++k)
      requests.push_back(comm.start(on_pp(send_to(down, &in[2 + k], 1, "down", k, 7))));
    for (int k = 0; k < 2; ++k)
      requests.push_back(comm.start(on_pp(send_to(up, &in[k], 1, "up", k, 100 - k))));
    if (rank == 1) receive();
    for (std::size_t k = requests.size(); k-- > 0;) comm.wait(requests[k]);
  });
  for (int rank = 0; rank < 3; ++rank) {
    const float below = 10.f * ((rank + 2) % 3), above = 10.f * ((rank + 1) % 3);
    EXPECT_EQ(got[rank], (std::vector<float>{below + 1, below + 2, above + 3, above + 4}));
  }
}

// A pair that the trace does not have has no channel.
TEST(Nccl, AMessageThatWasNotTracedIsRefused) {
  CommNeeds needs{.largest_bytes = 4};
  needs.pairs = {{Axis::world, 0, 1}};
  NcclWorld world(Mesh{.pp = 2}, needs, {});
  const std::string error = error_of(world, [](int rank, Comm& comm) {
    float x = 0;
    if (rank == 1) finish(comm, send_to(0, &x, 1, "back"));
  });
  EXPECT_EQ(error, "send of `back` to rank 0 on world: the trace has no such message between these ranks");
}

// On several axes at once, each waiting for ranks that are busy on another.
TEST(Nccl, AxesDoNotWaitForEachOther) {
  const Mesh mesh{.dp = 2, .tp = 2};
  NcclWorld world(mesh, CommNeeds{.largest_bytes = 8, .outstanding = 2}, {});
  world.run([&](int rank, Comm& comm) {
    double dp = rank, tp = rank;
    Message on_dp = sum_all(&dp, &dp, 1, "dp"), on_tp = sum_all(&tp, &tp, 1, "tp");
    on_dp.axis = Axis::dp, on_tp.axis = Axis::tp;
    on_dp.type = on_tp.type = Type::f64;
    // By the contract a start never waits, so ranks may start the two in any order.
    const bool tp_first = rank == 0 || rank == 3;
    const int first = comm.start(tp_first ? on_tp : on_dp), second = comm.start(tp_first ? on_dp : on_tp);
    comm.wait(second), comm.wait(first);
    EXPECT_EQ(dp, 2 * mesh.tp_of(rank) + 2);  // ranks tp and tp + 2
    EXPECT_EQ(tp, 4 * mesh.dp_of(rank) + 1);  // ranks 2 dp and 2 dp + 1
  });
}

// What a start and a wait are for: kernels called before the start make the input, kernels called after the
// wait use the output, and the host waits for neither.
TEST(Nccl, OperationsComeAfterTheKernelsBeforeAndBeforeTheKernelsAfter) {
  const Mesh mesh{.dp = 2};
  Hub hub;
  std::barrier meeting(2);
  LocalWorld introducer(mesh, {.largest_bytes = NcclComm::kIntroduction}, Timing::eager);
  introducer.run([&](int rank, Comm& outer) {
    StandIn fabric(hub, /*apart=*/true);
    NcclComm comm(outer, fabric, mesh, rank, {.largest_bytes = 4}, {});
    const auto kernel = [&](float& to, const float& from) {
      fabric.copy(Fabric::kCompute, &to, 4, &from, 4, 4, 1);
    };
    const float made = static_cast<float>(rank + 1);
    float in = 100, out = 0, used = 0;
    const auto step = [&] {
      kernel(in, made);
      comm.wait(comm.start(sum_all(&in, &out, 1, "x")));
      kernel(used, out);
    };
    // The kernels before the start are late: the sum must not be done without them.
    const Fabric::Event gate = fabric.hold();
    fabric.wait(Fabric::kCompute, gate);
    step();
    meeting.arrive_and_wait();
    hub.until_quiet();
    meeting.arrive_and_wait();
    fabric.release(gate);
    meeting.arrive_and_wait();
    hub.until_quiet();
    meeting.arrive_and_wait();
    EXPECT_EQ(used, 3);
    // Rank 1 is late: rank 0's kernel after the wait must not run without it.
    out = used = 0;
    meeting.arrive_and_wait();
    if (rank == 0) step();
    meeting.arrive_and_wait();
    hub.until_quiet();
    EXPECT_EQ(used, 0);
    meeting.arrive_and_wait();
    if (rank == 1) step();
    comm.finish();
    EXPECT_EQ(used, 3);
    meeting.arrive_and_wait();
  });
}

// The host runs ahead of what it started, far beyond the entries that the communicator keeps.
TEST(Nccl, ManyOperationsOneAfterTheOther) {
  NcclWorld world(Mesh{.dp = 2}, CommNeeds{.largest_bytes = 8}, {});
  world.run([&](int rank, Comm& comm) {
    for (i64 k = 0; k < 1000; ++k) {
      i64 x = rank + k;
      Message m = sum_all(&x, &x, 1, "x");
      m.type = Type::i64;
      finish(comm, m);
      ASSERT_EQ(x, 2 * k + 1);
    }
  });
}

TEST(Nccl, AnErrorOfTheLibrarysEndsTheJobAndNamesTheOperation) {
  NcclWorld world(Mesh{.dp = 2}, CommNeeds{.largest_bytes = 4}, {.patience = 60});
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    float x = 1;
    if (rank == 1) {  // is gone, and the other rank's library notices
      world.hub().set_error("remote process exited or there was a network error");
      while (world.hub().mutex.lock(), world.hub().over.empty()) world.hub().mutex.unlock();
      world.hub().mutex.unlock();
      return;
    }
    finish(comm, sum_all(&x, &x, 1, "loss"));
  });
  EXPECT_TRUE(error.starts_with("NCCL: remote process exited or there was a network error")) << error;
}

TEST(Nccl, OfSeveralStuckOnesTheFirstOfEachChannelIsNamed) {
  NcclWorld world(Mesh{.dp = 2}, CommNeeds{.largest_bytes = 4, .outstanding = 4}, {.patience = 0.5});
  const std::string error = error_of(world, [&](int rank, Comm& comm) {
    if (rank == 1) return;
    float x = 1, y = 1, z = 1;
    const int a = comm.start(sum_all(&x, &x, 1, "first"));
    const int b = comm.start(sum_all(&y, &y, 1, "second"));
    const int c = comm.start(send_to(1, &z, 1, "third", 4));
    comm.wait(c), comm.wait(b), comm.wait(a);
  });
  EXPECT_EQ(error,
            "nothing has moved for 0.5 s while waiting for all_reduce of `first` on world among ranks 0, 1; "
            "send of `third` microbatch 4 to rank 1 on world");
}

// Networks that are set up wrongly hang here, before any message.
TEST(Nccl, ANetworkThatDoesNotConnectEndsTheJob) {
  Hub hub;
  hub.deaf = true;
  LocalWorld introducer(Mesh{.dp = 2}, {.largest_bytes = NcclComm::kIntroduction}, Timing::eager);
  const std::string error = error_of(introducer, [&](int rank, Comm& outer) {
    StandIn fabric(hub);
    NcclOptions options{.patience = 0.5};
    options.give_up = [&](const std::string& why) { hub.end(why); };
    NcclComm(outer, fabric, Mesh{.dp = 2}, rank, {.largest_bytes = 4}, options);
  });
  EXPECT_NE(error.find("nothing has moved for 0.5 s while connecting ranks 0, 1 on world"), std::string::npos)
      << error;
}

// Whole numbers have one sum in any order; places are what can go wrong.
TEST(Nccl, InFastModeTheLibraryReduces) {
  for (const int size : {1, 2, 4})
    for (const i64 blocks : {1, 3}) {
      const i64 n = 37, all = blocks * size * n;
      std::vector<std::vector<float>> in(size), sum(size, std::vector<float>(all)), mine(sum);
      for (int i = 0; i < size; ++i)
        for (i64 e = 0; e < all; ++e) in[i].push_back(static_cast<float>((e * 7 + i * 31) % 101));
      auto whole = in;
      NcclWorld world(Mesh{.dp = size}, CommNeeds{.largest_bytes = all * 4}, {.fast = true});
      world.run([&](int rank, Comm& comm) {
        Message m = sum_all(in[rank].data(), sum[rank].data(), all, "x");
        finish(comm, m);
        m.verb = Verb::reduce_scatter, m.blocks = blocks, m.n = n, m.out = mine[rank].data();
        finish(comm, m);
        m.in = m.out = whole[rank].data();  // the output where the input begins
        finish(comm, m);
      });
      for (int i = 0; i < size; ++i)
        for (i64 b = 0; b < blocks; ++b)
          for (i64 e = 0; e < n; ++e) {
            float right = 0, left = 0;
            for (int k = 0; k < size; ++k) right += in[k][(b * size + i) * n + e], left += in[k][b * n + e];
            EXPECT_EQ(sum[i][b * n + e], left);
            EXPECT_EQ(mine[i][b * n + e], right);
            EXPECT_EQ(whole[i][b * n + e], right);
          }
    }
}

TEST(Nccl, SumsOfBf16NeedFastMode) {
  NcclWorld world(Mesh{.dp = 2}, CommNeeds{.largest_bytes = 4}, {});
  const std::string error = error_of(world, [](int, Comm& comm) {
    std::uint16_t x[2] = {};
    Message m = sum_all(x, x, 2, "x");
    m.type = Type::bf16;
    finish(comm, m);
  });
  EXPECT_NE(error.find("sums of bf16 messages are computed in fast mode only"), std::string::npos) << error;
}

}  // namespace
}  // namespace lockstep::test
