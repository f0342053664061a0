// Jobs of processes. The test program is both sides: its tests start it again under mpirun, and started so it
// is one rank of the job that LOCKSTEP_MPI_JOB names. Without mpirun every test is skipped.
#pragma once
#include <functional>
#include <map>

#include "parallel/comm/mpi.hpp"
#include "suites/tests/comm_support.hpp"
#include "suites/tests/program_runner.hpp"

namespace lockstep::test {

// ---- a rank's side: a job throws if what it gets is not what it must get

using Jobs = std::map<std::string, std::function<void(MpiWorld&)>>;
inline Jobs& jobs() {
  static Jobs all;
  return all;
}
struct AddJobs {
  explicit AddJobs(Jobs more) { jobs().merge(more); }
};

inline void expect(bool right, const std::string& what) {
  if (!right) throw std::runtime_error("wrong: " + what);
}

// ---- the tests' side

inline const std::string kAsRoot = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ";
// More processes than cores are meant here, which Open MPI wants to be told; and a container may not let them
// read each other's memory.
inline bool by_open_mpi() {
  static const bool is = shell("mpirun --version").out.find("Open MPI") != std::string::npos;
  return is;
}
inline std::string launcher() {
  if (!by_open_mpi()) return "mpirun -n ";
  return "mpirun --oversubscribe --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none -n ";
}
inline Ended mpirun(int processes, const std::string& command) {
  return shell(kAsRoot + "timeout 120 " + launcher() + std::to_string(processes) + " " + command);
}

inline Ended job(int processes, const std::string& name) {
  return mpirun(processes,
                "env LOCKSTEP_MPI_JOB=" + name + " LOCKSTEP_MPI_PATIENCE=2 '" + beside("test_mpi") + "'");
}

inline constexpr int kTimedOut = 124;

class Mpi : public ::testing::Test {
 protected:
  void SetUp() override {
    if (shell("command -v mpirun").status != 0) GTEST_SKIP() << "skipped: no mpirun";
    if (!std::filesystem::exists(beside("lockstep_mpi.so"))) GTEST_SKIP() << "skipped: built without MPI";
  }
  void succeeds(int processes, const std::string& name) {
    const Ended ended = job(processes, name);
    EXPECT_EQ(ended.status, 0) << name << " on " << processes << ": " << ended.out << ended.err;
  }
  // Ends with `status` long before the time limit; says `sentence`.
  void fails(const std::string& name, int status, const std::string& sentence) {
    const Ended ended = job(3, name);
    EXPECT_NE(ended.status, 0);
    EXPECT_NE(ended.status, kTimedOut);
    if (status > 0) {
      EXPECT_EQ(ended.status, status);
    }
    EXPECT_NE(ended.err.find(sentence), std::string::npos) << ended.err;
  }
};

}  // namespace lockstep::test
