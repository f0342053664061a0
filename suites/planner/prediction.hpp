// What the planner says of a plan: time and memory of each stage, one rank standing for its replicas.
#pragma once
#include <array>
#include <set>
#include <string>
#include <vector>

#include "parallel/cluster.hpp"
#include "parallel/trace/simulate.hpp"
#include "suites/planner/cluster.hpp"

namespace lockstep {

struct StagePrediction {
  std::array<i64, 3> live{};  // most bytes alive at once, by medium
  // Seconds of the step's, in all `Prediction::seconds`.
  double compute = 0, update = 0, copies = 0, bubble = 0;
  std::array<double, static_cast<int>(Axis::count)> exposed{};  // communication that is waited for
};

struct Prediction {
  double seconds = 0;
  std::vector<StagePrediction> stages;
};

// A whole step of one rank of each stage, traced and simulated. What a bar's name points to is put into
// `names`.
struct WholeStep {
  Simulated simulated;
  std::vector<std::array<i64, 3>> live;  // by stage and medium: most bytes alive at once
};
WholeStep whole_step(const Run&, const Cluster&, std::set<std::string>& names);

// The same as a prediction. Slow, and what everything faster is held to.
Prediction predict_by_trace(const Run&, const Cluster&);

// A run as the cluster's devices would train: in fast mode, with their types.
Settings settings_on(const Cluster&, Settings);

// Bytes that the largest stage needs of each medium of a device, what a process holds beside its arena
// included.
std::array<double, 3> needs(const Prediction&, const Cluster&, const Mesh&);
// The same of most bytes alive at once on any stage.
std::array<double, 3> needs(const std::array<i64, 3>& live, const Cluster&, const Mesh&);
inline constexpr const char* kMedia[] = {"device", "host", "disk"};
// What the cluster has of them.
std::array<double, 3> has(const Cluster&);
// Bytes that a plan lacks where it lacks most; 0: it fits.
double lacks(const std::array<double, 3>& needs, const std::array<double, 3>& has);

}  // namespace lockstep
