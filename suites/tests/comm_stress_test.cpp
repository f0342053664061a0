// Random legal programs: the same numbers in every communicator, run after run, and no allocation on the way.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>

#include "suites/tests/comm_world.hpp"

namespace {
std::atomic<long> allocations{0};
thread_local bool counting = false;
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (counting) ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace lockstep::test {
namespace {

constexpr Mesh kMesh{.dp = 2, .tp = 4, .pp = 2, .kv_replicas = 2};
constexpr int kOutstanding = 4;
constexpr i64 kLargest = 40000;  // elements; several slices of an all_reduce

struct Step {
  bool start;
  int operation;  // index into the program's operations; its request and buffers have the same index
  Message message;
};

struct Program {
  std::vector<std::vector<Step>> steps;  // by rank
  std::vector<i64> sizes;                // of each operation's `in` and `out`, in floats
};

// Operations in one global order. Each member starts its part in that order and waits for it at a random
// later point, at random among those under way. Such a program cannot deadlock: of all operations that a rank
// waits for, the earliest one has been started by all, since whoever waits for a later one is past its start.
Program random_program(unsigned seed, int operations) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  Program program{std::vector<std::vector<Step>>(kMesh.size()), {}};
  struct Open {
    int operation;
    Axis axis;
  };
  std::vector<std::vector<Open>> open(kMesh.size());
  const auto wait_one = [&](int rank, int which) {
    program.steps[rank].push_back({false, open[rank][which].operation, {}});
    open[rank].erase(open[rank].begin() + which);
  };
  const auto make_room = [&](int rank, Axis axis) {
    const auto on_axis = [&](const Open& o) { return o.axis == axis; };
    while (std::count_if(open[rank].begin(), open[rank].end(), on_axis) >= kOutstanding)
      wait_one(rank, below(static_cast<int>(open[rank].size())));
  };
  for (int op = 0; op < operations; ++op) {
    const Group group = kMesh.group(static_cast<Axis>(below(6)), below(kMesh.size()));
    Message m{.verb = static_cast<Verb>(below(6)), .axis = group.axis, .what = "x", .microbatch = op};
    if (group.size() == 1 && m.verb == Verb::send) m.verb = Verb::all_gather;
    m.reduce = below(4) ? Reduce::sum : Reduce::max;
    m.blocks = 1 + below(3);
    m.n = (below(20) ? below(40) : below(kLargest)) / (m.blocks * group.size());
    m.tag = below(2);
    m.peer = below(group.size());  // root or receiver
    program.sizes.push_back(m.blocks * m.n * group.size());
    const int sender = m.verb == Verb::send ? (m.peer + 1 + below(group.size() - 1)) % group.size() : -1;
    for (int member = 0; member < group.size(); ++member) {
      Message mine = m;
      if (m.verb == Verb::send && member != sender && member != m.peer) continue;
      if (m.verb == Verb::send && member == m.peer) mine.verb = Verb::recv, mine.peer = sender;
      const int rank = group.ranks[member];
      make_room(rank, m.axis);
      program.steps[rank].push_back({true, op, mine});
      open[rank].push_back({op, m.axis});
      while (!open[rank].empty() && below(2)) wait_one(rank, below(static_cast<int>(open[rank].size())));
    }
  }
  for (int rank = 0; rank < kMesh.size(); ++rank)
    while (!open[rank].empty()) wait_one(rank, below(static_cast<int>(open[rank].size())));
  return program;
}

using Outputs = std::vector<std::vector<std::vector<float>>>;  // by rank and operation

Outputs play(const Program& program, Way way) {
  CommNeeds needs{.largest_bytes = 4 * kLargest, .outstanding = kOutstanding};
  needs.pairs = all_pairs(kMesh);
  World world(kMesh, needs, way);
  Outputs results(kMesh.size());
  world.run([&](int rank, Comm& comm) {
    std::vector<std::vector<float>> in, out;
    for (std::size_t op = 0; op < program.sizes.size(); ++op) {
      in.push_back(values<float>(program.sizes[op], op * 64 + rank));
      out.emplace_back(program.sizes[op], 0.0f);
    }
    std::vector<int> requests(program.sizes.size());
    counting = true;
    for (const Step& step : program.steps[rank]) {
      if (step.start) {
        Message m = step.message;
        m.in = in[step.operation].data();
        m.out = out[step.operation].data();
        requests[step.operation] = comm.start(m);
      } else {
        comm.wait(requests[step.operation]);
        std::fill(in[step.operation].begin(), in[step.operation].end(), 0.0f);  // ours again
      }
    }
    counting = false;
    results[rank] = std::move(out);
  });
  return results;
}

bool same_outputs(const Outputs& a, const Outputs& b) {
  const auto same_of_rank = [](const auto& x, const auto& y) {
    return std::ranges::equal(x, y, same_bits<float>);
  };
  return std::ranges::equal(a, b, same_of_rank);
}

TEST(Stress, RandomProgramsGiveTheSameBitsEveryWay) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    const Program program = random_program(seed, 150);
    const Outputs eager = play(program, Way::eager);
    EXPECT_TRUE(same_outputs(eager, play(program, Way::lazy))) << "seed " << seed;
    EXPECT_TRUE(same_outputs(eager, play(program, Way::eager))) << "seed " << seed;
    if (seed > 2) continue;  // a thread for every channel of every rank takes its time
    EXPECT_TRUE(same_outputs(eager, play(program, Way::nccl))) << "seed " << seed;
    for (const auto& of_rank : eager)
      for (const auto& out : of_rank)
        ASSERT_TRUE(std::ranges::none_of(out, poisoned<float>)) << "seed " << seed;
  }
}

TEST(Stress, StartAndWaitAllocateNothing) {
  counting = true;
  ::operator delete(::operator new(1));
  counting = false;
  EXPECT_GT(allocations.exchange(0), 0) << "the counter itself must work";
  play(random_program(99, 150), Way::eager);
  play(random_program(99, 150), Way::lazy);
  for (Timing timing : {Timing::eager, Timing::lazy}) {
    LocalWorld alone(Mesh{}, CommNeeds{.largest_bytes = 4}, timing);
    alone.run([](int, Comm& comm) {
      float x = 1, y = 0;
      counting = true;
      finish(comm, sum_all(&x, &y, 1, "x"));
      counting = false;
    });
  }
  EXPECT_EQ(allocations, 0);
}

// The most ranks, and every one of them in one group.
TEST(Stress, SixtyFourRanks) {
  LocalWorld world(Mesh{.dp = 64}, CommNeeds{.largest_bytes = 64 * 8}, Timing::lazy);
  world.run([&](int rank, Comm& comm) {
    for (i64 round = 0; round < 20; ++round) {
      const i64 mine = rank + round;
      i64 sum = 0;
      Message m = sum_all(&mine, &sum, 1, "x");
      m.type = Type::i64;
      finish(comm, m);
      EXPECT_EQ(sum, 64 * 63 / 2 + 64 * round);
    }
  });
}

}  // namespace
}  // namespace lockstep::test
