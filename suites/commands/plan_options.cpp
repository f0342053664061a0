#include "suites/commands/plan_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <set>

#include "parallel/word_limit.hpp"
#include "ref/error.hpp"
#include "suites/commands/option_checks.hpp"
#include "suites/commands/options.hpp"
#include "suites/planner/export/export.hpp"

namespace lockstep {
namespace {

// An answer that may be asked for, and the options that it listens to beside those that all do. The first
// whose option is said is the one.
struct Answered {
  std::string option;  // empty: a plan is chosen
  std::set<std::string> listens;
};

std::vector<Answered> answers(bool one_plan) {
  const std::set<std::string> exports = {"--as-llama", "--out", one_plan ? "--explain" : "--words"};
  return {{"--export", exports},
          {"--explain", {"--as-llama", "--kernels", "--json"}},
          {"--fit", {"--as-llama", "--words", "--markdown", "--json"}},
          {"--check-times", {"--words", "--data", "--at-pace", "--plans", "--device", "--isa", "--threads"}},
          {"--event-times", {"--data", "--isa", "--threads"}},
          {"", {"--as-llama", "--words", "--top", "--pareto", "--json", "--out"}}};
}

}  // namespace

void check_plan_options(const CLI::App& app) {
  const auto said = [&](const std::string& option) { return app.count(option) > 0; };
  const std::vector<Answered> all = answers(said("--explain"));
  const Answered& asked = *std::find_if(
      all.begin(), all.end(), [&](const Answered& a) { return a.option.empty() || said(a.option); });
  std::map<std::string, std::vector<std::string>> heard;  // by option: in which answers
  for (const Answered& a : all) {
    if (!a.option.empty()) heard[a.option];
    for (const std::string& option : a.listens) heard[option].push_back(a.option);
  }
  for (const auto& [option, where] : heard) {
    if (!said(option) || option == asked.option || asked.listens.count(option)) continue;
    if (asked.option.empty())
      throw UserError(fmt::format("plan: {} needs {}", option, fmt::join(where, " or ")));
    throw UserError(
        fmt::format("plan: {} has no effect with {}; leave one of them out", option, asked.option));
  }
  if (said("--json") && said("--kernels"))
    throw UserError("plan: --kernels has no effect with --json; leave one of them out");
  for (const char* option : {"--check-times", "--event-times"})
    if (said(option) && !said("--data"))
      throw UserError(fmt::format("plan: {} needs --data, a token file to train on", option));
}

void add_plan_options(CLI::App& app, PlanOptions& o) {
  app.add_option("--model", o.model, "config.json of a Llama")->required();
  app.add_flag(
      "--as-llama", o.as_llama,
      "take a model that is nearly one (Qwen2, Qwen3, Mistral with its window, Phi-3, OLMo 2, Gemma) for a "
      "Llama, and say what is left out");
  app.add_option("--cluster", o.cluster, "a file of suites/clusters/, or of `lockstep calibrate`")
      ->required();
  app.add_option("--out", o.out,
                 "folder for plan.h5: the answer as a record, of which `make report` makes a page; with "
                 "--export the file, instead of standard output");
  app.add_option("--devices", o.devices, "this many devices, instead of the cluster file's number")
      ->check(from_to(1, kMostOfAWord));
  app.add_option("--words", o.words,
                 "values that words of a plan take; of those not named `to` and `activations` keep these, "
                 "`bucket` and `every` are 1, and all others take what may win")
      ->capture_default_str();
  app.add_option("--top", o.top, "how many plans are printed")->capture_default_str()->check(above_zero());
  app.add_option("--explain", o.explain, "explain this plan's memory and time, instead of choosing one");
  app.add_flag("--kernels", o.kernels, "with --explain: which kernels its time goes to");
  app.add_option("--export", o.system,
                 fmt::format("write the plan for another system: {}", fmt::join(export_names(), ", ")));
  app.add_option("--gradient-bytes", o.gradient_bytes,
                 "bytes of a gradient element, instead of the cluster file's")
      ->check(CLI::IsMember({2, 4}));
  app.add_flag("--pareto", o.pareto, "print the plans that no other beats in both speed and memory");
  app.add_flag("--fit", o.fit, "what the model needs, and the best plan on 1, 2, 4, ... devices");
  app.add_flag("--markdown", o.markdown, "tables as Markdown (--fit)");
  app.add_flag("--check-times", o.check,
               "train some plans on this machine and compare; wants its calibration");
  app.add_option(
      "--event-times", o.events,
      "train this plan on this machine: each kernel, message and copy of rank 0, predicted and measured");
  app.add_flag("--json", o.json, "the answer as JSON, for programs");
  app.add_option("--data", o.how.data, "token file to train on (--check-times, --event-times)");
  app.add_flag("--at-pace", o.at_pace,
               "correct all rates by how fast a core is now, against its calibration (--check-times)");
  app.add_option("--plans", o.how.plans, "how many plans to train (--check-times)")
      ->capture_default_str()
      ->check(above_zero());
  app.add_option("--device", o.device, "what trains: cpu, or one GPU, cuda (--check-times)")
      ->capture_default_str();
  add_kernels(app, o.how.isa, o.how.threads);
  add_settings(app, o.settings);
  // Which plan is best hangs on them most of all: no default of a small training's is anybody's question.
  for (const char* option : {"--batch", "--seq"}) app.get_option(option)->required()->default_str("");
}

}  // namespace lockstep
