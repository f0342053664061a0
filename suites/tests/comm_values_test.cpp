// Every verb, type, group size and block count against values worked out here.
#include <algorithm>
#include <functional>
#include <tuple>

#include "kernels/bf16.hpp"
#include "parallel/comm/tree.hpp"
#include "suites/tests/comm_world.hpp"

namespace lockstep::test {
namespace {

struct Shape {
  int members;
  i64 blocks, n;
};

template <class T>
struct Case {
  using Each = std::vector<std::vector<T>>;  // by member

  Case(const Shape& s, Way way)
      : shape(s),
        size(static_cast<std::size_t>(s.members)),
        world(Mesh{.dp = s.members},
              CommNeeds{.largest_bytes = s.blocks * s.n * s.members * static_cast<i64>(sizeof(T))}, way) {}

  void new_inputs(i64 n) {
    inputs.clear();
    for (std::size_t i = 0; i < size; ++i) inputs.push_back(values<T>(n, 100 + i));
  }

  // All members are to do `m` with these inputs; `expected(inputs, member)` is what each must get.
  void ask(Message m, i64 out_n, std::function<std::vector<T>(const Each& inputs, int member)> expected) {
    m.axis = Axis::dp;
    m.type = type_of<T>();
    m.blocks = shape.blocks;
    m.n = shape.n;
    asked.push_back({m, inputs, Each(size, std::vector<T>(static_cast<std::size_t>(out_n))), expected});
  }

  // In one run of the world: its threads take longer to start than short messages to go.
  void check() {
    world.run([&](int rank, Comm& comm) {
      for (Asked& a : asked) {
        Message mine = a.message;
        mine.in = a.inputs[rank].data();
        mine.out = a.outputs[rank].data();
        finish(comm, mine);
      }
    });
    for (const Asked& a : asked)
      for (int i = 0; i < shape.members; ++i)
        EXPECT_TRUE(same_bits(a.outputs[i], a.expected(a.inputs, i)))
            << verb_name(a.message.verb) << " " << type_name(type_of<T>()) << " member " << i << " of "
            << shape.members << ", " << shape.blocks << " blocks of " << shape.n;
  }

  std::vector<T> combine(Reduce reduce) const {
    std::vector<T> combined(inputs[0].size());
    for (std::size_t e = 0; e < combined.size(); ++e)
      combined[e] = tree(reduce, inputs, static_cast<i64>(e), 0, size);
    return combined;
  }

  void all_reduce(Reduce reduce) {
    const i64 elements = shape.blocks * shape.n;
    new_inputs(elements);
    ask({.verb = Verb::all_reduce, .reduce = reduce}, elements,
        [combined = combine(reduce)](const Each&, int) { return combined; });
  }

  void reduce_scatter(Reduce reduce) {
    const i64 P = shape.members, B = shape.blocks, n = shape.n;
    new_inputs(B * P * n);
    ask({.verb = Verb::reduce_scatter, .reduce = reduce}, B * n,
        [=, combined = combine(reduce)](const Each&, int me) {
          std::vector<T> out;
          for (i64 b = 0; b < B; ++b)
            for (i64 e = 0; e < n; ++e) out.push_back(combined[(b * P + me) * n + e]);
          return out;
        });
  }

  void all_verbs() {
    const i64 P = shape.members, B = shape.blocks, n = shape.n;
    for (Reduce reduce : {Reduce::sum, Reduce::max}) all_reduce(reduce), reduce_scatter(reduce);
    ask({.verb = Verb::all_to_all}, B * P * n, [=](const Each& in, int me) {
      std::vector<T> out;
      for (i64 b = 0; b < B; ++b)
        for (i64 p = 0; p < P; ++p)
          for (i64 e = 0; e < n; ++e) out.push_back(in[p][(b * P + me) * n + e]);
      return out;
    });
    new_inputs(B * n);
    ask({.verb = Verb::all_gather}, B * P * n, [=](const Each& in, int) {
      std::vector<T> out;
      for (i64 b = 0; b < B; ++b)
        for (i64 p = 0; p < P; ++p)
          for (i64 e = 0; e < n; ++e) out.push_back(in[p][b * n + e]);
      return out;
    });
    for (int root : {0, static_cast<int>(P) - 1})
      ask({.verb = Verb::broadcast, .peer = root}, B * n, [=](const Each& in, int) { return in[root]; });
  }

  Shape shape;
  std::size_t size;
  World world;
  Each inputs;
  struct Asked {
    Message message;
    Each inputs, outputs;
    std::function<std::vector<T>(const Each& inputs, int member)> expected;
  };
  std::vector<Asked> asked;
};

using Params = std::tuple<Way, int>;
class Values : public ::testing::TestWithParam<Params> {};

template <class T>
void every_verb(const Shape& shape, Way way) {
  Case<T> c(shape, way);
  c.all_verbs();
  c.check();
}

TEST_P(Values, OfEveryVerbAndType) {
  const auto [way, members] = GetParam();
  for (i64 blocks : {1, 3})
    for (i64 n : {0, 1, 5, 515}) {
      const Shape shape{members, blocks, n};
      every_verb<float>(shape, way);
      every_verb<double>(shape, way);
      every_verb<i64>(shape, way);
      every_verb<i32>(shape, way);
    }
}

// Long enough that the members share the work of an all_reduce.
TEST_P(Values, OfLongMessages) {
  const auto [way, members] = GetParam();
  every_verb<float>({members, 1, 33003}, way);
}

std::string name_of(const ::testing::TestParamInfo<Params>& info) {
  return name_of(std::get<0>(info.param)) + std::to_string(std::get<1>(info.param));
}
INSTANTIATE_TEST_SUITE_P(Members, Values,
                         ::testing::Combine(::testing::Values(Way::eager, Way::lazy),
                                            ::testing::Values(1, 2, 3, 4, 8, 16)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(NcclMembers, Values,
                         ::testing::Combine(::testing::Values(Way::nccl), ::testing::Values(1, 2, 3, 4, 8)),
                         name_of);

class OneMessage : public EveryWay {};
class LocalMessage : public BothTimings {};

// The order is part of the result: from left to right, four members would give other bits.
TEST_P(OneMessage, SumsFollowTheTreeAndNotTheRanks) {
  const i64 n = 1000;
  std::vector<std::vector<float>> in, out(4, std::vector<float>(n));
  for (int i = 0; i < 4; ++i) in.push_back(values<float>(n, i));
  World world(Mesh{.tp = 4}, CommNeeds{.largest_bytes = n * 4}, GetParam());
  world.run([&](int rank, Comm& comm) { finish(comm, sum_all(in[rank].data(), out[rank].data(), n, "x")); });
  std::vector<float> by_tree, left_to_right;
  for (i64 e = 0; e < n; ++e) {
    by_tree.push_back((in[0][e] + in[1][e]) + (in[2][e] + in[3][e]));
    left_to_right.push_back(((in[0][e] + in[1][e]) + in[2][e]) + in[3][e]);
  }
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(out[i], by_tree));
  EXPECT_FALSE(same_bits(by_tree, left_to_right)) << "these values could not tell one order from the other";
}

// Beside 1, bf16's last bit is 2^-7. Of 1 and n - 1 quarters of it the sum is 1 and 3/4, 7/4, 15/4 of that
// bit, rounded 1, 2, 4; rounded on the way up, quarters and halves beside 1 are lost.
TEST(TreeInBf16, RoundsTheWholeSumOnce) {
  for (const auto& [parts, expected] :
       {std::pair{4, 1 + 0x1p-7f}, {8, 1 + 2 * 0x1p-7f}, {16, 1 + 4 * 0x1p-7f}}) {
    std::vector<bf16> values(parts, bf16(0x1p-9f));
    values[0] = bf16(1);
    std::vector<const void*> in;
    for (const bf16& x : values) in.push_back(&x);
    bf16 sum;
    combine_tree(Type::bf16, Reduce::sum, in.data(), parts, 1, &sum);
    EXPECT_EQ(float(sum), expected) << parts << " parts";
  }
}

TEST_P(OneMessage, TheMaximumOfAnythingAndNaNIsNaN) {
  std::vector<float> out(3);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> in = {{nan, 1, -inf}, {2, nan, -inf}};
  World world(Mesh{.tp = 2}, CommNeeds{.largest_bytes = 12}, GetParam());
  world.run([&](int rank, Comm& comm) {
    std::vector<float> mine(3);
    Message m = sum_all(in[rank].data(), mine.data(), 3, "max");
    m.reduce = Reduce::max;
    finish(comm, m);
    if (rank == 0) out = mine;
  });
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_TRUE(std::isnan(out[1]));
  EXPECT_EQ(out[2], -inf);
}

// A collective of each axis adds up world ranks, so the sum says who was in the group.
TEST_P(OneMessage, EveryAxisReachesItsOwnGroup) {
  // Rank = tp + 4 * (cp + 2 * (dp + 2 * pp)) in a plan's words.
  const Mesh mesh{.dp = 4, .tp = 4, .pp = 2, .kv_replicas = 2, .replicas = 2, .cp = 2};
  World world(mesh, CommNeeds{.largest_bytes = 8}, GetParam());
  for (int a = 0; a < static_cast<int>(Axis::count); ++a) {
    std::vector<i64> got(mesh.size());
    world.run([&](int rank, Comm& comm) {
      const i64 mine = i64{1} << rank;
      Message m = sum_all(&mine, &got[rank], 1, "rank");
      m.axis = static_cast<Axis>(a);
      m.type = Type::i64;
      finish(comm, m);
    });
    for (int r = 0; r < mesh.size(); ++r) {
      i64 expected = 0;
      for (int member = 0; member < mesh.size(); ++member) {  // who shares rank r's group, spelled out
        const bool same_d = mesh.dp_of(member) == mesh.dp_of(r), same_t = mesh.tp_of(member) == mesh.tp_of(r),
                   same_p = mesh.pp_of(member) == mesh.pp_of(r);
        const int d = mesh.dp_of(r), other = mesh.dp_of(member);
        const bool with_me[] = {true,
                                same_t && same_p,
                                same_d && same_p,
                                same_d && same_t,
                                member % 4 == r % 4 && member / 8 == r / 8,
                                same_d && same_p && mesh.tp_of(member) / 2 == mesh.tp_of(r) / 2,
                                same_d && same_t,
                                same_t && same_p && other / 2 == d / 2,
                                same_t && same_p && other % 2 == d % 2};
        static_assert(std::size(with_me) == static_cast<std::size_t>(Axis::count));
        if (with_me[a]) expected += i64{1} << member;
      }
      EXPECT_EQ(got[r], expected) << axis_name(static_cast<Axis>(a)) << " rank " << r;
    }
  }
}

TEST_P(LocalMessage, SendsMeetReceivesByPeerAndTagInOrder) {
  LocalWorld world(Mesh{.pp = 3}, CommNeeds{.largest_bytes = 8, .outstanding = 8}, GetParam());
  std::vector<i64> got(6);
  const auto as_i64 = [](Message m) {
    m.type = Type::i64;
    return m;
  };
  world.run([&](int rank, Comm& comm) {
    if (rank < 2) {  // tags 7, 9, 7 in this order
      const i64 in[3] = {100 * rank + 1, 100 * rank + 2, 100 * rank + 3};
      const int first = comm.start(as_i64(send_to(2, &in[0], 1, "a", 0, 7)));
      const int second = comm.start(as_i64(send_to(2, &in[1], 1, "a", 1, 9)));
      const int third = comm.start(as_i64(send_to(2, &in[2], 1, "a", 2, 7)));
      for (int request : {third, first, second}) comm.wait(request);
    } else {  // asked for in another order: 9, 7, 7, and the later sender first
      int requests[6];
      for (int i = 0; i < 6; ++i) {
        const int from = i < 3 ? 1 : 0, microbatch[] = {1, 0, 2}, tag[] = {9, 7, 7};
        requests[i] = comm.start(as_i64(recv_from(from, &got[i], 1, "a", microbatch[i % 3], tag[i % 3])));
      }
      for (int request : requests) comm.wait(request);
    }
  });
  EXPECT_EQ(got, (std::vector<i64>{102, 101, 103, 2, 1, 3}));
}

TEST_P(OneMessage, InPlaceWorksForEveryVerb) {
  const i64 n = 700;
  const int P = 4;
  std::vector<std::vector<float>> in;
  for (int i = 0; i < P; ++i) in.push_back(values<float>(n * P, i));
  World world(Mesh{.tp = P}, CommNeeds{.largest_bytes = n * P * 4}, GetParam());
  auto reduced = in, scattered = in, gathered = in, exchanged = in;
  world.run([&](int rank, Comm& comm) {
    finish(comm, sum_all(reduced[rank].data(), reduced[rank].data(), n, "x"));
    Message m = sum_all(scattered[rank].data(), scattered[rank].data() + rank * n, n, "x");
    m.verb = Verb::reduce_scatter;
    finish(comm, m);
    m = sum_all(gathered[rank].data() + rank * n, gathered[rank].data(), n, "x");
    m.verb = Verb::all_gather;
    finish(comm, m);
    m = sum_all(exchanged[rank].data(), exchanged[rank].data(), n, "x");
    m.verb = Verb::all_to_all;
    finish(comm, m);
  });
  for (int r = 0; r < P; ++r)
    for (i64 e = 0; e < n; ++e) {
      EXPECT_EQ(reduced[r][e], tree(Reduce::sum, in, e, 0, P));
      EXPECT_EQ(scattered[r][r * n + e], tree(Reduce::sum, in, r * n + e, 0, P));
      for (int p = 0; p < P; ++p) EXPECT_EQ(gathered[r][p * n + e], in[p][p * n + e]);
      for (int p = 0; p < P; ++p) EXPECT_EQ(exchanged[r][p * n + e], in[p][r * n + e]);
    }
}

// As attention's heads are exchanged for tokens: each number says who had it and where.
template <class T>
void exchanges_in_place(Way way, const Mesh& mesh, Type type, i64 blocks, i64 n) {
  const i64 P = mesh.cp, all = blocks * P * n;
  std::vector<std::vector<T>> x;
  const auto number = [&](int rank, i64 e) { return static_cast<T>(rank * 5000 + e % 5000); };
  for (int rank = 0; rank < mesh.size(); ++rank) {
    x.emplace_back();
    for (i64 e = 0; e < all; ++e) x.back().push_back(number(rank, e));
  }
  World world(mesh, CommNeeds{.largest_bytes = all * static_cast<i64>(sizeof(T))}, way);
  world.run([&](int rank, Comm& comm) {
    Message m;
    m.verb = Verb::all_to_all, m.axis = Axis::cp, m.type = type, m.blocks = blocks, m.n = n, m.what = "x";
    m.in = m.out = x[rank].data();
    finish(comm, m);
  });
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const int me = rank / mesh.tp % mesh.cp, first = rank - me * mesh.tp;  // rank of the first segment
    for (i64 b = 0; b < blocks; ++b)
      for (i64 i = 0; i < P; ++i)
        for (i64 e = 0; e < n; ++e)
          ASSERT_EQ(x[rank][(b * P + i) * n + e],
                    number(first + static_cast<int>(i) * mesh.tp, (b * P + me) * n + e))
              << "rank " << rank << ", block " << b << " of " << blocks << " of " << n;
  }
}
TEST_P(OneMessage, SegmentsOfASequenceExchangeManyBlocksInPlace) {
  for (const Mesh& mesh : {Mesh{.dp = 4, .tp = 2, .cp = 2}, Mesh{.dp = 4, .pp = 2, .cp = 4}})
    for (const i64 blocks : {1, 3, 64})
      for (const i64 n : {1, 7, 40}) {
        exchanges_in_place<float>(GetParam(), mesh, Type::f32, blocks, n);
        exchanges_in_place<std::uint16_t>(GetParam(), mesh, Type::bf16, blocks, n);
      }
}

TEST_P(LocalMessage, TheWireCountsWhatARankSentAndReceived) {
  LocalWorld world(Mesh{.dp = 2, .tp = 2}, CommNeeds{.largest_bytes = 64}, GetParam());
  world.run([&](int, Comm& comm) {
    float in[8] = {}, out[8];
    Message m = sum_all(in, out, 4, "x");
    m.axis = Axis::tp;
    finish(comm, m);
    m.verb = Verb::reduce_scatter;
    finish(comm, m);
    m.verb = Verb::all_to_all;
    finish(comm, m);
    m.verb = Verb::all_gather;
    m.axis = Axis::pp;  // a group of one
    finish(comm, m);
  });
  for (int r = 0; r < 4; ++r) {
    EXPECT_EQ(world.wire(r, Axis::tp).messages, 3);
    EXPECT_EQ(world.wire(r, Axis::tp).sent, 16 + 32 + 32);
    EXPECT_EQ(world.wire(r, Axis::tp).received, 16 + 16 + 32);
    EXPECT_EQ(world.wire(r, Axis::pp).sent, 0);
    EXPECT_EQ(world.wire(r, Axis::dp).messages, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, OneMessage, every_way(), way_name);
INSTANTIATE_TEST_SUITE_P(Timings, LocalMessage, both_timings(), timing_name);

}  // namespace
}  // namespace lockstep::test
