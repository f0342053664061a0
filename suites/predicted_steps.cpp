#include "suites/predicted_steps.hpp"

#include <fmt/format.h>

#include <cmath>

#include "ref/error.hpp"
#include "suites/planner/compose.hpp"
#include "suites/toml_file.hpp"

namespace lockstep {

Cluster cluster_of_sweep(const std::string& path) {
  const Cluster c = load_cluster(path);
  check_can_be_kept(cluster_file(path));
  if (c.weight_bytes != 4 || c.gradient_bytes != 4 || c.activation_bytes != 4)
    throw UserError(fmt::format(
        "{}: its devices hold numbers of 2 bytes, and a sweep computes in float32; take a file that "
        "`lockstep calibrate` made here",
        path));
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
