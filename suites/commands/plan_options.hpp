// What `lockstep plan` is asked for.
#pragma once
#include <string>

#include "suites/planner/measure/check_times.hpp"

namespace CLI {
class App;
}

namespace lockstep {

struct PlanOptions {
  // Disks are considered where they are asked for.
  static constexpr const char* usual_words = "to=host activations=device,host";

  std::string model, cluster, explain, system, out, events, device = "cpu", words = usual_words;
  i64 devices = 0;
  int top = 5, gradient_bytes = 0;
  bool pareto = false, fit = false, markdown = false, check = false, at_pace = false, kernels = false,
       json = false, as_llama = false;
  CheckHow how;
  Settings settings;
};

void add_plan_options(CLI::App&, PlanOptions&);
// UserError: an option that what is asked for does not listen to.
void check_plan_options(const CLI::App&);

}  // namespace lockstep
