// The job that processes started by mpirun are in.
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

#include "kernels/cores.hpp"
#include "parallel/comm/mpi.hpp"
#include "parallel/comm/mpi/comm.hpp"
#include "parallel/comm/mpi/fatal_signals.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

class World : public MpiWorld {
 public:
  World() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    // Every status is looked at, so that what goes wrong is said by a rank that has a name. MPICH asks these
    // two of them of what has no communicator: a test of requests.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm here;
    mpi_must(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &here),
             "MPI_Comm_split_type");
    MPI_Comm_rank(here, &rank_here_);
    MPI_Comm_size(here, &ranks_here_);
    // A launcher binds each process to cores of its own, or all to all of them.
    cpu_set_t cores;
    CPU_ZERO(&cores);
    sched_getaffinity(0, sizeof cores, &cores);
    cores_mine_ = CPU_COUNT(&cores);
    mpi_must(MPI_Allreduce(MPI_IN_PLACE, &cores, sizeof cores, MPI_UNSIGNED_CHAR, MPI_BOR, here),
             "MPI_Allreduce");
    cores_here_ = CPU_COUNT(&cores);
    if (const int quota = cores_of_quota("/sys/fs/cgroup"); quota > 0)
      cores_here_ = std::min(cores_here_, quota);
    MPI_Comm_free(&here);
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    who_ = fmt::format("rank {} on {}", rank_, host);
    name_rank_in_death(who_);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int ranks_here() const override { return ranks_here_; }
  int rank_here() const override { return rank_here_; }

  void run(const Mesh& mesh, const CommNeeds& needs, const std::function<void(int, Comm&)>& body) override {
    if (mesh.size() != size_)
      throw UserError(
          fmt::format("the plan has {0} rank{1}, but the job has {2} process{3}; start it with mpirun -n {0}",
                      mesh.size(), mesh.size() == 1 ? "" : "s", size_, size_ == 1 ? "" : "es"));
    if (size_ > kMaxRanks) throw UserError(fmt::format("at most {} ranks, not {}", kMaxRanks, size_));
    MpiComm comm(mesh, needs, rank_);
    body(rank_, comm);
    if (const std::string left = comm.left_under_way(); !left.empty())
      throw CommError("ended with requests never waited for: " + left);
    mpi_must(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier");  // nobody leaves while others may still need it
  }

  // Asks for one rank after the other, so that only one rank's bytes are here twice.
  void gather(const std::string& mine, const std::function<void(int, const std::string&)>& see) override {
    if (rank_ > 0) {
      char go = 0;
      MPI_Request request;
      mpi_must(MPI_Irecv(&go, 1, MPI_CHAR, 0, 0, MPI_COMM_WORLD, &request), "MPI_Irecv");
      wait_politely(request);
      const i64 bytes = static_cast<i64>(mine.size());
      mpi_must(MPI_Send(&bytes, 1, MPI_INT64_T, 0, 0, MPI_COMM_WORLD), "MPI_Send");
      for (i64 at = 0; at < bytes; at += kChunk)
        mpi_must(MPI_Send(mine.data() + at, static_cast<int>(std::min(kChunk, bytes - at)), MPI_CHAR, 0, 0,
                          MPI_COMM_WORLD),
                 "MPI_Send");
      return;
    }
    see(0, mine);
    std::string theirs;
    for (int r = 1; r < size_; ++r) {
      const char go = 1;
      mpi_must(MPI_Send(&go, 1, MPI_CHAR, r, 0, MPI_COMM_WORLD), "MPI_Send");
      i64 bytes = 0;
      mpi_must(MPI_Recv(&bytes, 1, MPI_INT64_T, r, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
      theirs.resize(static_cast<std::size_t>(bytes));
      for (i64 at = 0; at < bytes; at += kChunk)
        mpi_must(MPI_Recv(theirs.data() + at, static_cast<int>(std::min(kChunk, bytes - at)), MPI_CHAR, r, 0,
                          MPI_COMM_WORLD, MPI_STATUS_IGNORE),
                 "MPI_Recv");
      see(r, theirs);
    }
  }

  int from_first(int value) override {
    mpi_must(MPI_Bcast(&value, 1, MPI_INT, 0, MPI_COMM_WORLD), "MPI_Bcast");
    return value;
  }

  std::string from_first(const std::string& text) override {
    std::string all = text;
    i64 bytes = static_cast<i64>(all.size());
    MPI_Request request;
    mpi_must(MPI_Ibcast(&bytes, 1, MPI_INT64_T, 0, MPI_COMM_WORLD, &request), "MPI_Ibcast");
    wait_politely(request);
    all.resize(static_cast<std::size_t>(bytes));
    from_first(all.data(), bytes);
    return all;
  }

  void from_first(void* data, i64 bytes) override {
    for (i64 at = 0; at < bytes; at += kChunk)
      mpi_must(MPI_Bcast(static_cast<char*>(data) + at, static_cast<int>(std::min(kChunk, bytes - at)),
                         MPI_CHAR, 0, MPI_COMM_WORLD),
               "MPI_Bcast");
  }

  int cores_each() const override { return std::max(1, std::min(cores_mine_, cores_here_ / ranks_here_)); }
  bool cores_suffice(int each) override {
    int suffice = cores_mine_ >= each && cores_here_ >= ranks_here_ * each;
    mpi_must(MPI_Allreduce(MPI_IN_PLACE, &suffice, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD), "MPI_Allreduce");
    return suffice;
  }

  // What every process refuses alike is said once: the others give rank 0 time to say it for them.
  [[noreturn]] void end_job(const std::string& what, int status, bool alike) {
    if (alike && rank_ > 0) sleep(2);
    std::fflush(stdout);
    const std::string who = alike && rank_ == 0 ? "" : who_ + ": ";
    std::fputs(("lockstep: " + who + what + "\n").c_str(), stderr);
    std::fflush(stderr);
    die_quietly();
    if (size_ > 1) {
      // MPICH's launcher, told to end a job, may drop what it has not yet passed on of this sentence.
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      MPI_Abort(MPI_COMM_WORLD, status);
    }
    MPI_Finalize();  // alone, nobody is to be ended, and some have words of their own for that
    std::_Exit(status);
  }

 private:
  // MPI's own wait would keep a core busy that another process may need.
  static void wait_politely(MPI_Request& request) {
    for (int done = 0; mpi_must(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test"), !done;)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

  static constexpr i64 kChunk = 1 << 28;
  std::string who_;  // "rank 1 on node2"
  int rank_ = 0, size_ = 1, rank_here_ = 0, ranks_here_ = 1;
  int cores_mine_ = 1, cores_here_ = 1;  // that this process may use, and all of this machine's together
};

}  // namespace

extern "C" int lockstep_with_mpi(const std::function<int(MpiWorld&)>& body) {
  World world;
  int status = 3;
  try {
    status = body(world);
  } catch (const UserError& e) {
    world.end_job(e.what(), 2, true);
  } catch (const std::exception& e) {
    world.end_job(e.what(), 3, false);
  }
  MPI_Finalize();
  return status;
}

}  // namespace lockstep
