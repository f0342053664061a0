// The three gates a plan passes: numbers, messages, memory. Each verdict is "pass" or the first thing wrong.
#pragma once
#include <string>

#include "suites/run/assembly.hpp"

namespace lockstep {

struct Verdict {
  std::string numbers = "not run", messages = "not run", memory = "not run";
  std::string hash;
  Whole whole;  // what the plan computed
  bool pass() const { return numbers == "pass" && messages == "pass" && memory == "pass"; }
};

struct GateOptions {
  std::string isa = "auto";
  int threads = 1;
  // The plan runs from its arena with eager messages, and again with guarded buffers and lazy ones.
  bool guarded = true;
  i64 guarded_steps = 1;  // one more where copies are made: what goes wrong at a step's end shows in the next
  // `initial` are the fresh weights: the guarded run makes them again, each rank its own part, so that both
  // ways to begin are judged.
  bool fresh = false;
  std::string scratch{};                     // as in Launch
  class Accelerator* accelerator = nullptr;  // as in Launch; there is no guarded run then
  bool graphs = false;                       // as in Launch
  // As in Launch. Every process of the job judges with the others; rank 0's verdict is the job's, and it
  // alone needs a reference and initial weights. What ends a rank ends the job, and is thrown.
  MpiWorld* mpi = nullptr;
  Fabrics* fabrics = nullptr;
  Launch launch() const {
    return {.isa = isa,
            .threads = threads,
            .mpi = mpi,
            .scratch = scratch,
            .accelerator = accelerator,
            .graphs = graphs,
            .fabrics = fabrics};
  }
};

// Runs the plan against the reference. Never throws for what the plan does wrong: that is the verdict. What
// is not the plan's fault is thrown: std::bad_alloc, and UserError (the scratch folder).
Verdict judge(const Prepared&, const Whole& reference, const GateOptions&,
              const std::vector<std::vector<float>>& initial = {});

// messages.cpp: what each rank posted in a step, against the trace and the closed formulas; and its work.
std::string judge_messages(const Prepared&, const std::vector<std::vector<Posted>>& posted);
// work.cpp: kernels and copies of the trace, and what of the talk they hide, against closed formulas.
std::string judge_work(const Prepared&);
// The same of a run: how many kernels each rank ran in a step, and copies it started; all of its step, in
// order; bytes that the program itself brought and took.
struct Ran {
  i64 kernels = 0, copies = 0;
  std::uint64_t fingerprint = 0;
  i64 host_bytes = 0;
  bool operator==(const Ran&) const = default;
};
std::string judge_work(const Prepared&, const std::vector<Ran>& by_rank);
// messages.cpp: the first message or copy of a step that no rank waits for, or nothing.
std::string never_waited_for(const Prepared&);
// races.cpp: the first buffer that a kernel or another message touches while one under way needs it, or
// nothing.
std::string races(const Prepared&);
// The first thing wrong that is seen before anything runs: a deadlock, these two; or nothing.
std::string wrong_in_the_trace(const Prepared&);
// What a device posted, with names that outlive its executor: the trace's equal ones.
std::vector<Posted> lasting(const Prepared&, std::vector<Posted> posted);
// memory.cpp: closed formulas by kind = trace = guarded run; arenas together, and file, at most 1.05 x live.
// guard_peaks by rank, empty if there was no guarded run.
std::string judge_memory(const Prepared&, const std::vector<i64>& guard_peaks);

// extent.cpp: every buffer of a step is used to its end.
std::string judge_extents(const Prepared&);

}  // namespace lockstep
