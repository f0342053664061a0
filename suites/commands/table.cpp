// lockstep table: what each plan of a suite costs, by formula, traced and as it ran, and what the papers say.
// It ends in one line; a figure that differs makes the exit status 1.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "kernels/ops.hpp"
#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/options.hpp"
#include "suites/costs/costs.hpp"
#include "suites/costs/textbook.hpp"
#include "suites/gates/gates.hpp"
#include "suites/here.hpp"
#include "suites/settings_list.hpp"
#include "suites/sweep/suite.hpp"
#include "suites/text_table.hpp"

namespace lockstep::table_cli {
namespace {

struct Options {
  std::string suite, only, isa;
  int threads = 0;
  bool markdown = false;
};

std::string yes(bool equal) { return equal ? "yes" : "NO"; }

// Three lines of a plan: the largest rank's peaks by kind, and the messages of all ranks.
void add_costs(TextTable& table, const std::string& plan, const PlanCosts& all, bool equal) {
  KindBytes formula{}, traced{};
  i64 trace_together = 0, run_together = 0;
  PlanCosts::Messages by_formula, by_trace, by_run;
  for (const PlanCosts::Rank& r : all.ranks) {
    for (std::size_t k = 0; k < formula.size(); ++k) {
      formula[k] = std::max(formula[k], r.formula[k]);
      traced[k] = std::max(traced[k], r.traced[k]);
    }
    trace_together = std::max(trace_together, r.traced_together);
    run_together = std::max(run_together, r.run_together);
    by_formula.insert(by_formula.end(), r.by_formula.begin(), r.by_formula.end());
    by_trace.insert(by_trace.end(), r.by_trace.begin(), r.by_trace.end());
    by_run.insert(by_run.end(), r.by_run.begin(), r.by_run.end());
  }
  const auto line = [&](std::vector<std::string> row, const KindBytes* kinds, const std::string& together,
                        const PlanCosts::Messages& messages, const std::string& verdict) {
    for (std::size_t k = 0; k < formula.size(); ++k) row.push_back(kinds ? fmt::to_string((*kinds)[k]) : "");
    i64 elements = 0;
    for (const PlanCosts::Message& m : messages) elements += m.elements;
    row.insert(row.end(), {together, fmt::to_string(messages.size()), fmt::to_string(elements), verdict});
    table.add(row);
  };
  line({plan, "formula"}, &formula, "", by_formula, yes(equal));
  line({"", "trace"}, &traced, fmt::to_string(trace_together), by_trace, "");
  line({"", "run"}, nullptr, fmt::to_string(run_together), by_run, "");
}

TextTable cost_table() {
  std::vector<std::string> head{"plan", "by"};
  for (int k = 0; k < static_cast<int>(Kind::count); ++k) head.push_back(kind_name(static_cast<Kind>(k)));
  head.insert(head.end(), {"together", "messages posted", "elements", "equal"});
  head[2 + static_cast<int>(Kind::messages)] = "under way";  // not to be read as their number
  return {head, 2};
}

std::string figure(double value, double unit) {
  return unit == 1 ? fmt::format("{:.0f}", value) : fmt::format("{:.4f}", value / unit);
}

void add_textbook(TextTable& table, const std::string& plan, const TextbookRow& row) {
  std::string why;
  for (const auto& d : row.differences)
    why += fmt::format("{}{}: {}{}", why.empty() ? "" : "; ", d.why, d.much > 0 ? "+" : "",
                       figure(d.much, row.unit));
  table.add({plan, row.of.empty() ? row.what : row.of + ": " + row.what, row.form, row.source,
             figure(row.textbook, row.unit), figure(row.here, row.unit), why, yes(row.equal())});
}

int command_table(const Options& o) {
  Suite suite = read_suite(o.suite);
  if (!o.isa.empty()) suite.isa = o.isa;
  if (o.threads > 0) suite.threads = o.threads;
  check_isa(suite.isa);
  const ModelConfig model = load_model_config(suite.model);
  const TokenFile data(suite.data);
  if (suite.weak) throw UserError("a table is of one batch, and this suite is of weak scaling");
  check_data(data, suite.data, model, suite.settings);
  std::vector<Plan> plans = enumerate(suite, model).plans;
  std::erase_if(plans, [&](const Plan& p) { return !matches(p, o.only); });
  if (plans.empty())
    throw UserError(fmt::format("{}: no plan to show{}; `lockstep sweep --dry-run` lists them", o.suite,
                                o.only.empty() ? "" : " with `" + o.only + "`"));

  TextTable measured = cost_table();
  TextTable textbook({"plan", "what", "textbook", "source", "its figure", "here", "difference", "equal"}, 4);
  std::vector<std::string> wrong;
  const Weights initial = fresh_weights(model, suite.settings);
  auto beside_the_textbook = [&](const Prepared& prepared) {
    for (const TextbookRow& row : textbook_rows(prepared)) {
      add_textbook(textbook, prepared.run.plan.line(), row);
      if (!row.equal())
        wrong.push_back(prepared.run.plan.line() + ": " + row.what +
                        " is not as the textbook and its differences say");
    }
  };
  for (const Plan& plan : plans) {
    const Prepared prepared = prepare({model, suite.settings, plan, &data});
    const PlanCosts all = costs(prepared, suite.isa, suite.threads, initial);
    const std::string why = disagreement(all);
    if (!why.empty()) wrong.push_back(plan.line() + ": " + why);
    add_costs(measured, plan.line(), all, why.empty());
    beside_the_textbook(prepared);
    // bfloat16 is not computed here: formula and trace alone.
    Settings half = suite.settings;
    half.fast = true, half.weight_bytes = half.gradient_bytes = half.activation_bytes = 2;
    const Prepared traced = prepare({model, half, plan, &data});
    beside_the_textbook(traced);
    if (const std::string memory = judge_memory(traced, {}); memory != "pass")
      wrong.push_back(plan.line() + ", bfloat16: " + memory);
  }
  fmt::print("peak bytes of a kind on the rank with most of it, and the messages of all ranks\n\n");
  fmt::print("{}\n{}\n", measured.text(o.markdown), textbook.text(o.markdown));
  for (const std::string& w : wrong) fmt::print("{}\n", w);
  fmt::print("{}\n", wrong.empty() ? fmt::format("EQUAL: {} plans, {} figures of the textbook", plans.size(),
                                                 textbook.rows())
                                   : fmt::format("NOT EQUAL: {} of them", wrong.size()));
  return wrong.empty() ? 0 : 1;
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("suite", o->suite, "a suite's TOML file, such as suites/strategies.toml")->required();
  app.add_flag("--markdown", o->markdown, "tables as Markdown");
  app.add_option("--only", o->only,
                 "only plans with these words, e.g. \"dp=2 zero=1\", or with this in their line");
  app.add_option("--isa", o->isa, "kernels: " + isa_names() + "; default: the suite's");
  app.add_option("--threads", o->threads, "threads of each rank; default: the suite's")
      ->check(CLI::Range(1, 1024));
  add_plan_words(app);
  return [o] { return command_table(*o); };
}

const Command command("table", "what plans cost: by formula, traced, as run, and in the textbook", declare);

}  // namespace
}  // namespace lockstep::table_cli
