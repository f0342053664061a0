// All ranks of a plan: traced first, then run as threads of this process, or as processes of a job.
#pragma once
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "parallel/executor.hpp"

namespace lockstep {

class Fabrics;
class MpiWorld;

// What one rank does in a step, noted without the others. What the trace points to is put into `names`, the
// step's messages into `posted` if there is one, and its fingerprint likewise.
Trace trace_rank(const Run&, int rank, std::set<std::string>& names, std::vector<Posted>* posted = nullptr,
                 std::uint64_t* fingerprint = nullptr);

// What is known of a plan before anything is computed.
struct Prepared {
  Run run;
  Mesh mesh;
  std::vector<Trace> traces;                // by rank
  std::vector<std::vector<Posted>> posted;  // by rank: a step's messages
  std::vector<std::uint64_t> fingerprints;  // by rank: of that step
  std::vector<Layouts> layouts;             // by rank
  const ArenaPlan& layout(int rank, Medium m) const { return layouts[rank][static_cast<int>(m)]; }
  CommNeeds needs;
  std::string deadlock;         // empty, or who would wait for what
  std::set<std::string> names;  // what traces and messages point to
  Prepared() = default;
  Prepared(Prepared&&) = default;  // moving a set keeps its strings where they are
};
Prepared prepare(const Run&);
// StrategyError: the plan would hang; the text says where.
void refuse_deadlock(const Prepared&);

struct Launch {
  std::string isa = "auto";  // of kernels that work in host memory
  int threads = 1;
  Timing timing = Timing::eager;
  bool guard = false;  // every buffer between guard pages instead of the arena
  // Not null: ranks are the processes of this job instead of threads of this one. Its messages are eager.
  MpiWorld* mpi = nullptr;
  std::string scratch{};  // folder of the ranks' files; empty: the system's for temporary files
  // Not null: what computes, instead of this processor. It has neither guard pages nor lazy timing.
  Accelerator* accelerator = nullptr;
  bool graphs = false;  // a step's kernels go to the accelerator as graphs
  // Not null: messages go over these, between the accelerator's memories, and the ranks' own communicator
  // only introduces them to each other. Such messages are eager.
  Fabrics* fabrics = nullptr;
};

struct RankView {
  int rank;
  Executor& executor;
  Device& device;
  i64 guard_peak() const { return guard ? guard->peak() : 0; }
  const GuardPlacer* guard;
};

// Runs body once per rank, each on its own thread; the first failure ends all and is thrown again. As
// processes: once here, for this process's rank. UserError: no file can be made in the scratch folder.
void launch(const Prepared&, const Launch&, const std::function<void(RankView)>& body);

}  // namespace lockstep
