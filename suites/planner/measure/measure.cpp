#include "suites/planner/measure/measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "kernels/cores.hpp"
#include "kernels/work.hpp"
#include "parallel/device/engine.hpp"
#include "suites/planner/measure/measure_device.hpp"
#include "suites/planner/measure/measure_kernels.hpp"
#include "suites/planner/measure/measure_links.hpp"
#include "suites/planner/measure/measure_process.hpp"
#include "suites/planner/measure/pace.hpp"
#include "suites/planner/measure/rates.hpp"
#include "suites/planner/prediction.hpp"
#include "suites/run/machine_memory.hpp"

namespace lockstep {
namespace {

// A device's share of its machine: as many ranks as there are devices live there.
void describe(const MeasureHow& how, Cluster& c) {
  const int cores = lockstep::cores(), gpus = how.accelerator ? how.accelerator->devices() : 0;
  const int ranks = gpus ? gpus : std::max(1, cores / how.threads);
  c.weight_bytes = c.activation_bytes = how.bf16 ? 2 : 4;
  c.gradient_bytes = 4;
  c.host_memory = static_cast<double>(machine_bytes()) / ranks;
  if (how.accelerator) {
    c.name = how.accelerator->name();
    c.devices = c.per_node = 1;  // of what joins several nothing is known
  } else {
    c.name = fmt::format("this machine, {} core{}", cores, cores > 1 ? "s" : "");
    c.devices = c.per_node = ranks;
    c.memory = c.host_memory;
  }
}

// Rates as parts of the fastest of all.
void relate(Cluster& c, const std::map<std::string, Curve>& rates) {
  for (const auto& [name, grid] : c.grids)
    c.flops = std::max(c.flops, *std::max_element(grid.rates.begin(), grid.rates.end()));
  for (const auto& [name, curve] : rates) c.memory_bandwidth = std::max(c.memory_bandwidth, highest(curve));
  for (const auto& [name, curve] : rates) c.efficiency[name] = times(curve, 1 / c.memory_bandwidth);
  c.efficiency["rows"] = c.efficiency.at("add");
}

// What AdamW reaches in the host's memory, on a rank's share of its cores.
double host_bandwidth(MeasureHow how, Measurements& notes) {
  how.accelerator = nullptr, how.stored.clear(), how.most = MeasureHow{}.most;
  const std::size_t from = notes.size();
  const Curve rates = measure_rows("adamw", how, notes);
  for (std::size_t i = from; i < notes.size(); ++i) notes[i].what = "host kernel";
  return rates.points().back().second;
}

// Kernels are given to a device one by one, and none takes less than that.
double dispatch(const Measurements& notes) {
  double least = std::numeric_limits<double>::infinity();
  for (const Measurement& m : notes)
    if (m.what == "kernel") least = std::min(least, m.sample.seconds);
  return least;
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

std::vector<MeasureStep> measure_steps(const MeasureHow& asked, Calibration& into) {
  const auto shared = std::make_shared<MeasureHow>(asked);  // what the steps look at
  MeasureHow& how = *shared;
  Cluster& c = into.cluster;
  Measurements& notes = into.notes;
  const bool gpu = how.accelerator;
  describe(how, c);
  how.stored = stored_operands(settings_on(c, {}));
  if (gpu && !how.quick) {
    how.near = how.far = 512e6;  // what its caches hold several times over
    // A bench has room for that twice: for what is read, and for what is written.
    how.most = std::min(i64{3} << 29, how.accelerator->free_bytes() / i64{sizeof(float)} / 4);
  }
  std::vector<MeasureStep> steps;
  const auto add = [&](const std::string& what, double share, std::function<void(const MeasureHow&)> run) {
    steps.push_back({what, share, [shared, run = std::move(run)] { run(*shared); }});
  };
  const auto rates = std::make_shared<std::map<std::string, Curve>>();
  if (gpu) {
    add("memory", 0.5, [&](const MeasureHow& h) { measure_device_memory(h, c, notes); });
  } else {
    add("process", 1, [&](const MeasureHow& h) { measure_process(h, c, notes); });
    add("pace", 0.5, [&](const MeasureHow& h) { c.pace = measure_pace(h.isa); });
  }
  for (const char* name : {"matmul", "matmul_dx", "matmul_dw", "attention", "attention_dx"})
    add(name, name[0] == 'm' ? 20 : 4,
        [&, name](const MeasureHow& h) { c.grids[name] = measure_grid(name, h, notes); });
  for (const std::string& name : kernel_names_and_classes())
    if (measured_by_rows(name))
      add(name, gpu ? 2 : 0.5,
          [&, name, rates](const MeasureHow& h) { (*rates)[name] = measure_rows(name, h, notes); });
  if (gpu) {
    add("host", 2, [&, rates](const MeasureHow& h) {
      relate(c, *rates);
      c.dispatch = dispatch(notes);
      c.host_bandwidth = host_bandwidth(h, notes);
    });
    add("under load", 3, [&](const MeasureHow& h) {
      c.crowd["matmul"] = Curve({{1, measure_sustained(c.grids.at("matmul"), h, notes)}});
    });
    add("copies", 2, [&](const MeasureHow& h) { measure_device_copies(h, c, notes); });
  } else {
    add("ranks at once", 2, [&, rates](const MeasureHow& h) {
      relate(c, *rates);
      c.host_bandwidth = rates->at("adamw").points().back().second;
      crowd(h, into);
    });
    if (c.devices > 1) add("messages", 2, [&](const MeasureHow& h) { measure_messages(h, c, notes); });
    add("copies", 1, [&](const MeasureHow& h) { measure_copies(h, c, notes); });
  }
  add("disk", 1, [&](const MeasureHow& h) { measure_disk(h, c, notes); });
  if (gpu) add("context", 0.1, [&](const MeasureHow& h) { measure_device_context(h, c, notes); });
  return steps;
}

}  // namespace lockstep
