#include "suites/planner/measure/measure_device.hpp"

#include <algorithm>

#include "suites/planner/measure/rates.hpp"

namespace lockstep {
namespace {

Measurement held(const char* name, double bytes) {
  Sample sample;
  sample.seconds = bytes, sample.calls = 1;
  return {"memory", name, "", 1, bytes, sample};
}

}  // namespace

std::unique_ptr<Engine> engine_of(const MeasureHow& how) {
  return how.accelerator ? how.accelerator->engine(0, cpu_ops(how.isa), true) : nullptr;
}

void measure_device_memory(const MeasureHow& how, Cluster& c, Measurements& notes) {
  const auto free = [&] { return static_cast<double>(how.accelerator->free_bytes()); };
  c.memory = free();
  const std::unique_ptr<Engine> engine = engine_of(how);
  c.workspace = std::max(0.0, c.memory - free());
  notes.push_back(held("free", c.memory));
  notes.push_back(held("engine", c.workspace));
}

void measure_device_context(const MeasureHow& how, Cluster& c, Measurements& notes) {
  c.context = std::max(0.0, c.memory - static_cast<double>(how.accelerator->free_bytes()));
  notes.push_back(held("context", c.context));
}

void measure_device_copies(const MeasureHow& how, Cluster& c, Measurements& notes) {
  const std::unique_ptr<Engine> engine = engine_of(how);
  const i64 most = how.quick ? i64{1} << 16 : i64{1} << 28;
  void* const there = engine->allocate(Medium::device, most);
  void* const here = engine->allocate(Medium::host, most);
  const std::size_t from = notes.size();
  for (i64 bytes = 256; bytes <= most; bytes *= how.quick ? 64 : 4)
    for (const auto& [name, to, source] : {std::tuple{"down", here, there}, {"up", there, here}}) {
      const Sample s = sample(
          [&] {
            engine->begin_copy(0, to, source, bytes);
            engine->end_copy(0);
          },
          5, 5e-3);
      notes.push_back({"copy", name, std::to_string(bytes), 1, static_cast<double>(bytes), s});
    }
  set_rates(c.host, rates_of(notes, from, "copy"));
}

}  // namespace lockstep
