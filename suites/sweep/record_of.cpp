#include "suites/sweep/record_of.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "suites/settings_list.hpp"
#include "suites/timing/nominal_costs.hpp"

namespace lockstep {
namespace {

// What a plan's own line says.
PlanRecord named(const Plan& p, int threads) {
  PlanRecord plan;
  plan.plan = p.line(), plan.words = p.words();
  plan.ranks = p.ranks(), plan.threads = threads;
  return plan;
}

// Everything that the initial weights are a function of.
std::string model_hash(const ModelConfig& m, i64 seed) {
  const RopeScaling& r = m.rope_scaling;
  const std::string text = fmt::format(
      "llama vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} max_position={} "
      "theta={} "
      "eps={} std={} tied={} rope={} {} {} {} {} seed={}",
      m.vocab, m.hidden, m.intermediate, m.layers, m.heads, m.kv_heads, m.head_dim, m.max_position,
      m.rope_theta, m.rms_eps, m.init_std, m.tied, static_cast<int>(r.kind), r.factor, r.low_freq_factor,
      r.high_freq_factor, r.original_max_position, seed);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

// All gates of fast mode in one word, or the first that failed and why.
std::string first_complaint(const FastVerdict& v) {
  for (const auto& [gate, found] :
       {std::pair{"numbers", &v.numbers}, {"messages", &v.messages}, {"memory", &v.memory}})
    if (*found != "pass" && *found != "not run") return fmt::format("{}: {}", gate, *found);
  return v.pass() ? "pass" : "not run";
}

}  // namespace

RunRecord record_of(const Suite& suite, const ModelConfig& model, const TokenFile& data) {
  RunRecord run;
  describe_machine(run);
  run.simulated_with = nominal_text();
  run.suite = suite.name, run.model = suite.model, run.data = suite.data;
  run.model_hash = model_hash(model, suite.settings.seed);
  run.data_hash = data.hash();
  run.dtype = dtype_of(suite.settings);
  run.seed = suite.settings.seed, run.batch = suite.settings.batch;
  run.seq = suite.settings.seq, run.steps = suite.settings.steps;
  for (const Param& p : parameter_table(model, suite.settings.leaves))
    if (p.tied_to < 0) run.parameters += p.count();
  return run;
}

PlanRecord record_of(const Prepared* exact, const Verdict& verdict, const Prepared& p,
                     const FastVerdict& fast, int threads) {
  PlanRecord plan = named(p.run.plan, threads);
  plan.numbers = verdict.numbers, plan.messages = verdict.messages, plan.memory = verdict.memory;
  plan.fast = first_complaint(fast), plan.fast_worst = fast.worst, plan.fast_where = fast.where;
  plan.status = (verdict.pass() || !exact) && fast.pass() ? "ok"
                : verdict.numbers.starts_with("ended: ")  ? "crashed"
                                                          : "failed";
  plan.hash = verdict.hash;
  for (const Whole::Step& s : verdict.whole.steps)
    plan.loss.push_back(s.loss), plan.grad_norm.push_back(s.grad_norm);
  plan.tokens_per_step = p.run.settings.batch * p.run.settings.seq;
  for (int rank = 0; rank < p.mesh.size(); ++rank) {
    const Peaks traced = peaks(p.traces[rank]);
    for (int k = 0; k < static_cast<int>(Kind::count); ++k) {
      i64& most = plan.peak_by_kind[kind_name(static_cast<Kind>(k))];
      most = std::max(most, traced.by_kind[k]);
    }
    plan.peak_bytes = std::max(plan.peak_bytes, traced.total);
    if (exact) plan.exact_peak_bytes = std::max(plan.exact_peak_bytes, peaks(exact->traces[rank]).total);
    plan.arena_bytes =
        std::max(plan.arena_bytes, p.layout(rank, Medium::device).bytes + p.layout(rank, Medium::host).bytes);
  }
  plan.traffic = traffic(p, 0, p.mesh.size());
  return plan;
}

PlanRecord record_of(const Plan& p, const Answer& answer, int threads) {
  PlanRecord plan = named(p, threads);
  plan.status = answer.end == Answer::End::timeout         ? "timeout"
                : answer.end == Answer::End::out_of_memory ? "out of memory"
                                                           : "crashed";
  plan.ended = answer.text;
  plan.numbers = plan.messages = plan.memory = plan.fast = "not run";
  return plan;
}

std::map<std::string, AxisTraffic> traffic(const Prepared& p, int first_rank, int ranks) {
  std::map<std::string, AxisTraffic> by_axis;
  for (int rank = first_rank; rank < first_rank + ranks; ++rank)
    for (const Posted& m : p.posted[rank]) {
      if (m.verb == Verb::recv || p.mesh.group(m.axis, rank).size() == 1) continue;
      AxisTraffic& axis = by_axis[axis_name(m.axis)];
      ++axis.messages;
      axis.bytes += m.elements * type_bytes(m.type);
    }
  return by_axis;
}

}  // namespace lockstep
