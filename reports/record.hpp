// What a sweep keeps: one run, many plans. The HDF5 layout is reports/schema.md.
#pragma once
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

// Bytes by what they are for; `peak` is the most at any one time of all of them together.
using BytesByKind = std::map<std::string, i64>;  // weights, gradients, optimizer, activations, buffers, ...

struct AxisTraffic {
  i64 messages = 0;
  i64 bytes = 0;  // payload, summed over ranks, one step
};

inline constexpr double kNotTimed = std::numeric_limits<double>::quiet_NaN();

// A gate's verdict in exact mode where that mode cannot sum the plan (dp=3): it was run in fast mode alone.
inline constexpr const char* kNotPossible = "not possible";

struct PlanRecord {
  std::string plan;                          // canonical line: "dp=2 tp=2 pp=1 ..."
  std::map<std::string, std::string> words;  // every plan word with its value, defaults included
  int ranks = 1, threads = 1;
  std::string hosts;          // "4 x node1, 4 x node2": of ranks that a launcher started; or empty
  std::string status = "ok";  // ok, failed (a gate), crashed, timeout, out of memory
  std::string ended;          // of the last three: how, in words
  std::string numbers, messages, memory;  // each gate in exact mode: "pass", or the first thing it found
  std::string fast;                       // the same of fast mode, all gates in one
  double fast_worst = 0;                  // its largest difference, as a part of what its bound allows
  std::string fast_where;                 // and of what: "step 1: gradient of model.norm.weight"
  std::string hash;                       // of losses, gradients and weights of all steps
  std::vector<double> loss, grad_norm;    // per step
  bool timed = false;                     // ranks x threads fit the cores; otherwise only checked
  std::vector<double> step_seconds;       // timed steps, after warm-up
  double tokens_per_second = kNotTimed;   // of the median step
  double median_spread = kNotTimed;       // half the median's 95 % interval, as a part of the median
  double wall_seconds = 0;                // that it took: gates and timed steps together
  i64 tokens_per_step = 0;
  // Times, bytes and traffic are fast mode's: nobody trains in the other.
  BytesByKind peak_by_kind;                    // largest rank's, each kind's own peak
  i64 peak_bytes = 0, arena_bytes = 0;         // largest rank's: live bytes by the trace; the arena laid out
  i64 exact_peak_bytes = 0;                    // peak_bytes of exact mode
  i64 resident_bytes = 0;                      // the process's, all ranks together
  std::map<std::string, AxisTraffic> traffic;  // by axis
  double predicted_seconds = kNotTimed;        // of a timed step, on the cluster of RunRecord::predicted_with
  // A step as it would go at the rates of RunRecord::simulated_with.
  double simulated_seconds = kNotTimed;
  std::map<std::string, double> simulated;  // its seconds by what they go to, a mean over ranks
  std::string timeline;                     // JSON: who does what when (reports/schema.md)
  std::string measured_timeline;            // the same of a step on this machine; empty: not timed
};

// What a plan failed by, and what was found: "numbers: step 0: ..."; empty if its status is ok.
std::string complaint(const PlanRecord&);

struct RunRecord {
  std::string suite, model, model_hash, data, data_hash, dtype = "float32";
  std::string revision, compiler, flags, host, cpu, isa, device = "cpu", started;  // ISO 8601
  i64 seed = 0, batch = 0, seq = 0, steps = 0, parameters = 0;
  std::string launch, comm = "local";  // what starts ranks as processes, and carries their messages; or empty
  int cores = 0;
  std::string simulated_with;          // the rates of simulated steps, in words
  std::string predicted_with;          // the whole cluster's file of predicted steps; empty: none are
  std::string verdict;                 // VALID or INVALID line
  std::string hash;                    // the one hash, empty if plans disagree
  std::string reference_hash;          // the single-device reference's
  std::map<std::string, i64> refused;  // rule -> plans refused by it
  std::vector<PlanRecord> plans;
};

// Writes path.tmp, closes it, renames it to path. Throws UserError if the place cannot be written.
void write_run(const RunRecord&, const std::string& path);
// What a file of an earlier program does not hold has its default, and a map of a plan's holds what any
// plan's does, empty or 0. UserError: no such file, damaged, of another kind.
RunRecord read_run(const std::string& path);

// A file of one plan, written as above. `identity` says which sweep it is of; reading wants the same.
// UserError: no such file, damaged, of another sweep.
void write_plan(const PlanRecord&, const std::string& identity, const std::string& path);
PlanRecord read_plan(const std::string& identity, const std::string& path);

// From one process to another of the same program.
std::string bytes_of(const PlanRecord&);
PlanRecord plan_of(const std::string& bytes);

// The build: its revision, with a hash of the program itself, and of these shared objects beside it.
std::string build_identity(const std::vector<std::string>& objects = {});

std::string host_name();

// What reproduces a run: fills revision, compiler, flags, host, cpu, cores, started.
void describe_machine(RunRecord&);

}  // namespace lockstep
