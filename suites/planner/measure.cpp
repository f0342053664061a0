#include "suites/planner/measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "kernels/cores.hpp"
#include "kernels/work.hpp"
#include "suites/machine_memory.hpp"
#include "suites/planner/measure_kernels.hpp"
#include "suites/planner/measure_links.hpp"
#include "suites/planner/measure_process.hpp"
#include "suites/planner/pace.hpp"

namespace lockstep {
namespace {

void describe(const MeasureHow& how, Cluster& c) {
  const int cores = lockstep::cores();
  c.name = fmt::format("this machine, {} core{}", cores, cores > 1 ? "s" : "");
  c.devices = c.per_node = std::max(1, cores / how.threads);
  c.weight_bytes = c.gradient_bytes = c.activation_bytes = 4;
  c.memory = static_cast<double>(machine_bytes()) / static_cast<double>(c.devices);
  c.host_memory = c.memory;
}

// Rates as parts of the fastest of all.
void relate(Cluster& c, const std::map<std::string, Curve>& rates) {
  for (const auto& [name, grid] : c.grids)
    c.flops = std::max(c.flops, *std::max_element(grid.rates.begin(), grid.rates.end()));
  for (const auto& [name, curve] : rates)
    for (const auto& [bytes, rate] : curve.points()) c.memory_bandwidth = std::max(c.memory_bandwidth, rate);
  for (const auto& [name, curve] : rates) {
    std::vector<std::pair<double, double>> parts = curve.points();
    for (auto& [bytes, rate] : parts) rate /= c.memory_bandwidth;
    c.efficiency[name] = Curve(parts);
  }
  c.efficiency["rows"] = c.efficiency.at("add");
  c.host_bandwidth = rates.at("adamw").points().back().second;
}

void crowd(const MeasureHow& how, Calibration& into) {
  for (const auto& [kind, arithmetic] : {std::pair{"matmul", true}, {"rows", false}}) {
    std::vector<std::pair<double, double>> left;
    const double one = measure_crowd(1, arithmetic, how, into.notes);
    for (i64 ranks = 1; ranks <= into.cluster.devices; ranks *= 2)
      left.emplace_back(ranks, measure_crowd(static_cast<int>(ranks), arithmetic, how, into.notes) / one);
    into.cluster.crowd[kind] = Curve(left);
  }
}

}  // namespace

std::vector<MeasureStep> measure_steps(const MeasureHow& how, Calibration& into) {
  describe(how, into.cluster);
  std::vector<MeasureStep> steps;
  steps.push_back({"process", 1, [&] { measure_process(how, into.cluster, into.notes); }});
  steps.push_back({"pace", 0.5, [&] { into.cluster.pace = measure_pace(how.isa); }});
  const auto rates = std::make_shared<std::map<std::string, Curve>>();
  for (const char* name : {"matmul", "matmul_dx", "matmul_dw", "attention", "attention_dx"})
    steps.push_back({name, name[0] == 'm' ? 20.0 : 4.0,
                     [&, name] { into.cluster.grids[name] = measure_grid(name, how, into.notes); }});
  for (const std::string& name : kernel_names_and_classes())
    if (measured_by_rows(name))
      steps.push_back(
          {name, 0.5, [&, name, rates] { (*rates)[name] = measure_rows(name, how, into.notes); }});
  steps.push_back({"ranks at once", 2, [&, rates] {
                     relate(into.cluster, *rates);
                     crowd(how, into);
                   }});
  if (into.cluster.devices > 1)
    steps.push_back({"messages", 2, [&] { measure_messages(how, into.cluster, into.notes); }});
  steps.push_back({"copies", 1, [&] { measure_copies(how, into.cluster, into.notes); }});
  steps.push_back({"disk", 1, [&] { measure_disk(how, into.cluster, into.notes); }});
  return steps;
}

}  // namespace lockstep
