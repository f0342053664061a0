#include "suites/commands/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "kernels/ops.hpp"
#include "ref/error.hpp"
#include "suites/here.hpp"
#include "suites/settings_list.hpp"

namespace lockstep {
namespace {

// CLI11 fills a footer's lines anew from version 2.5 on, which is where it can be told not to.
template <class Formatter>
void keep_lines(Formatter& formatter) {
  if constexpr (requires { formatter.enable_footer_formatting(false); })
    formatter.enable_footer_formatting(false);
}

}  // namespace

void add_settings(CLI::App& app, Settings& settings) {
  for (const Setting& s : settings_list()) {
    std::string option = std::string("--") + s.name;
    std::replace(option.begin(), option.end(), '_', '-');
    std::visit([&](auto field) { app.add_option(option, settings.*field, s.help)->capture_default_str(); },
               s.field);
  }
}

void add_dtype(CLI::App& app, Settings& settings) {
  app.add_option_function<std::string>(
         "--dtype", [&settings](const std::string& dtype) { set_dtype(settings, dtype); },
         "what weights and activations are stored as: float32, bf16 (beside float32 master weights)")
      ->check(CLI::IsMember({"float32", "bf16"}));
}

void add_plan(CLI::App& app, std::string& plan) {
  app.add_option("--plan", plan, "e.g. \"dp=2 tp=2 pp=2 ckpt=full micro=1\"; all words are below")
      ->capture_default_str();
  add_plan_words(app);
}

void add_plan_words(CLI::App& app) {
  std::string words = "Words of a plan:\n";
  for (const Word& w : plan_words())
    words += fmt::format("  {:<10} {} ({})\n", w.name, w.help,
                         w.values.empty() ? "a number" : fmt::format("{}", fmt::join(w.values, ", ")));
  app.footer(words);
  keep_lines(*app.get_formatter());
}

void add_kernels(CLI::App& app, std::string& isa, int& threads) {
  app.add_option("--isa", isa, "kernels: " + isa_names())->capture_default_str();
  app.add_option("--threads", threads, "threads of each rank")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
}

void add_device(CLI::App& app, std::string& device) {
  app.add_option("--device", device, "what computes: cpu, cuda")->capture_default_str();
}

void add_graphs(CLI::App& app, bool& graphs) {
  app.add_flag(
      "--graphs", graphs,
      "of a GPU: from the third step on, the kernels between two messages or copies are one CUDA graph");
}

void check_graphs(bool graphs, const std::string& device) {
  if (graphs && device == "cpu") throw UserError("--graphs is of a GPU's kernels: it needs --device cuda");
}

void add_comm(CLI::App& app, std::string& comm) {
  app.add_option(
         "--comm", comm,
         "ranks are threads of this process (local), or processes: mpirun -n RANKS (mpi); nccl: those, "
         "each with a GPU of its own")
      ->capture_default_str()
      ->check(CLI::IsMember({"local", "mpi", "nccl"}));
}

void add_scratch(CLI::App& app, std::string& folder, bool here) {
  CLI::Option* option =
      app.add_option("--scratch", folder, "folder for what a plan keeps on disk; default: $TMPDIR");
  if (here)
    option->check([](const std::string& path) {
      return is_folder_to_write(path) ? "" : path + ": it must be a folder that can be written to";
    });
}

Plan legal_plan(const std::string& line, const ModelConfig& model, const Settings& settings) {
  Plan plan = Plan::parse(line);
  if (const auto refusal = refuse(plan, model, settings))
    throw UserError(fmt::format("plan: {} (rule {})", refusal->why, refusal->rule));
  return plan;
}

}  // namespace lockstep
