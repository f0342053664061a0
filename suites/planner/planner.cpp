#include "suites/planner/planner.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <sstream>

#include "ref/error.hpp"

namespace lockstep {

Choices choose(const ModelConfig& model, const Settings& settings, const Cluster& cluster,
               const Values& given) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Choices all;
  Composer composer(model, settings, cluster);
  const std::array<double, 3> available = has(cluster);
  const Values values = plan_values(model, settings, cluster.devices, given);
  all.walked = each_legal_plan(model, settings, cluster.devices, values, [&](const Plan& plan) {
    const Prediction p =
        composer.weigh(plan, all.misfits ? all.least : std::numeric_limits<double>::infinity());
    const Weighed w{plan.line(), p.seconds, needs(p, cluster, Run{model, settings, plan}.mesh())};
    if (const double lack = lacks(w.needs, available); lack > 0) {
      if (++all.misfits == 1 || lack < all.least) all.closest = w, all.least = lack;
      all.most = std::max(all.most, lack);
      return;
    }
    for (const auto& [word, candidates] : values) {
      if (candidates.size() < 2) continue;
      const auto [it, fresh] = all.best[word].try_emplace(plan.text(word), w);
      if (!fresh && w.seconds < it->second.seconds) it->second = w;
    }
    all.fit.push_back(w);
  });
  std::stable_sort(all.fit.begin(), all.fit.end(),
                   [](const Weighed& a, const Weighed& b) { return a.seconds < b.seconds; });
  all.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return all;
}

Values parse_values(const std::string& text) {
  Values values;
  Plan probe = Plan::parse("");
  std::istringstream in(text);
  for (std::string item; in >> item;) {
    const std::size_t eq = item.find('=');
    if (eq == std::string::npos)
      throw UserError("words: `" + item + "` should read word=value,value, such as zero=0,1");
    const std::string word = item.substr(0, eq);
    std::istringstream list(item.substr(eq + 1));
    for (std::string value; std::getline(list, value, ',');) {
      probe.set(word, value);
      values[word].push_back(probe.text(word));
    }
    if (values[word].empty()) throw UserError("words: `" + item + "` names no value");
  }
  return values;
}

double model_flops(const ModelConfig& m, const Settings& s) {
  const double D = static_cast<double>(m.hidden), L = static_cast<double>(m.layers);
  const double heads = static_cast<double>(m.heads * m.head_dim),
               kv = static_cast<double>(m.kv_heads * m.head_dim);
  const double layer = D * (2 * heads + 2 * kv) + 3 * D * static_cast<double>(m.intermediate);
  const double weights = L * layer + D * static_cast<double>(m.vocab);
  const double tokens = static_cast<double>(s.batch * s.seq);
  return tokens * (6 * weights + 6 * L * heads * static_cast<double>(s.seq));
}

}  // namespace lockstep
