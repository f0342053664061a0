#include "suites/mutants/stage.hpp"

namespace lockstep {

Stage::Stage(const TokenFile& text, bool tied, int segments, i64 seed)
    : model(load_model_config("suites/models/gate-mutants.json")), data(text) {
  model.tied = tied;
  settings.batch = 12, settings.seq = 16, settings.steps = 3, settings.seed = seed;
  settings.segments = segments;
  settings.clip = 0.5;  // below the gradient's norm: clipping acts
  initial = fresh_weights(model, settings);
  reference = reference_run(model, settings, data, "auto", 1, initial);
  float64 = fast_reference(model, settings, data, reference, initial);
}

lockstep::Run Stage::run(const std::string& plan, bool fast) const {
  lockstep::Run run{model, settings, Plan::parse(plan), &data};
  run.settings.fast = fast;
  return run;
}

// Every value of every word, every store with every place to offload to, sums that microbatches end in the
// middle of, shards with pads, key/value heads on one rank and on two.
const std::vector<StagedPlan>& staged_plans() {
  static const std::vector<StagedPlan> plans = {
      {"micro=2", true},
      {"dp=2 tp=2 pp=2 bucket=2", true},
      {"tp=4 sp=1 micro=2 ckpt=selective", true},
      {"dp=2 tp=4 sp=1 zero=1 micro=3", true},
      {"dp=4 zero=1 offload=optimizer", true},
      {"zero=2 micro=4", true},
      {"dp=2 zero=2 micro=2 ckpt=attention", true},
      {"dp=4 zero=3 pp=2 ckpt=full", true},
      {"dp=2 tp=2 zero=3 micro=3 schedule=gpipe", true},
      {"dp=4 zero=1 replicas=2 micro=3", true},
      {"dp=4 zero=3 replicas=2 pp=2", true},
      {"pp=4 schedule=gpipe micro=2", true},
      {"dp=2 pp=2 schedule=interleaved virtual=2 ckpt=norms", true},
      {"pp=4 schedule=zero-bubble ckpt=swiglu every=2", true},
      {"tp=2 pp=2 sp=1 schedule=zero-bubble micro=3", true},
      {"cp=2 micro=3", true},
      {"cp=2 dp=2 zero=2 micro=2 ckpt=attention", true},
      {"cp=2 dp=2 pp=2 zero=3 replicas=2 ckpt=full", true},
      {"cp=2 pp=2 schedule=zero-bubble activations=host", true},
      {"cp=2 tp=2 sp=1 micro=2", true},
      {"offload=weights to=disk activations=disk micro=4", true},
      {"dp=2 zero=3 offload=weights activations=host micro=2", true},
      {"dp=2 tp=2 zero=1 offload=optimizer to=disk ckpt=full every=2", true},
      {"dp=2 zero=2 offload=weights to=disk micro=3", true},
      {"dp=2 pp=2 zero=3", false},
      {"tp=2 pp=3 micro=4", false},
  };
  return plans;
}

std::vector<GateVerdict> judge_traces(const Prepared& p) {
  std::vector<GateVerdict> found;
  found.push_back({"deadlock", p.deadlock.empty() ? "pass" : judge_messages(p, p.posted)});
  const std::string waits = never_waited_for(p);
  found.push_back({"waits", waits.empty() ? "pass" : waits});
  // The messages gate says one thing, the first: here each for itself.
  const std::string messages = p.deadlock.empty() ? judge_messages(p, p.posted) : "not run";
  if (messages.find(": work: ") == std::string::npos) found.push_back({"messages", messages});
  found.push_back({"work", judge_work(p)});
  found.push_back({"memory", judge_memory(p, {})});
  return found;
}

std::vector<GateVerdict> judge_exactly(const Prepared& p, const Stage& stage) {
  GateOptions options;
  options.fresh = true;
  const Verdict v = judge(p, stage.reference, options, stage.initial);
  const bool guarded = v.numbers.find("guarded") != std::string::npos, ended = v.numbers.starts_with("ended");
  const bool work = v.messages.find(": work: ") != std::string::npos;
  return {{guarded ? "guarded"
           : ended ? "ended"
                   : "numbers",
           v.numbers},
          {work ? "work" : "messages", v.messages},
          {"memory", v.memory}};
}

std::vector<GateVerdict> judge_fast_mode(const Stage& stage, const std::string& plan) {
  const Prepared p = prepare(stage.run(plan, true));
  const FastVerdict v = judge_fast(p, stage.reference, stage.float64, {}, stage.initial);
  return {{"fast mode", v.numbers}, {"fast mode", v.messages}, {"fast mode", v.memory}};
}

}  // namespace lockstep
