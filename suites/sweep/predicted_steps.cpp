#include "suites/sweep/predicted_steps.hpp"

#include <fmt/format.h>

#include <cmath>

#include "ref/error.hpp"
#include "suites/planner/compose.hpp"
#include "suites/settings_list.hpp"
#include "suites/toml_file.hpp"

namespace lockstep {

Cluster cluster_of_sweep(const std::string& path, const Settings& s) {
  const Cluster c = load_cluster(path);
  check_can_be_kept(cluster_file(path));
  if (c.weight_bytes != s.weight_bytes || c.gradient_bytes != s.gradient_bytes ||
      c.activation_bytes != s.activation_bytes)
    throw UserError(fmt::format(
        "{}: its devices hold weights, gradients and activations of {}, {} and {} bytes, and the "
        "suite's are of {}, {} and {}; take a file that `lockstep calibrate --dtype {}` made here",
        path, c.weight_bytes, c.gradient_bytes, c.activation_bytes, s.weight_bytes, s.gradient_bytes,
        s.activation_bytes, dtype_of(s)));
  return c;
}

void predict_steps(std::vector<PlanRecord>& plans, const Suite& suite, const ModelConfig& model,
                   const Cluster& cluster) {
  struct Batch {
    Settings settings;
    Composer composer;
    Batch(const Settings& s, const ModelConfig& m, const Cluster& c)
        : settings(settings_on(c, s)), composer(m, settings, c) {}
  };
  std::map<i64, Batch> batches;  // in weak scaling there are several
  for (PlanRecord& p : plans) {
    p.predicted_seconds = kNotTimed;
    if (!p.timed || p.ranks > cluster.devices) continue;
    const Plan plan = Plan::parse(p.plan);
    const Settings settings = suite.settings_of(plan);
    const auto batch = batches.try_emplace(settings.batch, settings, model, cluster).first;
    const double seconds = batch->second.composer.predict(plan).seconds;
    if (std::isfinite(seconds) && seconds > 0) p.predicted_seconds = seconds;
  }
}

}  // namespace lockstep
