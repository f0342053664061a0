// What a model needs and what it fits; and README.md's table of Llama-2 13B, which is what the planner says.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "suites/planner/answer/fit.hpp"
#include "suites/planner/answer/plan_json.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

const std::string kCommand =
    "build/lockstep plan --model suites/models/llama-2-13b.json --cluster suites/clusters/h100x64.toml "
    "--batch 256 --seq 4096 --fit --markdown";

struct Seed {
  ModelConfig model = load_model_config("suites/models/llama-2-13b.json");
  Cluster cluster = load_cluster("suites/clusters/h100x64.toml");
  Settings settings = settings_on(cluster, step());
  Values given = parse_values("to=host activations=device,host");
  static Settings step() {
    Settings s;
    s.batch = 256, s.seq = 4096;
    return s;
  }
};

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string readme() {
  std::ostringstream text;
  text << std::ifstream("README.md").rdbuf();
  return text.str();
}

// "| 4 | yes | `dp=4 ...` | ..." of README.md.
std::string readme_row(i64 devices) {
  for (const std::string& line : lines_of(readme().substr(readme().find(kCommand))))
    if (line.starts_with("| " + std::to_string(devices) + " | ")) return line;
  return "";
}

// 13,015,864,320 parameters (Touvron et al. 2023): 2 bytes of weights, 4 of gradients, and 12 of AdamW in
// mixed precision (Rajbhandari et al. 2020, ZeRO, section 3.1, whose gradients have 2).
TEST(Fit, ThirteenBillionParametersTakeEighteenBytesEach) {
  const Seed seed;
  const std::string text = bytes_text({seed.model, seed.settings, seed.cluster}, true);
  EXPECT_TRUE(says(text, "13.02 billion", "| 2 | 26.0 | 24.2 | 26 |", "| 4 | 52.1 | 48.5 | 78 |",
                   "| 12 | 156.2 | 145.5 | 234 |"));
  for (const std::string& line : lines_of(text)) EXPECT_TRUE(says(readme(), line + "\n"));
}

// A tied head has no weights of its own: 134,515,008 parameters, as huggingface.co has them.
TEST(Fit, ATiedHeadIsCountedOnce) {
  const Seed seed;
  const ModelConfig model = load_model_config("suites/models/smollm2-135m.json");
  ASSERT_TRUE(model.tied);
  EXPECT_TRUE(
      says(bytes_text({model, seed.settings, seed.cluster}, true), "0.13 billion", "| 2 | 0.3 | 0.3 | 0 |"));
}

// On one device everything is weighed; of more, where that takes long, what README.md's plan needs and takes.
TEST(Fit, ReadmesTableIsWhatThePlannerSays) {
  const Seed seed;
  ASSERT_TRUE(says(readme(), kCommand));
  const Question q{seed.model, seed.settings, seed.cluster};
  const Fit one = fit_on(1, q, seed.given);
  EXPECT_TRUE(says(readme_row(1), lines_of(fits_text({one}, q, true)).back())) << "again: " << kCommand;
  for (const i64 devices : {2, 4, 8, 16, 32, 64}) {
    const std::string row = readme_row(devices);
    const std::size_t from = row.find('`') + 1;
    ASSERT_NE(from, std::string::npos + 1) << devices;
    const std::string line = row.substr(from, row.find('`', from) - from);
    Cluster cluster = seed.cluster;
    cluster.devices = devices;
    const Plan plan = Plan::parse(line);
    ASSERT_EQ(plan.ranks(), devices);
    const Prediction p = Composer(seed.model, seed.settings, cluster).weigh(plan);
    Fit fit{
        devices,
        1,
        1,
        Weighed{line, p.seconds, needs(p, cluster, lockstep::Run{seed.model, seed.settings, plan}.mesh())},
        {},
        0,
        0};
    EXPECT_EQ(lacks(fit.best->needs, has(cluster)), 0);
    const std::string said = lines_of(fits_text({fit}, q, true)).back();
    const std::size_t figures = said.find('`');  // of the plan and all behind it
    EXPECT_TRUE(says(row, said.substr(figures))) << "again: " << kCommand;
  }
}

TEST(Fit, SaysFromWhereOn) {
  const auto row = [](i64 devices, bool fits, bool alone) {
    Fit f{devices, 10, fits ? 3 : 0, {}, {}, 0, 1e9};
    if (fits) f.best = Weighed{"dp=1 offload=optimizer", 1, {1, 1, 0}};
    if (alone) f.alone = Weighed{"dp=1", 2, {1, 0, 0}};
    return f;
  };
  EXPECT_EQ(least_text({row(1, false, false), row(2, true, false), row(4, true, true)}),
            "fits from 2 devices on; with nothing kept on the host from 4 devices on\n");
  EXPECT_EQ(least_text({row(1, true, true)}), "fits from 1 device on, with nothing kept on the host\n");
  EXPECT_EQ(least_text({row(1, true, false)}), "fits from 1 device on, with something kept on the host\n");
  EXPECT_EQ(least_text({row(1, false, false), row(2, false, false)}), "does not fit 2 devices\n");
  EXPECT_EQ(least_text({row(1, true, true), row(2, false, false), row(4, true, true)}),
            "fits from 4 devices on, with nothing kept on the host\n")
      << "and not on 2";
  // 256 sequences of 4096 tokens: the best takes a second, what needs no host two.
  const Seed seed;
  EXPECT_TRUE(says(fits_text({row(4, true, true)}, {seed.model, seed.settings, seed.cluster}, true),
                   "| yes, 524288 tokens/s |", "| 1.00 | 1048576 |"));
  const auto j =
      nlohmann::json::parse(json_of({row(4, true, true)}, {seed.model, seed.settings, seed.cluster}));
  EXPECT_EQ(j["on"][0]["best"]["plan"], "dp=1 offload=optimizer");
  EXPECT_EQ(j["on"][0]["on_devices_alone"]["plan"], "dp=1");
}

// 3 MB a device: whether a plan fits, and by how much none does, sought plan by plan.
TEST(Fit, EqualsTheSearchOfEveryPlan) {
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Cluster cluster;
  cluster.devices = 2, cluster.per_node = 2;
  cluster.memory = 3.2e6, cluster.flops = 1e12, cluster.memory_bandwidth = 1e11;
  cluster.node = {1e10, 2e-6, {}, {}};
  cluster.host = {3e9, 3e-6, {}, {}}, cluster.host_memory = 1e9, cluster.host_bandwidth = 2e10;
  Settings step;
  step.batch = 4, step.seq = 32;
  const Settings settings = settings_on(cluster, step);
  const Question q{model, settings, cluster};
  const auto rows =
      fits(q, parse_values("to=host activations=device zero=0 offload=none,optimizer"), [](const Fit&) {});
  ASSERT_EQ(rows.size(), 2u);
  for (const Fit& f : rows) {
    Cluster some = cluster;
    some.devices = f.devices;
    double fastest = 1e9, alone = 1e9, lack = 1e18;
    const Values values = plan_values(
        model, settings, f.devices, parse_values("to=host activations=device zero=0 offload=none,optimizer"));
    each_legal_plan(model, settings, f.devices, values, [&](const Plan& plan) {
      const lockstep::Run run{model, settings, plan};
      const Prediction p = predict_by_trace(run, some);
      const double l = lacks(needs(p, some, run.mesh()), has(some));
      const bool off = plan.text("offload") != "none";
      if (!off) lack = std::min(lack, l);
      if (l > 0) return;
      fastest = std::min(fastest, p.seconds);
      if (!off) alone = std::min(alone, p.seconds);
    });
    EXPECT_EQ(f.best.has_value(), fastest < 1e9) << f.devices;
    if (f.best) {
      EXPECT_NEAR(f.best->seconds / fastest, 1, 1e-6);
    }
    EXPECT_EQ(f.alone.has_value(), alone < 1e9) << f.devices;
    if (f.alone) {
      EXPECT_NEAR(f.alone->seconds / alone, 1, 1e-6);
    } else {
      EXPECT_NEAR(f.alone_lacks, lack, 1);
    }
  }
}

}  // namespace
}  // namespace lockstep
