// What a plan's record is made of, by name: one list for writing and reading, in files and between processes.
#pragma once
#include "reports/record.hpp"

namespace lockstep {

// Calls column(name, pointer to the field) for every field but the maps.
template <class Visitor>
void each_column(Visitor&& column) {
  column("plan", &PlanRecord::plan);
  column("status", &PlanRecord::status);
  column("ended", &PlanRecord::ended);
  column("numbers", &PlanRecord::numbers);
  column("messages", &PlanRecord::messages);
  column("memory", &PlanRecord::memory);
  column("fast", &PlanRecord::fast);
  column("fast_worst", &PlanRecord::fast_worst);
  column("fast_where", &PlanRecord::fast_where);
  column("hash", &PlanRecord::hash);
  column("ranks", &PlanRecord::ranks);
  column("threads", &PlanRecord::threads);
  column("hosts", &PlanRecord::hosts);
  column("timed", &PlanRecord::timed);
  column("tokens_per_step", &PlanRecord::tokens_per_step);
  column("tokens_per_second", &PlanRecord::tokens_per_second);
  column("median_spread", &PlanRecord::median_spread);
  column("wall_seconds", &PlanRecord::wall_seconds);
  column("peak_bytes", &PlanRecord::peak_bytes);
  column("exact_peak_bytes", &PlanRecord::exact_peak_bytes);
  column("arena_bytes", &PlanRecord::arena_bytes);
  column("resident_bytes", &PlanRecord::resident_bytes);
  column("loss", &PlanRecord::loss);
  column("grad_norm", &PlanRecord::grad_norm);
  column("step_seconds", &PlanRecord::step_seconds);
  column("predicted_seconds", &PlanRecord::predicted_seconds);
  column("simulated_seconds", &PlanRecord::simulated_seconds);
  column("timeline", &PlanRecord::timeline);
  column("measured_timeline", &PlanRecord::measured_timeline);
}

}  // namespace lockstep
