// A plan's record between processes: CBOR (RFC 8949), which keeps every bit of a number, NaN and infinity
// too.
#include <nlohmann/json.hpp>

#include "reports/plan_columns.hpp"

namespace lockstep {

using json = nlohmann::json;

void to_json(json& j, const AxisTraffic& t) { j = {t.messages, t.bytes}; }
void from_json(const json& j, AxisTraffic& t) { j.at(0).get_to(t.messages), j.at(1).get_to(t.bytes); }

std::string bytes_of(const PlanRecord& plan) {
  json object{{"words", plan.words},
              {"peak_by_kind", plan.peak_by_kind},
              {"traffic", plan.traffic},
              {"simulated", plan.simulated}};
  each_column([&](const char* name, auto field) { object[name] = plan.*field; });
  std::string bytes;
  json::to_cbor(object, bytes);
  return bytes;
}

PlanRecord plan_of(const std::string& bytes) {
  PlanRecord plan;
  const json object = json::from_cbor(bytes);
  object.at("words").get_to(plan.words);
  object.at("peak_by_kind").get_to(plan.peak_by_kind);
  object.at("traffic").get_to(plan.traffic);
  object.at("simulated").get_to(plan.simulated);
  each_column([&](const char* name, auto field) { object.at(name).get_to(plan.*field); });
  return plan;
}

}  // namespace lockstep
