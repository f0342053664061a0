#include "suites/planner/answer/plan_json.hpp"

#include <nlohmann/json.hpp>

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

Json bytes_of(const std::array<double, 3>& needs) {
  Json bytes;
  for (std::size_t m = 0; m < needs.size(); ++m) bytes[kMedia[m]] = static_cast<i64>(needs[m]);
  return bytes;
}

Json short_of(const std::string& plan, double seconds, const std::array<double, 3>& needs,
              const Question& q) {
  return {{"plan", plan},
          {"step_seconds", seconds},
          {"tokens_per_second", tokens_per_second(q, seconds)},
          {"of_peak", of_peak(q, seconds)},
          {"bytes", bytes_of(needs)}};
}
Json short_of(const Weighed& w, const Question& q) { return short_of(w.plan, w.seconds, w.needs, q); }

Json full_of(const std::string& plan, const Question& q) {
  const Prediction p = predicted(plan, q);
  const Held held = held_by(plan, p, q);
  Json j = short_of(plan, p.seconds, held.needs, q);
  j["fits"] = lacks(held.needs, has(q.cluster)) <= 0;
  j["seconds_by_kind"] = Json::object();
  for (const auto& [kind, seconds] : time_by_kind(p)) j["seconds_by_kind"][kind] = seconds;
  j["peak_bytes_by_kind"] = Json::object();
  for (std::size_t k = 0; k < held.kinds.size(); ++k)
    if (held.kinds[k]) j["peak_bytes_by_kind"][kind_name(static_cast<Kind>(k))] = held.kinds[k];
  return j;
}

Json asked(const Question& q) {
  return {{"cluster", q.cluster.name},       {"devices", q.cluster.devices},
          {"batch", q.settings.batch},       {"seq", q.settings.seq},
          {"device_flops", q.cluster.flops}, {"has_bytes", bytes_of(has(q.cluster))}};
}

}  // namespace

std::string json_of(const Choices& c, const Question& q, std::size_t top, bool pareto) {
  Json j = asked(q);
  j["legal"] = c.walked.legal, j["fit"] = c.fitting, j["refused"] = c.walked.refused;
  if (c.closest)
    j["closest_misfit"] = {{"plan", c.closest->plan}, {"lacks_bytes", static_cast<i64>(c.least)}};
  const std::vector<const Weighed*> plans = distinct(c);
  j["plans"] = Json::array(), j["alike"] = Json::array();
  for (std::size_t i = 0; i < std::min(top, plans.size()); ++i)
    j["plans"].push_back(full_of(plans[i]->plan, q));
  for (const Weighed* w : alike(c)) j["alike"].push_back(short_of(*w, q));
  if (pareto) j["pareto"] = Json::array();
  if (pareto)
    for (const Weighed* w : front(c)) j["pareto"].push_back(short_of(*w, q));
  return j.dump(2);
}

std::string json_of(const std::string& plan, const Question& q) {
  Json j = asked(q);
  j["plans"] = Json::array({full_of(plan, q)});
  return j.dump(2);
}

std::string json_of(const std::vector<Fit>& rows, const Question& q) {
  Json j = asked(q);
  j["on"] = Json::array();
  for (const Fit& f : rows) {
    Cluster cluster = q.cluster;
    cluster.devices = f.devices;
    const Question on{q.model, q.settings, cluster};
    Json row = {{"devices", f.devices}, {"legal", f.legal}, {"fit", f.fit}};
    row["best"] = f.best ? short_of(*f.best, on) : Json();
    row["on_devices_alone"] = f.alone ? short_of(*f.alone, on) : Json();
    j["on"].push_back(row);
  }
  return j.dump(2);
}

}  // namespace lockstep
