// Ranks as processes, started by mpirun, one each. Nothing here names MPI's own header: what does is a shared
// object of its own beside the program, opened when asked for, so that the program also runs where there is
// no MPI.
#pragma once
#include <functional>
#include <string>

#include "parallel/comm/comm.hpp"

namespace lockstep {

// All processes of the job. What a method does, every process does with it.
class MpiWorld {
 public:
  virtual ~MpiWorld() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int ranks_here() const = 0;  // how many of the processes this machine has,
  virtual int rank_here() const = 0;   // and which of them this is

  // Runs body(rank, comm) on this process. UserError: the mesh has another number of ranks than the job.
  virtual void run(const Mesh&, const CommNeeds&, const std::function<void(int, Comm&)>& body) = 0;
  // On rank 0 sees every process's bytes in the order of ranks, one at a time; on others does not call it.
  virtual void gather(const std::string& mine,
                      const std::function<void(int rank, const std::string& bytes)>& see) = 0;
  // Rank 0's value, on every process. Whoever waits long for a text leaves its core to others meanwhile.
  virtual int from_first(int value) = 0;
  virtual std::string from_first(const std::string& text) = 0;
  virtual void from_first(void* data, i64 bytes) = 0;
  // This process's part of its machine's cores.
  virtual int cores_each() const = 0;
  // Whether every process has so many cores for itself.
  virtual bool cores_suffice(int each) = 0;
};

// Starts MPI, runs body, ends MPI and returns what body returned. Whatever body throws is printed in one
// sentence with the rank and its host, and ends every process of the job. UserError: built without MPI.
int with_mpi(const std::function<int(MpiWorld&)>& body);

}  // namespace lockstep
