// What is promised of an exported plan is of the plan that the other system runs.
#include <gtest/gtest.h>

#include "suites/tests/asked_export.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Written by hand, from the sentence that says what is written.
TEST(ExportWritten, IsThePlanThatIsRun) {
  const AskedExport a("gate-untied");
  const struct {
    const char *system, *plan, *written;
  } cases[] = {
      {"torchtitan", "dp=8 zero=3 micro=2 activations=host", "dp=8 zero=3 micro=2"},
      {"torchtitan", "dp=8 zero=3 ckpt=full every=2 activations=disk", "dp=8 zero=3 ckpt=full"},
      {"torchtitan", "dp=8 zero=3 ckpt=attention", "dp=8 zero=3 ckpt=swiglu"},
      {"torchtitan", "dp=8 zero=3 ckpt=norms", "dp=8 zero=3 ckpt=norms"},
      {"torchtitan", "dp=8 zero=1", "dp=8 zero=2"},
      {"torchtitan", "dp=8 zero=2", "dp=8 zero=2"},
      {"torchtitan", "dp=8 bucket=3", "dp=8"},
      {"torchtitan", "dp=2 pp=4 zero=3", "dp=2 pp=4 zero=1"},
      {"torchtitan", "dp=2 pp=4 schedule=zero-bubble", "dp=2 pp=4"},
      {"torchtitan", "dp=2 pp=4 schedule=gpipe", "dp=2 pp=4 schedule=gpipe"},
      {"torchtitan", "dp=4 cp=2", "dp=4 cp=2 zero=2 replicas=4"},
      {"torchtitan", "dp=2 cp=2 pp=2", "dp=2 cp=2 pp=2 zero=1 replicas=2"},
      {"torchtitan", "dp=8 zero=3 offload=optimizer to=disk", "dp=8 zero=3 offload=weights"},
      {"torchtitan", "dp=8 zero=2 offload=weights", "dp=8 zero=2 offload=optimizer"},
      {"torchtitan", "dp=2 pp=4 zero=3 offload=weights", "dp=2 pp=4 zero=1 offload=optimizer"},
      {"megatron", "dp=2 pp=4 schedule=gpipe", "dp=2 pp=4"},
      {"megatron", "dp=8 schedule=gpipe", "dp=8"},
      {"megatron", "dp=8 bucket=3 offload=weights to=disk", "dp=8 zero=1 offload=optimizer"},
      {"megatron", "dp=8 bucket=3", "dp=8 bucket=3"},
      {"megatron", "dp=8 ckpt=attention every=2", "dp=8"},
      {"megatron", "dp=8 ckpt=selective", "dp=8 ckpt=norms"},
      {"megatron", "dp=8 ckpt=full every=2", "dp=8 ckpt=full every=2"},
      {"megatron", "dp=8 activations=disk", "dp=8 activations=host"},
      {"megatron", "dp=8 ckpt=full activations=host", "dp=8 ckpt=full"},
      {"megatron", "dp=2 pp=4 activations=host", "dp=2 pp=4"},
      {"deepspeed", "dp=8 bucket=3 offload=optimizer", "dp=8 zero=1 offload=optimizer"},
      {"deepspeed", "dp=8 zero=2 offload=weights to=disk", "dp=8 zero=2 offload=optimizer"},
      {"deepspeed", "dp=8 zero=3 offload=weights to=disk", "dp=8 zero=3 offload=weights to=disk"},
      {"deepspeed", "dp=8 zero=2 replicas=2", "dp=8 zero=2"},
      {"deepspeed", "dp=2 tp=4 sp=1", "dp=2 tp=4"},
      {"deepspeed", "dp=4 pp=2 schedule=interleaved virtual=2", "dp=4 pp=2"},
      {"deepspeed", "dp=8 ckpt=norms every=2 activations=host", "dp=8"},
      {"deepspeed", "dp=8 ckpt=full every=2 activations=disk", "dp=8 ckpt=full activations=host"},
      {"fsdp", "dp=4 cp=2 bucket=3", "dp=4 cp=2 zero=1"},
      {"fsdp", "dp=8 zero=1", "dp=8 zero=1"},
      {"fsdp", "dp=4 tp=2 zero=3 sp=1", "dp=4 tp=2 zero=3"},
      {"fsdp", "dp=8 zero=3 offload=optimizer to=disk", "dp=8 zero=3 offload=weights"},
      {"fsdp", "dp=8 zero=2 offload=weights", "dp=8 zero=2 offload=optimizer"},
      {"fsdp", "dp=8 offload=optimizer", "dp=8"},
      {"fsdp", "dp=8 zero=3 ckpt=norms every=2 activations=disk", "dp=8 zero=3 ckpt=full activations=host"},
      {"fsdp", "dp=8 zero=3 activations=host", "dp=8 zero=3"},
      {"fsdp", "dp=8 schedule=zero-bubble", "dp=8"},
      {"fsdp", "dp=8 ckpt=full activations=host", "dp=8 ckpt=full"},
      {"fsdp", "offload=weights", "offload=weights"},
  };
  for (const auto& c : cases)
    EXPECT_EQ(as_written(exporter(c.system), a.question(), Plan::parse(c.plan)).line(),
              Plan::parse(c.written).line())
        << c.system << ": " << c.plan;
}

// What is predicted is a legal plan, which is written as it is; and a sentence names each word that is not.
TEST(ExportWritten, IsALegalPlanAndSaid) {
  const AskedExport a("gate-untied");
  const Values values = plan_values(
      a.model, a.settings, 8, parse_values("micro=1,2 every=1,2 bucket=1,3 virtual=1,2 replicas=1,2 cp=1,2"));
  i64 plans = 0, others = 0;
  std::map<std::string, std::string> wrong;
  each_legal_plan(a.model, a.settings, 8, values, [&](const Plan& plan) {
    if (++plans % 11) return;  // some of 20,000
    for (const std::string& system : export_names()) {
      const Exporter& e = exporter(system);
      Exported x;
      try {
        x = exported(e, a.question(), plan);
      } catch (const UserError&) {
        continue;
      }
      const Plan written = as_written(e, a.question(), plan);
      if (written.line() == plan.line()) continue;
      ++others;
      if (const auto refusal = refuse_anywhere(written, a.model, a.settings))
        wrong[system + " is refused: " + refusal->rule] = plan.line() + " -> " + written.line();
      if (as_written(e, a.question(), written).line() != written.line())
        wrong[system + " is not written as it is"] = plan.line() + " -> " + written.line();
      for (const Word& word : plan_words()) {
        const std::string& value = plan.text(word.name);
        if (value == written.text(word.name) || (word.name == "replicas" && value == "1")) continue;
        if (!named(x.missing, word.name + "=" + value))
          wrong[system + " does not say " + word.name] = plan.line();
      }
    }
  });
  for (const auto& [what, plan] : wrong) ADD_FAILURE() << what << ": " << plan;
  EXPECT_GT(others, 1000);
}

// Groups of replicas that no plan has: the word stays.
TEST(ExportWritten, LeavesAWordThatHasNoNearest) {
  AskedExport a("gate-untied", 6);
  a.settings.batch = 12, a.settings.fast = true;
  const char* plan = "dp=3 cp=2";
  EXPECT_TRUE(named(a.to("torchtitan", plan).missing, "zero=0 with cp=2"));
  EXPECT_EQ(as_written(exporter("torchtitan"), a.question(), Plan::parse(plan)).line(),
            Plan::parse(plan).line());
}

}  // namespace
}  // namespace lockstep
