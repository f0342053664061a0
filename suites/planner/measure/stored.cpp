#include "suites/planner/measure/stored.hpp"

#include "suites/planner/cost_model.hpp"
#include "suites/planner/measure/small_model.hpp"

namespace lockstep {

StoredOperands stored_operands(const Settings& settings) {
  StoredOperands stored;
  std::map<std::string, double> moved;
  Run run{small_model(), settings, {}, nullptr};
  run.settings.batch = 4, run.settings.seq = 64;
  // Between them they have every kernel: the second exchanges heads for tokens, and shares key/value heads.
  for (const char* line : {"dp=2 tp=2 sp=1 zero=2 ckpt=norms micro=1", "tp=4 cp=2"}) {
    run.plan = Plan::parse(line);
    std::set<std::string> names;
    for (const Trace::Event& e : trace_rank(run, 0, names).events) {
      if (e.what != Trace::Event::run) continue;
      const double number_bytes = bytes_of_a_number(e);
      const double bytes = work_of(e.name, e.numbers, 1).bytes * number_bytes;
      if (bytes > moved[e.name]) moved[e.name] = bytes, stored[e.name] = {e.halves, number_bytes};
    }
  }
  return stored;
}

}  // namespace lockstep
