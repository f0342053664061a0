// lockstep plan: which plan is fastest on a cluster, predicted; computes nothing.
#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <sstream>

#include "parallel/word_limit.hpp"
#include "ref/error.hpp"
#include "suites/commands/command.hpp"
#include "suites/commands/options.hpp"
#include "suites/commands/plan_options.hpp"
#include "suites/here.hpp"
#include "suites/planner/answer/explain.hpp"
#include "suites/planner/answer/fit.hpp"
#include "suites/planner/answer/in_sight.hpp"
#include "suites/planner/answer/kernel_shares.hpp"
#include "suites/planner/answer/plan_file.hpp"
#include "suites/planner/answer/plan_json.hpp"
#include "suites/planner/export/export.hpp"
#include "suites/planner/measure/event_times.hpp"
#include "suites/planner/measure/pace.hpp"
#include "suites/planner/nearest_llama.hpp"
#include "suites/settings_list.hpp"
#include "suites/toml_file.hpp"

namespace lockstep::plan_cli {
namespace {

// Word by word: what is not named stays as usual.
std::string with_usual(const std::string& words) {
  const Values named = parse_values(words);
  std::string all = words;
  std::istringstream usual(PlanOptions::usual_words);
  for (std::string item; usual >> item;)
    if (!named.count(item.substr(0, item.find('=')))) all += (all.empty() ? "" : " ") + item;
  return all;
}

using Options = PlanOptions;

constexpr const char* kOurExecutor =
    "for an executor that loses time only to messages and pipeline bubbles; for other trainers, use their "
    "constants in suites/published/\n";

void introduce(const Options& o, const Question& q, bool fitted) {
  fmt::print("{} on {} x {}: batch {}, {} tokens a sequence\n{}", o.model, q.cluster.devices, q.cluster.name,
             q.settings.batch, q.settings.seq, fitted ? "" : kOurExecutor);
}

// What the model needs, and the fastest plan on 1, 2, 4, ... devices of the cluster's kind. Exit status 1:
// none fits.
int print_fit(const Options& o, const Question& q, const Values& given, bool fitted) {
  const std::vector<Fit> rows = fits(q, given, [](const Fit& f) {
    if (f.legal > 0)
      fmt::print(stderr, "{} device{}: {} of {} plans fit\n", f.devices, f.devices == 1 ? "" : "s", f.fit,
                 f.legal);
  });
  if (std::all_of(rows.begin(), rows.end(), [](const Fit& f) { return f.legal == 0; }))
    check_any_legal(choose_in_sight(q, given, {.top = 1, .by_value = false}), q, given);
  if (!o.json) introduce(o, q, fitted);
  if (o.json)
    fmt::print("{}\n", json_of(rows, q));
  else
    fmt::print("\n{}\n{}\n{}", bytes_text(q, o.markdown), fits_text(rows, q, o.markdown), least_text(rows));
  const auto fit = std::count_if(rows.begin(), rows.end(), [](const Fit& f) { return f.best.has_value(); });
  if (const std::string why = no_host_text(q.cluster); !o.json && fit < std::ssize(rows) && !why.empty())
    fmt::print("{}\n", why.substr(1));
  return fit > 0 ? 0 : 1;
}

constexpr double kOtherPace = 0.05;

std::string pace_text(const Pace& now, const Pace& then) {
  const auto percent = [](double x, double y) { return 100 * (x / y - 1); };
  return fmt::format("{:.1f} GFLOP/s ({:+.1f} %), {:.2f} GB/s ({:+.1f} %)", now.flops / 1e9,
                     percent(now.flops, then.flops), now.bandwidth / 1e9,
                     percent(now.bandwidth, then.bandwidth));
}

// Exit status 1: not as well as they should be.
int print_times(const Options& o, const ModelConfig& model, const Settings& settings, Cluster cluster,
                const Values& given) {
  check_isa(o.how.isa);
  CheckHow how = o.how;
  how.accelerator = device_here(o.device);
  // A machine in another phase than when it was measured: that is said, and corrected where it is asked for.
  const Pace then = cluster.pace, now = then.flops > 0 ? measure_pace(o.how.isa) : then;
  const Busy before = busy_seconds();
  if (then.flops > 0) {
    const bool other = std::abs(now.flops / then.flops - 1) > kOtherPace ||
                       std::abs(now.bandwidth / then.bandwidth - 1) > kOtherPace;
    fmt::print("one core now, and against its calibration: {}{}\n", pace_text(now, then),
               o.at_pace ? ": all rates are corrected by that"
               : other   ? ": another phase (--at-pace corrects all rates by that)"
                         : "");
    if (o.at_pace) cluster = at_pace(cluster, now);
  }
  fmt::print("{:>12}{:>12}{:>9}   plan\n", "predicted", "measured", "error");
  const CheckedTimes t = check_times(model, settings, cluster, given, how, [](const CheckedTimes::Row& row) {
    fmt::print("{:>9.3f} ms{:>9.3f} ms{:>7.1f} %   {}\n", 1e3 * row.predicted, 1e3 * row.measured,
               100 * (row.predicted / row.measured - 1), row.plan);
    std::fflush(stdout);
  });
  fmt::print("{} plans: median error {:.1f} %\n", t.rows.size(), 100 * t.median_error);
  fmt::print("first choice `{}`: {:.1f} % slower than the fastest, `{}`\n", t.first, 100 * t.regret,
             t.fastest);
  fmt::print("of what the processors worked meanwhile, {:.1f} % was for others\n",
             100 * others_part(before, busy_seconds()));
  if (then.flops > 0)
    fmt::print("one core at the end, and against the beginning: {}\n",
               pace_text(measure_pace(o.how.isa), now));
  return t.well() ? 0 : 1;
}

// UserError: not a plan of this cluster.
Plan asked_plan(const Options& o, const Question& q) {
  const Plan asked = Plan::parse(o.explain);
  if (asked.ranks() != q.cluster.devices)
    throw UserError(fmt::format("plan: `{}` has {} ranks, the cluster {} devices (--devices)", asked.line(),
                                asked.ranks(), q.cluster.devices));
  if (const auto refusal = refuse_anywhere(asked, q.model, q.settings))
    throw UserError(fmt::format("plan: {} (rule {})", refusal->why, refusal->rule));
  return asked;
}

// Whether the plan is written with its own words. One that is not may still be what was asked for: where no
// word becomes another of those that it was left to take.
bool written_as_it_is(const Exporter& system, const Question& q, const Plan& plan, const Values& given) {
  try {
    const Plan written = as_written(system, q, plan);
    return std::none_of(written.words().begin(), written.words().end(), [&](const auto& word) {
      const auto& [name, value] = word;
      const auto asked = given.find(name);
      return value != plan.text(name) &&
             (asked == given.end() ||
              std::find(asked->second.begin(), asked->second.end(), value) != asked->second.end());
    });
  } catch (const UserError&) {  // the system has no such mesh
    return false;
  }
}

// Standard output is the export's alone.
int print_export(const Options& o, const Question& q, const Values& given) {
  const Exporter& system = exporter(o.system);
  if (!o.explain.empty()) return write_export(o.system, o.out, q, asked_plan(o, q));
  Wanted fastest{.top = 1, .by_value = false};
  const Choices first = choose_in_sight(q, given, fastest);
  check_any_legal(first, q, given);
  if (first.fit.empty()) {
    fmt::print(stderr, "no plan fits{}\n", no_host_text(q.cluster));
    return 1;
  }
  const Weighed& best = first.fit.front();
  const Plan plan = Plan::parse(best.plan);
  if (written_as_it_is(system, q, plan, given)) return write_export(o.system, o.out, q, plan);
  // What is promised should be what is written.
  fastest.usable = [&](const Plan& p) { return written_as_it_is(system, q, p, given); };
  const Choices writable = choose_in_sight(q, given, fastest);
  if (writable.fit.empty()) {
    as_written(system, q, plan);  // throws where a mesh is the reason
    fmt::print(stderr, "no plan that can be written for {} fits{}\n", o.system, no_host_text(q.cluster));
    return 1;
  }
  const Weighed& written = writable.fit.front();
  return write_export(
      o.system, o.out, q, Plan::parse(written.plan),
      fmt::format(
          "the first choice, `{}`, cannot be written for {}; this is the best that can, {:.1f} % slower",
          best.plan, o.system, 100 * (written.seconds / best.seconds - 1)));
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error)
    throw UserError(fmt::format("--out {}: {}; name a folder that can be written", path, error.message()));
}

// The command that asks the same.
std::string again(const Options& o, const Question& q) {
  return fmt::format(
      "lockstep plan --model {}{} --cluster {} --devices {} --batch {} --seq {} --leaves {} "
      "--gradient-bytes {} --words \"{}\"",
      o.model, o.as_llama ? " --as-llama" : "", o.cluster, q.cluster.devices, q.settings.batch,
      q.settings.seq, q.settings.leaves, q.settings.gradient_bytes, o.words);
}

int print_events(const Options& o, const ModelConfig& model, const Settings& settings,
                 const Cluster& cluster) {
  const TokenFile data(o.how.data);
  const Run run{model, settings, legal_plan(o.events, model, settings), &data};
  double predicted = 0, measured = 0;
  fmt::print("{:>12}{:>12}{:>12}{:>8}   what\n", "predicted", "measured", "each", "times");
  for (const EventTimes& e : event_times(run, {.isa = o.how.isa, .threads = o.how.threads}, cluster, 0)) {
    fmt::print("{:>9.3f} ms{:>9.3f} ms{:>9.2f} us{:>8}   {}\n", 1e3 * e.predicted, 1e3 * e.measured,
               1e6 * e.measured / static_cast<double>(e.times), e.times, e.what);
    predicted += e.predicted, measured += e.measured;
  }
  fmt::print("{:>9.3f} ms{:>9.3f} ms   in all\n", 1e3 * predicted, 1e3 * measured);
  return 0;
}

// UserError: no Llama; where it is nearly one, with the option that takes it for one.
NearestLlama model_of(const Options& o) {
  if (o.as_llama) {
    NearestLlama nearest = nearest_llama(o.model);
    for (const std::string& what : nearest.left_out) fmt::print(stderr, "{}: left out: {}\n", o.model, what);
    return nearest;
  }
  try {
    return {load_model_config(o.model), {}};
  } catch (const UserError& e) {
    if (!has_nearest_llama(o.model)) throw;
    throw UserError(fmt::format("{} `plan --as-llama` predicts it as the nearest Llama.", e.what()));
  }
}

// UserError: these devices are no whole nodes, or nothing joins them. What the file does not say, and then
// counts as nothing, is said.
Cluster cluster_of(const Options& o, bool fitted) {
  Cluster c = load_cluster(o.cluster);
  if (o.devices) c.devices = o.devices;
  if (c.devices > c.per_node && c.network.bandwidth <= 0)
    throw UserError(fmt::format("{}: {} devices are more than a node's {}, and it has no [network]",
                                o.cluster, c.devices, c.per_node));
  if (c.devices > c.per_node && c.devices % c.per_node != 0)
    throw UserError(fmt::format("{}: {} devices fill no whole number of nodes of {}; they must", o.cluster,
                                c.devices, c.per_node));
  if (c.efficiency.empty() && c.grids.empty() && !fitted)
    fmt::print(stderr,
               "{}: it has no [efficiency] and no [grid], so each kernel is taken to reach all of the peak\n",
               o.cluster);
  if (c.context + c.communicator + c.workspace + c.fragmentation == 0 && !fitted)
    fmt::print(
        stderr,
        "{}: it has no [process], so a process is taken to hold nothing beside the plan's own buffers\n",
        o.cluster);
  if (o.gradient_bytes) c.gradient_bytes = o.gradient_bytes;
  return c;
}

int print_plan(const Options& o, const Question& q, bool fitted) {
  const Plan asked = asked_plan(o, q);
  if (o.json) {
    fmt::print("{}\n", json_of(asked.line(), q));
    return 0;
  }
  introduce(o, q, fitted);
  fmt::print("{}", plan_text(asked.line(), q));
  if (o.kernels) fmt::print("{}", kernel_shares_text(asked, q));
  return 0;
}

// How sure that is, where less than usual holds it.
const char* doubt_text(const std::string& first) {
  return Plan::parse(first).number("cp") > 1
             ? "the first choice has cp, and no step with cp was timed against its prediction yet\n"
             : "";
}

int print_choice(const Options& o, const Question& q, const Values& given, bool fitted) {
  if (!o.out.empty()) {  // what cannot be written is said before the work
    make_folder(o.out);
    check_can_be_kept(cluster_file(o.cluster));
  }
  Wanted wanted;
  wanted.top = std::max<std::size_t>(2, static_cast<std::size_t>(o.top));    // why_text() asks for two
  if (!o.out.empty()) wanted.top = std::numeric_limits<std::size_t>::max();  // the record holds all that fit
  wanted.pareto = o.pareto, wanted.within = kAlike;
  const Choices c = choose_in_sight(q, given, wanted);
  check_any_legal(c, q, given);
  if (!o.out.empty())
    write_plan_file({o.model, o.cluster, o.words, again(o, q)}, q, c, static_cast<std::size_t>(o.top),
                    o.out + "/plan.h5");
  if (o.json) {
    fmt::print("{}\n", json_of(c, q, static_cast<std::size_t>(o.top), o.pareto));
    return c.fit.empty() ? 1 : 0;
  }
  introduce(o, q, fitted);
  fmt::print("{}", counts_text(c));
  if (c.fit.empty()) {
    fmt::print("no plan fits{}\n", no_host_text(q.cluster));
    return 1;
  }
  const std::string& first = c.fit.front().plan;
  fmt::print("\n{}{}{}\n", ranking_text(c, q, static_cast<std::size_t>(o.top)), alike_text(c),
             doubt_text(first));
  if (o.pareto) fmt::print("memory against speed\n{}\n", pareto_text(c, q));
  fmt::print("{}{}", plan_text(first, q), why_text(c, q));
  if (!o.out.empty()) fmt::print("record: {}/plan.h5\n", o.out);
  return 0;
}

int plan(const Options& o) {
  // Traces come and go by the thousand: what they free is kept for the next ones.
  mallopt(M_TRIM_THRESHOLD, 1 << 29), mallopt(M_MMAP_THRESHOLD, 1 << 29);
  check_settings(o.settings);
  if (o.settings.batch > kMostOfAWord)  // a microbatch may be all of it
    throw UserError(
        fmt::format("plan: batch is {}; it must be from 1 to {}", o.settings.batch, kMostOfAWord));
  const auto [model, left_out] = model_of(o);
  const bool fitted = cluster_file(o.cluster) != o.cluster;  // to a trainer's published runs
  const Cluster cluster = cluster_of(o, fitted);
  if (o.settings.seq > model.max_position)
    fmt::print(stderr, "{}: sequences of {} tokens are longer than its max_position_embeddings, {}\n",
               o.model, o.settings.seq, model.max_position);
  const Settings settings = settings_on(cluster, o.settings);
  const Question q{model, settings, cluster, left_out};
  const Values given = parse_values(o.words);
  if (!o.system.empty()) return print_export(o, q, given);
  if (!o.explain.empty()) return print_plan(o, q, fitted);
  const bool trains = o.check || !o.events.empty();
  if (!trains) return o.fit ? print_fit(o, q, given, fitted) : print_choice(o, q, given, fitted);
  introduce(o, q, fitted);
  return o.check ? print_times(o, model, settings, cluster, given)
                 : print_events(o, model, settings, cluster);
}

Command::Action declare(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_plan_options(app, *o);
  add_plan_words(app);
  return [o, &app] {
    check_plan_options(app);
    o->words = with_usual(o->words);
    return plan(*o);
  };
}

const Command command("plan", "predict which plan is fastest on a cluster; computes nothing", declare);

}  // namespace
}  // namespace lockstep::plan_cli
