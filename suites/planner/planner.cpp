#include "suites/planner/planner.hpp"

#include <set>
#include <sstream>

#include "ref/error.hpp"

namespace lockstep {

std::vector<const Weighed*> distinct(const Choices& c) {
  std::vector<const Weighed*> list;
  std::set<Weighed::Foretold> known;
  for (const Weighed& w : c.fit)
    if (known.insert(w.foretold()).second) list.push_back(&w);
  return list;
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

Plan fastest_here(const ModelConfig& model, const Settings& settings, const Cluster& cluster) {
  Wanted wanted;
  wanted.top = 1, wanted.by_value = false;
  wanted.usable = [&](const Plan& plan) { return !refuse(plan, model, settings); };
  Values given = parse_values("to=host activations=device,host");
  if (!settings.fast) given["cp"] = {std::to_string(settings.segments)};  // no other is usable
  const Choices c = choose(model, settings_on(cluster, settings), cluster, given, wanted);
  if (!c.fit.empty()) return Plan::parse(c.fit.front().plan);
  check_any_legal(c.walked, settings, cluster.devices,
                  plan_values(model, settings, cluster.devices, given, cluster.per_node));
  throw UserError("plan=auto: none of " + std::to_string(c.walked.legal) + " plans fits " + cluster.name);
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
