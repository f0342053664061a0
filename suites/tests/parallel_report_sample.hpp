// Made-up runs that look like a real sweep, for the tests of the reports. No number in them was measured.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "reports/record.hpp"

namespace lockstep {

struct SampleSize {
  i64 layers = 4, hidden = 128, vocab = 2048, batch = 8, seq = 64;
  int cores = 2;
};

// A made-up simulated step: each stage forward, idle, backward, update; a message in between.
inline void sample_step(PlanRecord& p, int pp, const std::string& schedule) {
  p.simulated_seconds = (schedule == "gpipe" ? 0.012 : 0.01) * (1 + 0.5 * (pp - 1)) / p.ranks;
  p.simulated = {{"compute", 0.7 * p.simulated_seconds},
                 {"update", 0.1 * p.simulated_seconds},
                 {"pp", pp > 1 ? 0.05 * p.simulated_seconds : 0},
                 {"bubble", (pp > 1 ? 0.15 : 0.2) * p.simulated_seconds}};
  p.timeline = "{\"seconds\":" + std::to_string(p.simulated_seconds) +
               ",\"passes\":[\"forward\",\"backward\",\"update\"],\"streams\":[";
  for (int stage = 0; stage < pp; ++stage) {
    const std::string late = std::to_string(1000 * stage), rank = std::to_string(stage * p.ranks / pp);
    p.timeline += (stage ? ",[" : "[") + rank + ",\"compute\",[" + late +
                  ",3000,0,0,0,5000,4000,1,0,0,9000,1000,2,-1,-1]]";
    if (pp > 1) p.timeline += ",[" + rank + ",\"pp\",[3000,500,0,0,0]]";
  }
  p.timeline += "]}";
}

// One plan of the sample; sizes and times follow the usual formulas roughly, so that pictures look natural.
inline PlanRecord sample_plan(const SampleSize& size, int dp, int tp, int pp, int zero,
                              const std::string& ckpt, const std::string& schedule, int micro, int number) {
  PlanRecord p;
  p.words = {{"dp", std::to_string(dp)},
             {"tp", std::to_string(tp)},
             {"pp", std::to_string(pp)},
             {"zero", std::to_string(zero)},
             {"ckpt", ckpt},
             {"schedule", schedule},
             {"micro", std::to_string(micro)}};
  p.plan = "dp=" + std::to_string(dp) + " tp=" + std::to_string(tp) + " pp=" + std::to_string(pp);
  if (ckpt != "none") p.plan += " ckpt=" + ckpt;
  if (micro != 1) p.plan += " micro=" + std::to_string(micro);
  if (schedule != "1f1b") p.plan += " schedule=" + schedule;
  if (zero != 0) p.plan += " zero=" + std::to_string(zero);
  p.ranks = dp * tp * pp;
  p.numbers = p.messages = p.memory = p.fast = "pass";
  p.hash = "8c1f0a92d4e65b37";
  for (int step = 0; step < 4; ++step) {
    p.loss.push_back(std::log(static_cast<double>(size.vocab)) - 0.21 * step + 0.02 * step * step);
    p.grad_norm.push_back(2.4 - 0.3 * step);
  }
  p.tokens_per_step = size.batch * size.seq;
  const i64 parameters = 2 * size.vocab * size.hidden + size.layers * 11 * size.hidden * size.hidden;
  const i64 mine = 4 * parameters / (tp * pp);
  p.peak_by_kind["weights"] = zero >= 3 ? mine / dp + mine / 8 : mine;
  p.peak_by_kind["gradients"] = zero >= 2 ? mine / dp + mine / 8 : mine;
  p.peak_by_kind["optimizer"] = 2 * mine / (zero >= 1 ? dp : 1);
  const i64 held = std::min<i64>(size.batch / dp / micro, schedule == "1f1b" ? pp : size.batch);
  const i64 layer = micro * size.seq * size.hidden * 4 * 15 / tp;
  const i64 kept = ckpt == "full" ? layer / 12 : ckpt == "selective" ? layer / 2 : layer;
  p.peak_by_kind["activations"] = held * (size.layers / pp) * kept + layer;
  p.peak_by_kind["buffers"] = micro * size.seq * size.vocab * 8 / tp + (dp > 1 ? mine / 16 : 0);
  for (const auto& [kind, bytes] : p.peak_by_kind) p.peak_bytes += bytes;
  p.peak_bytes -= p.peak_by_kind["buffers"] / 3;  // kinds peak at different times
  p.arena_bytes = p.peak_bytes + p.peak_bytes / 40;
  p.exact_peak_bytes = p.peak_bytes + (i64{1} << 16), p.fast_worst = 0.25, p.wall_seconds = 1.5;
  p.resident_bytes = p.ranks * p.arena_bytes + (i64{9} << 20);
  const i64 microbatches = size.batch / dp / micro;
  if (dp > 1) p.traffic["dp"] = {(zero >= 2 ? 2 : 1) * size.layers * p.ranks, 2 * mine * (dp - 1) * tp * pp};
  if (tp > 1)
    p.traffic["tp"] = {4 * size.layers * microbatches * p.ranks,
                       4 * size.layers * size.batch * size.seq * size.hidden * 4 * (tp - 1)};
  if (pp > 1)
    p.traffic["pp"] = {2 * microbatches * (pp - 1) * dp * tp,
                       2 * (pp - 1) * size.batch * size.seq * size.hidden * 4};
  p.timed = p.ranks * p.threads <= size.cores;
  if (p.timed) {
    double seconds = 0.21 / std::min(p.ranks, size.cores);
    seconds *= ckpt == "full" ? 1.31 : ckpt == "selective" ? 1.08 : 1;
    seconds *= 1 + 0.12 / micro + 0.1 * (tp - 1) + 0.22 * (pp - 1) + 0.03 * zero;
    for (int i = 0; i < 5; ++i) p.step_seconds.push_back(seconds * (1 + 0.01 * ((number * 7 + i * 3) % 5)));
    p.step_seconds[2] *= 1.5;  // one slow step, which a median passes over
    p.median_spread = 0.03;
  }
  sample_step(p, pp, schedule);
  return p;
}

inline RunRecord sample_run(std::size_t plans = 100, const SampleSize& size = {}) {
  RunRecord run;
  run.suite = "sample";
  run.model = "llama-2m (made up)";
  run.model_hash = "51b0c7de00aa4413";
  run.data = "tiny stories (made up)";
  run.data_hash = "e8f2103377bb90cd";
  run.seed = 1;
  run.batch = size.batch;
  run.seq = size.seq;
  run.steps = 4;
  run.parameters = 2 * size.vocab * size.hidden + size.layers * 11 * size.hidden * size.hidden;
  describe_machine(run);
  run.cores = size.cores;
  run.isa = "avx2";
  run.device = "cuda";
  run.simulated_with = "made-up rates";
  run.refused = {{"tp-divides-heads", 12}, {"zero-needs-dp", 30}, {"pp-divides-layers", 6}};
  run.hash = run.reference_hash = "8c1f0a92d4e65b37";
  for (int dp : {1, 2, 4, 8})
    for (int tp : {1, 2, 4})
      for (int pp : {1, 2})
        for (const char* ckpt : {"none", "full", "selective"})
          for (int zero : {0, 1, 2, 3})
            for (const char* schedule : {"1f1b", "gpipe"})
              for (int micro : {1, 2}) {
                const int number = static_cast<int>(run.plans.size());
                const bool plain = dp * tp * pp <= 2;
                if (dp * tp * pp > 8 || (dp == 1 && zero) || (pp == 1 && std::string(schedule) != "1f1b"))
                  continue;
                if (micro * dp > size.batch || run.plans.size() >= plans) continue;
                if (!plain && (dp + 3 * tp + zero + micro) % 4 != 0) continue;  // a thinned-out sweep
                run.plans.push_back(sample_plan(size, dp, tp, pp, zero, ckpt, schedule, micro, number));
              }
  run.verdict =
      "VALID: " + std::to_string(run.plans.size()) + " plans, one hash " + run.hash + ", 48 refused by rule";
  return run;
}

}  // namespace lockstep
