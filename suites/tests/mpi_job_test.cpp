// The communicator between processes, and the program over it.
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>

#include "parallel/device/engine.hpp"
#include "suites/tests/mpi_support.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep::test {
namespace {

template <class T>
void check_verbs(int rank, int size, i64 blocks, i64 n, Comm& comm) {
  const i64 P = size, B = blocks;
  std::vector<std::vector<T>> inputs;
  for (int i = 0; i < size; ++i) inputs.push_back(values<T>(B * P * n, 100 + i));
  const auto get = [&](Message m, i64 out_n, const std::function<T(i64)>& expected) {
    std::vector<T> out(static_cast<std::size_t>(out_n)), right;
    m.axis = Axis::dp, m.type = type_of<T>(), m.blocks = B, m.n = n, m.what = "x";
    m.in = inputs[rank].data(), m.out = out.data();
    const int request = comm.start(m);
    for (T x : out) expect(size == 1 || poisoned(x), "an output is poisoned until its wait");
    comm.wait(request);
    for (i64 e = 0; e < out_n; ++e) right.push_back(expected(e));
    expect(same_bits(out, right), std::string(verb_name(m.verb)) + " of " + type_name(m.type) + ", " +
                                      std::to_string(B) + " blocks of " + std::to_string(n));
  };
  for (Reduce reduce : {Reduce::sum, Reduce::max}) {
    get({.verb = Verb::all_reduce, .reduce = reduce}, B * n,
        [&](i64 e) { return tree(reduce, inputs, e, 0, inputs.size()); });
    get({.verb = Verb::reduce_scatter, .reduce = reduce}, B * n,
        [&](i64 e) { return tree(reduce, inputs, (e / n * P + rank) * n + e % n, 0, inputs.size()); });
  }
  get({.verb = Verb::all_gather}, B * P * n, [&](i64 e) { return inputs[e / n % P][e / n / P * n + e % n]; });
  get({.verb = Verb::all_to_all}, B * P * n,
      [&](i64 e) { return inputs[e / n % P][(e / n / P * P + rank) * n + e % n]; });
  for (int root : {0, size - 1})
    get({.verb = Verb::broadcast, .peer = root}, B * n, [&](i64 e) { return inputs[root][e]; });
}

void job_values(MpiWorld& world) {
  const int size = world.size();
  world.run(Mesh{.dp = size}, {.largest_bytes = i64{9000} * 8 * size}, [&](int rank, Comm& comm) {
    for (i64 blocks : {1, 3})
      for (i64 n : {0, 1, 5, 515, 3000}) {  // the last is more than one exchange of everything takes
        check_verbs<float>(rank, size, blocks, n, comm);
        check_verbs<double>(rank, size, blocks, n, comm);
        check_verbs<i64>(rank, size, blocks, n, comm);
        check_verbs<i32>(rank, size, blocks, n, comm);
      }
    check_verbs<float>(rank, size, 1, 9001, comm);  // no multiple of any group
  });
}

// Sums of bits, one per rank: they say who is in a group.
void job_axes(MpiWorld& world) {
  // Rank = tp + 2 (cp + CP (dp + DP pp)): by axis the bits in which members of a group may differ.
  const struct {
    Mesh mesh;
    int differ[static_cast<int>(Axis::count)];
  } meshes[] = {{{.dp = 2, .tp = 2, .pp = 2, .kv_replicas = 2}, {7, 2, 1, 4, 0, 1, 4, 2, 0}},
                {{.dp = 4, .tp = 2, .kv_replicas = 2, .replicas = 2}, {7, 6, 1, 0, 0, 1, 0, 2, 4}},
                {{.dp = 4, .tp = 2, .kv_replicas = 2, .replicas = 2, .cp = 2}, {7, 6, 1, 0, 2, 1, 0, 4, 2}}};
  for (const auto& [mesh, differ] : meshes)
    world.run(mesh, {.largest_bytes = 8}, [&, &differ = differ](int rank, Comm& comm) {
      for (int a = 0; a < static_cast<int>(Axis::count); ++a) {
        const i64 mine = i64{1} << rank;
        i64 got = 0, right = 0;
        Message m = sum_all(&mine, &got, 1, "rank");
        m.axis = static_cast<Axis>(a), m.type = Type::i64;
        finish(comm, m);
        for (int other = 0; other < 8; ++other)
          if (((rank ^ other) & ~differ[a]) == 0) right += i64{1} << other;
        expect(got == right, axis_name(static_cast<Axis>(a)));
      }
    });
}

// As attention's heads are exchanged for tokens: many blocks, in place, each number saying who had it.
template <class T>
void exchange(int rank, const Mesh& mesh, Type type, i64 blocks, i64 n, Comm& comm) {
  const i64 P = mesh.cp;
  const auto number = [&](int of, i64 e) { return static_cast<T>(of * 5000 + e % 5000); };
  std::vector<T> x;
  for (i64 e = 0; e < blocks * P * n; ++e) x.push_back(number(rank, e));
  Message m;
  m.verb = Verb::all_to_all, m.axis = Axis::cp, m.type = type, m.blocks = blocks, m.n = n, m.what = "x";
  m.in = m.out = x.data();
  finish(comm, m);
  const int me = rank / mesh.tp % mesh.cp, first = rank - me * mesh.tp;
  for (i64 b = 0; b < blocks; ++b)
    for (i64 i = 0; i < P; ++i)
      for (i64 e = 0; e < n; ++e)
        expect(x[(b * P + i) * n + e] == number(first + static_cast<int>(i) * mesh.tp, (b * P + me) * n + e),
               "block " + std::to_string(b) + " of " + std::to_string(blocks) + " of " + std::to_string(n));
}
void job_exchanges(MpiWorld& world) {
  for (const Mesh& mesh : {Mesh{.dp = 4, .tp = 2, .cp = 2}, Mesh{.dp = 4, .pp = 2, .cp = 4}})
    world.run(mesh, {.largest_bytes = 200 * 4 * 1000 * 4}, [&](int rank, Comm& comm) {
      for (const i64 blocks : {1, 3, 200})
        for (const i64 n : {1, 7, 1000}) {
          exchange<float>(rank, mesh, Type::f32, blocks, n, comm);
          exchange<std::uint16_t>(rank, mesh, Type::bf16, blocks, n, comm);
        }
    });
}

// Every rank has all of these under way at once, and waits for them in an order of its own.
void job_order(MpiWorld& world) {
  const int size = world.size(), count = 6;
  world.run(Mesh{.dp = size}, {.largest_bytes = 40000, .outstanding = 8}, [&](int rank, Comm& comm) {
    std::vector<std::vector<float>> in, out(count, std::vector<float>(10000));
    std::vector<int> requests;
    for (int k = 0; k < count; ++k) in.push_back(values<float>(10000, 10 * k + rank));
    for (int k = 0; k < count; ++k)
      requests.push_back(comm.start(sum_all(in[k].data(), out[k].data(), 10000, "x")));
    for (int k = 0; k < count; ++k) comm.wait(requests[(k * (rank % 2 ? 5 : 1) + rank) % count]);
    for (int k = 0; k < count; ++k) {
      std::vector<std::vector<float>> all;
      for (int i = 0; i < size; ++i) all.push_back(values<float>(10000, 10 * k + i));
      for (i64 e = 0; e < 10000; ++e)
        expect(out[k][e] == tree(Reduce::sum, all, e, 0, all.size()), "sum " + std::to_string(k));
    }
  });
}

// Sends meet receives by peer and tag, in the order of equal tags.
void job_sends(MpiWorld& world) {
  world.run(Mesh{.pp = world.size()}, {.largest_bytes = 4, .outstanding = 8}, [&](int rank, Comm& comm) {
    const float in[] = {10.f * rank + 1, 10.f * rank + 2, 10.f * rank + 3};
    float out[3] = {};
    const int size = world.size(), to = (rank + 1) % size, from = (rank + size - 1) % size;
    std::vector<int> requests;
    const i64 sent_tags[] = {7, 9, 7}, asked_tags[] = {9, 7, 7};
    const int sent[] = {0, 1, 2}, asked[] = {1, 0, 2};  // microbatches
    for (int k = 0; k < 3; ++k)
      requests.push_back(comm.start(send_to(to, &in[k], 1, "a", sent[k], sent_tags[k])));
    for (int k = 0; k < 3; ++k)
      requests.push_back(comm.start(recv_from(from, &out[k], 1, "a", asked[k], asked_tags[k])));
    for (int k = 6; k-- > 0;) comm.wait(requests[k]);
    const float base = 10.f * from;
    expect(out[0] == base + 2 && out[1] == base + 1 && out[2] == base + 3, "pairing");
  });
}

int* untouchable() {
  return static_cast<int*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

// The others wait for rank 1, which...
void job_waiting_for(MpiWorld& world, const std::function<void(Comm&)>& rank_1) {
  world.run(Mesh{.dp = world.size()}, {.largest_bytes = 4}, [&](int rank, Comm& comm) {
    if (rank == 1) return rank_1(comm);
    float x = 1;
    finish(comm, sum_all(&x, &x, 1, "loss"));
  });
}

const AddJobs added_jobs({
    {"values", job_values},
    {"axes", job_axes},
    {"exchanges", job_exchanges},
    {"order", job_order},
    {"sends", job_sends},
    {"killed", [](MpiWorld& w) { job_waiting_for(w, [](Comm&) { std::raise(SIGKILL); }); }},
    {"faults", [](MpiWorld& w) { job_waiting_for(w, [](Comm&) { *untouchable() = 1; }); }},
    {"signalled",
     [](MpiWorld& w) {
       job_waiting_for(w, [](Comm&) {
         kill(getpid(), SIGBUS);
         pause();
       });
     }},
    {"throws",
     [](MpiWorld& w) { job_waiting_for(w, [](Comm&) { throw std::runtime_error("out of luck"); }); }},
    {"absent", [](MpiWorld& w) { job_waiting_for(w, [](Comm&) {}); }},
    {"mismatch",
     [](MpiWorld& w) {
       job_waiting_for(w, [](Comm& comm) {
         float x = 1;
         finish(comm, sum_all(&x, &x, 1, "norm"));
       });
     }},
    {"unreceived",
     [](MpiWorld& w) {
       w.run(Mesh{.dp = w.size()}, {.largest_bytes = 4}, [](int rank, Comm& comm) {
         float x = 1;
         if (rank == 0) finish(comm, send_to(1, &x, 1, "x"));
       });
     }},
    {"lengths",
     [](MpiWorld& w) {
       w.run(Mesh{.dp = w.size()}, {.largest_bytes = 800}, [](int rank, Comm& comm) {
         float x[200] = {};
         finish(comm, sum_all(x, x, rank == 1 ? 200 : 1, "loss"));
       });
     }},
    {"dropped",
     [](MpiWorld& w) {
       job_waiting_for(w, [](Comm& comm) {
         static float x = 1;
         comm.start(sum_all(&x, &x, 1, "loss"));
       });
     }},
});

// ---- the tests' side

TEST_F(Mpi, EveryVerbGivesTheValuesOfTheTree) {
  for (int processes : {1, 2, 3, 4, 8}) succeeds(processes, "values");
}
TEST_F(Mpi, EveryAxisReachesItsOwnGroup) { succeeds(8, "axes"); }
TEST_F(Mpi, SegmentsOfASequenceExchangeManyBlocksInPlace) { succeeds(8, "exchanges"); }
TEST_F(Mpi, RanksMayWaitInAnyOrder) {
  for (int processes : {2, 4}) succeeds(processes, "order");
}
TEST_F(Mpi, SendsMeetReceivesByPeerAndTag) {
  for (int processes : {2, 3}) succeeds(processes, "sends");
}

// Who it was that SIGKILL ended only a launcher can say. Open MPI's does.
TEST_F(Mpi, AKilledRankEndsTheJob) { fails("killed", 0, by_open_mpi() ? "rank 1" : ""); }
std::string rank_1() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return "lockstep: rank 1 on " + std::string(host) + ": ";
}
TEST_F(Mpi, AFailedRankEndsTheJobAndIsNamed) { fails("throws", 3, rank_1() + "out of luck"); }
TEST_F(Mpi, ARankThatCrashesEndsTheJobAndIsNamed) {
  fails("faults", 0, rank_1() + "ended by signal 11 (Segmentation fault)");
  fails("signalled", 0, rank_1() + "ended by signal 7 (Bus error)");
}
TEST_F(Mpi, ARankThatNeverComesIsNotWaitedForForEver) {
  fails("absent", 3, "nothing has moved for 2 s while waiting for all_reduce of `loss`");
}
// However small: a send that ends because somebody had a buffer to spare would hide a deadlock.
TEST_F(Mpi, ASendIsARendezvous) {
  fails("unreceived", 3, "nothing has moved for 2 s while waiting for send of `x` to rank 1");
}
TEST_F(Mpi, OperationsThatDoNotMatchAreNamed) {
  const Ended ended = job(2, "mismatch");
  EXPECT_EQ(ended.status, 3);
  EXPECT_NE(ended.err.find("mismatch on world: "), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("of `loss`"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("of `norm`"), std::string::npos) << ended.err;
}
TEST_F(Mpi, OperationsOfOtherLengthsEndTheJob) {
  const Ended ended = job(2, "lengths");
  EXPECT_EQ(ended.status, 3);
  const bool named = ended.err.find("mismatch on world: ") != std::string::npos ||
                     ended.err.find("a peer sent a message of another size") != std::string::npos;
  EXPECT_TRUE(named) << ended.err;
}
TEST_F(Mpi, ARequestNeverWaitedForIsNamed) {
  fails("dropped", 3, "ended with requests never waited for: all_reduce of `loss`");
}

// The whole program: over processes, the hash of one device.

std::string hash_in(const std::string& text) {
  const std::size_t at = text.find("hash ");
  return at == std::string::npos ? "no hash in: " + text : text.substr(at + 5, 32);
}

Ended train(int processes, const std::string& plan, const std::string& run = tiny_run) {
  return mpirun(processes,
                "'" + beside("lockstep") + "' train --comm mpi --steps 2 " + run + "--plan '" + plan + "'");
}

TEST_F(Mpi, EveryPlanHasTheHashOfOneDevice) {
  const std::string right = hash_in(lockstep_program("train --steps 2 --check " + tiny_run).out);
  ASSERT_EQ(right.size(), 32u);
  for (const auto& [processes, plan] : std::vector<std::pair<int, std::string>>{
           {1, "dp=1"},
           {2, "dp=2 zero=1"},
           {2, "tp=2 sp=1"},
           {2, "pp=2 micro=1"},
           {4, "dp=2 tp=2"},
           {4, "dp=4 zero=2 micro=1"},
           {4, "tp=4 ckpt=full"},
           {4, "dp=2 pp=2 zero=3 micro=1"},
           {8, "dp=2 tp=2 pp=2 micro=1"},
           {8, "dp=4 tp=2 sp=1 zero=3"},
       }) {
    const Ended ended = train(processes, plan);
    EXPECT_EQ(ended.status, 0) << plan << ": " << ended.err;
    EXPECT_EQ(hash_in(ended.out), right) << plan;
  }
}

// Shards of 13 numbers of a norm's 50: messages of 26 bytes.
TEST_F(Mpi, OddNumbersOfBf16HaveTheHashOfOneDevice) {
  const std::string run =
      "--model suites/models/gate-odd.json --data datasets/excerpt-v509.tok --batch 8 --seq 16 --dtype bf16 ";
  const std::string right = hash_in(lockstep_program("train --steps 2 --check " + run).out);
  ASSERT_EQ(right.size(), 32u);
  for (const char* plan : {"dp=4 zero=1 micro=1", "dp=4 zero=3 micro=1"}) {
    const Ended ended = train(4, plan, run);
    EXPECT_EQ(ended.status, 0) << plan << ": " << ended.err;
    EXPECT_EQ(hash_in(ended.out), right) << plan;
  }
}

TEST_F(Mpi, EveryPlanOfSegmentsHasTheHashOfOneDevice) {
  const std::string run = tiny_run + "--segments 2 ";
  const std::string right = hash_in(lockstep_program("train --steps 2 --check " + run + "--plan cp=2").out);
  ASSERT_EQ(right.size(), 32u);
  EXPECT_NE(right, hash_in(lockstep_program("train --steps 2 " + tiny_run).out));
  for (const auto& [processes, plan] : std::vector<std::pair<int, std::string>>{
           {2, "cp=2"},
           {4, "dp=2 cp=2 zero=2 micro=1"},
           {4, "cp=2 pp=2 ckpt=full micro=1"},
           {8, "dp=2 cp=2 pp=2 zero=3 replicas=2 micro=1"},
       }) {
    const Ended ended = train(processes, plan, run);
    EXPECT_EQ(ended.status, 0) << plan << ": " << ended.err;
    EXPECT_EQ(hash_in(ended.out), right) << plan;
  }
}

TEST_F(Mpi, ThreeMicrobatchesHaveTheHashOfOneDevice) {
  const std::string run = tiny_model + "--data datasets/excerpt-v509.tok --batch 12 --seq 16 --clip 0.5 ";
  const std::string right = hash_in(lockstep_program("train --steps 2 --check " + run).out);
  ASSERT_EQ(right.size(), 32u);
  for (const char* plan : {"dp=4 zero=2 micro=1", "dp=2 pp=2 zero=3 micro=2"}) {
    const Ended ended = train(4, plan, run);
    EXPECT_EQ(ended.status, 0) << plan << ": " << ended.err;
    EXPECT_EQ(hash_in(ended.out), right) << plan;
  }
}

TEST_F(Mpi, TheSingleDeviceIsComparedWith) {
  const Ended ended = mpirun(
      2, "'" + beside("lockstep") + "' train --comm mpi --check --steps 2 " + tiny_run + "--plan dp=2");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_NE(ended.out.find("equal to the single device: 2 steps"), std::string::npos) << ended.out;
}

// Kept by two processes, gone on with by four.
TEST_F(Mpi, ATrainingGoesOnOverOtherProcesses) {
  const TemporaryFolder folder;
  const Ended first = train(2, "dp=2 zero=2", tiny_run + "--total 4 --state '" + folder.path() + "' ");
  EXPECT_EQ(first.status, 0) << first.err;
  const Ended second =
      mpirun(4, "'" + beside("lockstep") + "' train --comm mpi --check --total 4 --steps 4 " + tiny_run +
                    "--plan 'tp=2 pp=2 offload=optimizer' --resume '" + folder.path() + "'");
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_NE(second.out.find("equal to the single device: 2 steps after 2"), std::string::npos) << second.out;
}

TEST_F(Mpi, FastModeIsHeldToItsBound) {
  const Ended ended = mpirun(2, "'" + beside("lockstep") + "' train --comm mpi --fast --check --steps 2 " +
                                    tiny_run + "--plan 'tp=2 micro=4'");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_NE(ended.out.find("within the bound of fast mode: 2 steps"), std::string::npos) << ended.out;
}

TEST_F(Mpi, AStepIsTimed) {
  const Ended ended =
      mpirun(4, "'" + beside("lockstep") + "' time --comm mpi --steps 2 " + tiny_run + "--plan 'dp=2 tp=2'");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_NE(ended.out.find("median step "), std::string::npos) << ended.out;
  EXPECT_EQ(ended.out.find("median step "), ended.out.rfind("median step ")) << "once: " << ended.out;
}

// Needs no MPI: a program that stands alone says what is missing.
TEST(MpiMissing, IsSaidInOneSentence) {
  const TemporaryFolder folder;
  const std::string alone = folder.path() + "/lockstep";
  std::filesystem::copy_file(beside("lockstep"), alone);
  const Ended ended = shell("'" + alone + "' train --comm mpi " + tiny_run);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(ended.err.starts_with("lockstep: this program was built without MPI")) << ended.err;
}

// Else every process would run the whole plan, and all be right.
TEST_F(Mpi, ProcessesThatAreNotToldOfEachOtherAreRefused) {
  for (const std::string& command : {"train --steps 2 " + tiny_run + "--plan dp=2", "time " + tiny_run,
                                     std::string("gate suites/smoke.toml --plan dp=2")}) {
    const Ended ended = mpirun(2, "'" + beside("lockstep") + "' " + command);
    EXPECT_EQ(ended.status, 2) << ended.out;
    EXPECT_TRUE(says(ended.err, "lockstep: a launcher started 2 processes, "));
  }
}

// --comm nccl needs more than there is, on any machine without a GPU: one sentence for all ranks.
class Nccl : public Mpi {
 protected:
  Ended train_over_nccl(const std::string& program) {
    return mpirun(2,
                  "'" + program + "' train --comm nccl --device cuda --steps 2 " + tiny_run + "--plan dp=2");
  }
  void is_refused(const Ended& ended, const std::string& sentence) {
    EXPECT_EQ(ended.status, 2) << ended.err;
    const std::size_t at = ended.err.find("lockstep: " + sentence);
    ASSERT_NE(at, std::string::npos) << ended.err;
    EXPECT_EQ(ended.err.find(sentence, at + 10 + sentence.size()), std::string::npos) << ended.err;
  }
};

TEST_F(Nccl, WithoutAGpuIsRefusedInOneSentence) {
  if (!std::filesystem::exists(beside("lockstep_nccl.so"))) GTEST_SKIP() << "skipped: built without NCCL";
  const std::string why = why_no_device("cuda");
  if (why.empty()) GTEST_SKIP() << "skipped: there is a GPU";
  is_refused(train_over_nccl(beside("lockstep")), why);
}

TEST_F(Nccl, NotBuiltIsSaidInOneSentence) {
  const TemporaryFolder folder;
  for (const char* name : {"lockstep", "lockstep_mpi.so"})
    std::filesystem::copy_file(beside(name), folder.path() + "/" + name);
  is_refused(train_over_nccl(folder.path() + "/lockstep"), "this program was built without NCCL");
}

TEST_F(Mpi, AUsersMistakeIsSaidOnce) {
  const Ended ended = train(2, "dp=4");
  EXPECT_EQ(ended.status, 2) << ended.err;
  const std::string sentence =
      "lockstep: the plan needs 4 ranks, but the job has 2: mpirun -n 4 lockstep train";
  const std::size_t at = ended.err.find(sentence);
  EXPECT_NE(at, std::string::npos) << ended.err;
  EXPECT_EQ(ended.err.find("the plan needs", at + sentence.size()), std::string::npos) << ended.err;
}

}  // namespace
}  // namespace lockstep::test

int main(int argc, char** argv) {
  using namespace lockstep;
  if (const char* name = std::getenv("LOCKSTEP_MPI_JOB"))
    return with_mpi([&](MpiWorld& world) {
      test::jobs().at(name)(world);
      return 0;
    });
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
