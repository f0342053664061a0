// `lockstep plan` as a user runs it: what it prints, the record it leaves, the page of that.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>

#include "parallel/price/price.hpp"
#include "reports/h5.hpp"
#include "suites/planner/planner.hpp"
#include "suites/tests/hdf5_reader.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Four devices, two a node, each with so much memory.
std::string cluster_text(double memory_gib) {
  return "name = \"four small ones\"\ndevices = 4\ndevices_per_node = 2\n[device]\nmemory_gib = " +
         std::to_string(memory_gib) +
         "\ntflops = 1\nmemory_gb_per_s = 100\nlaunch_us = 0.1\n[node]\ngb_per_s = 10\nlatency_us = 2\n"
         "[network]\ngb_per_s = 2\nlatency_us = 10\n[host]\nlink_gb_per_s = 3\nlatency_us = 3\nmemory_gib = "
         "1\n"
         "memory_gb_per_s = 20\n";
}

Ended plan_to(const std::string& cluster, const std::string& out) {
  return lockstep_program("plan " + tiny_model + "--cluster '" + cluster +
                          "' --batch 8 --seq 32 --top 3 --out '" + out +
                          "' --words 'to=host activations=device,host offload=none,optimizer'");
}

std::string bytes_of_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// "weighed 1,234 legal plans": the number before these words.
i64 printed(const std::string& text, const std::string& words) {
  std::smatch found;
  if (!std::regex_search(text, found, std::regex("([0-9,]+) " + words))) return -1;
  std::string digits = found[1];
  digits.erase(std::remove(digits.begin(), digits.end(), ','), digits.end());
  return std::stoll(digits);
}

TEST(ProgramPlan, KeepsWhatItSays) {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("four.toml", cluster_text(0.003)), out = folder.path() + "/out";
  const Ended ended = plan_to(cluster, out);
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "record: " + out + "/plan.h5"));
  EXPECT_FALSE(std::filesystem::exists(out + "/plan.h5.tmp"));
  const h5::Reader file(out + "/plan.h5");
  const Hdf5Reader numbers(out + "/plan.h5");
  EXPECT_EQ(file.attribute("format"), "lockstep planner");
  EXPECT_EQ(file.attribute("cluster_text"), bytes_of_file(cluster));
  EXPECT_TRUE(says(file.attribute("again"), "--devices 4 --batch 8 --seq 32", "offload=none,optimizer"));
  EXPECT_TRUE(says(file.attribute("model_config"), "LlamaForCausalLM"));

  // Counts as printed, which add up.
  const auto plans = file.strings("/plans/plan");
  const i64 legal = numbers.attribute<i64>("legal"), misfits = numbers.attribute<i64>("misfits");
  EXPECT_EQ(legal, printed(ended.out, "legal plans"));
  EXPECT_EQ(static_cast<i64>(plans.size()), printed(ended.out, "fit\n"));
  EXPECT_EQ(misfits, printed(ended.out, "do not fit"));
  EXPECT_EQ(static_cast<i64>(plans.size()) + misfits, legal);
  EXPECT_GT(misfits, 0);
  const auto refused = numbers.read<i64>("/refused/plans");
  EXPECT_EQ(std::accumulate(refused.begin(), refused.end(), legal), numbers.attribute<i64>("combinations"));
  std::map<std::string, i64> by_word;
  const auto words = file.strings("/legal/word");
  const auto counts = numbers.read<i64>("/legal/plans");
  for (std::size_t i = 0; i < words.size(); ++i) by_word[words[i]] += counts[i];
  for (const auto& [word, n] : by_word) EXPECT_EQ(n, legal) << word;

  // What was asked about, by hand: gate-tiny, whose 8 layers have 64 (64 + 64 + 32) + 3 64 172 weights in
  // matmuls and 2 64 in norms, on four devices of 1 TFLOP/s that keep 16-bit weights.
  const double layer = 64 * (64 + 64 + 32) + 3 * 64 * 172, weights = 8 * layer + 509 * 64, n = 8 * 32;
  EXPECT_EQ(numbers.attribute<i64>("parameters"), static_cast<i64>(weights) + 8 * 2 * 64 + 64);
  EXPECT_DOUBLE_EQ(numbers.attribute<double>("model_flops"), n * (6 * weights + 6 * 8 * 64 * 32));
  EXPECT_DOUBLE_EQ(numbers.attribute<double>("peak_flops"), 4e12);
  EXPECT_EQ(numbers.attribute<i64>("devices"), 4);
  EXPECT_EQ(numbers.attribute<i64>("devices_per_node"), 2);
  EXPECT_EQ(numbers.attribute<i64>("weight_bytes"), 2);
  EXPECT_EQ(numbers.attribute<i64>("gradient_bytes"), 4);
  EXPECT_NEAR(numbers.attribute<double>("has_device"), 0.003 * (1 << 30), 1);
  EXPECT_NEAR(numbers.attribute<double>("has_host"), 1 << 30, 1);
  EXPECT_LT(numbers.attribute<double>("least_lack"), numbers.attribute<double>("most_lack"));

  // The fastest first; all fit; tokens a second are the batch's over the step's.
  const auto seconds = numbers.read<double>("/plans/seconds"),
             speed = numbers.read<double>("/plans/tokens_per_second");
  const auto device = numbers.read<double>("/plans/bytes/device"),
             host = numbers.read<double>("/plans/bytes/host");
  EXPECT_TRUE(std::is_sorted(seconds.begin(), seconds.end()));
  for (std::size_t i = 0; i < plans.size(); ++i) {
    EXPECT_NEAR(speed[i] * seconds[i], 8 * 32, 1e-6);
    EXPECT_LE(device[i], 0.003 * 1024 * 1024 * 1024);
    const bool aside =
        plans[i].find("=host") != std::string::npos || plans[i].find("offload") != std::string::npos;
    EXPECT_EQ(host[i] > 0, aside) << plans[i];
    EXPECT_EQ(numbers.read<double>("/plans/bytes/disk")[i], 0) << plans[i];
  }

  // By word and value the fastest that has it, sought in the list.
  const auto values = file.strings("/best/value"), best = file.strings("/best/plan"),
             of = file.strings("/best/word");
  for (std::size_t i = 0; i < of.size(); ++i)
    if (of[i] == "tp") {
      const auto first = std::find_if(plans.begin(), plans.end(), [&](const std::string& p) {
        return p.find(" tp=" + values[i] + " ") != std::string::npos;
      });
      ASSERT_NE(first, plans.end());
      EXPECT_DOUBLE_EQ(numbers.read<double>("/best/seconds")[i], seconds[first - plans.begin()]) << best[i];
    }

  // The best few: the same plans; their time by kind is the whole step.
  const auto top = file.strings("/top/plan"), why = file.strings("/top/why"),
             lines = file.strings("/top/timeline");
  ASSERT_EQ(top.size(), 3u);
  std::vector<double> sum(3, 0);
  for (const std::string& kind : file.list("/top/time")) {
    const auto column = numbers.read<double>("/top/time/" + kind);
    for (std::size_t i = 0; i < 3; ++i) sum[i] += column[i];
  }
  std::vector<std::size_t> at;  // of these among all: each the first of those with its seconds and bytes
  for (std::size_t i = 0; i < plans.size(); ++i)
    if (at.empty() || seconds[i] != seconds[at.back()] || device[i] != device[at.back()]) at.push_back(i);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(top[i], plans[at[i]]);
    EXPECT_NEAR(sum[i] / seconds[at[i]], 1, 1e-6);
    EXPECT_TRUE(says(lines[i], "\"streams\"", "forward"));
    EXPECT_NEAR(numbers.read<double>("/top/together")[i] + numbers.read<double>("/top/beside")[i],
                device[at[i]], 1);
    EXPECT_EQ(numbers.read<double>("/top/beside")[i], 0) << "the cluster has no [process]";
  }
  // What the fullest stage holds by kind, by the formulas that a run is held to; a kind of which none holds
  // any is left out.
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings settings;
  settings.batch = 8, settings.seq = 32;
  settings = settings_on(load_cluster(cluster), settings);
  const auto stage = numbers.read<i64>("/top/fullest_stage");
  const auto kinds = file.list("/top/memory");
  EXPECT_GE(kinds.size(), 6u);
  for (std::size_t i = 0; i < 3; ++i) {
    const Plan plan = Plan::parse(top[i]);
    const Mesh mesh = lockstep::Run{model, settings, plan}.mesh();
    const KindBytes bytes = peak_bytes(plan, model, settings, mesh.rank_of(0, 0, static_cast<int>(stage[i])));
    for (std::size_t k = 0; k < bytes.size(); ++k) {
      const std::string kind = kind_name(static_cast<Kind>(k));
      const bool kept = std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
      EXPECT_EQ(kept ? numbers.read<double>("/top/memory/" + kind)[i] : 0, bytes[k]) << top[i] << " " << kind;
    }
  }
  EXPECT_TRUE(says(why[0], "the next one", "slower"));
  EXPECT_TRUE(says(why[1], "slower than the first"));
}

TEST(ProgramPlan, KeepsTheFileOfAGroupsCluster) {
  const TemporaryFolder folder;
  const Ended ended = lockstep_program(
      "plan " + tiny_model +
      "--cluster suites/published/nemo.toml:h100_80gb --devices 2 --batch 2 --seq 32 --words "
      "'zero=0 ckpt=none offload=none activations=device' --out " +
      folder.path());
  EXPECT_EQ(ended.status, 0) << ended.err;
  const h5::Reader file(folder.path() + "/plan.h5");
  EXPECT_EQ(file.attribute("cluster_text"), bytes_of_file("suites/published/nemo.toml"));
}

TEST(ProgramPlan, WhatDoesNotFitIsSaidFirst) {
  const Ended ended = lockstep_program(
      "plan --model suites/models/llama-2-13b.json --cluster suites/clusters/h100x64.toml --batch 256 --seq "
      "4096 "
      "--explain dp=64");
  EXPECT_EQ(ended.status, 0);
  EXPECT_TRUE(says(ended.out, "\n  does not fit the device: 252.5 GiB needed, 79.1 GiB there; if it did:\n"))
      << ended.out;
}

// Legal plans of two devices with these words.
i64 legal(const std::string& words) {
  const TemporaryFolder folder;
  const Ended ended =
      lockstep_program("plan " + tiny_model + "--cluster '" + folder.write("four.toml", cluster_text(1)) +
                       "' --devices 2 --batch 2 --seq 32 --words '" + words + "'");
  EXPECT_EQ(ended.status, 0) << ended.err;
  return printed(ended.out, "legal plans");
}

TEST(ProgramPlan, WordsThatAreNotNamedKeepTheirDefault) {
  EXPECT_EQ(legal("zero=0"), legal("zero=0 to=host activations=device,host"));
  EXPECT_EQ(legal("zero=0 to=host,disk"), legal("zero=0 to=host,disk activations=device,host"));
  EXPECT_LT(legal("zero=0"), legal("zero=0 to=host,disk"));
  EXPECT_LT(legal("zero=0 activations=device"), legal("zero=0"));
}

TEST(ProgramPlan, ThatNothingFitsIsAnExitStatusHoweverItIsAsked) {
  const TemporaryFolder folder;
  const std::string asked = "plan " + tiny_model + "--batch 8 --seq 32 --words 'offload=none micro=1 sp=0' ";
  for (const auto& [memory, status] : {std::pair{0.0001, 1}, {1.0, 0}}) {
    const std::string cluster = "--cluster '" + folder.write("four.toml", cluster_text(memory)) + "' ";
    for (const char* how : {"--fit", "--fit --json", "--export megatron"}) {
      const Ended ended = lockstep_program(asked + cluster + how);
      EXPECT_EQ(ended.status, status) << how << ended.out << ended.err;
      EXPECT_EQ(ended.out.empty(), status == 1 && how == std::string("--export megatron")) << ended.out;
    }
  }
}

TEST(ProgramPlan, KeepsThatNothingFits) {
  const TemporaryFolder folder;
  const Ended ended = plan_to(folder.write("four.toml", cluster_text(0.0001)), folder.path());
  EXPECT_EQ(ended.status, 1) << ended.err;
  const h5::Reader file(folder.path() + "/plan.h5");
  EXPECT_TRUE(file.strings("/plans/plan").empty());
  EXPECT_TRUE(says(ended.out, "the closest is `" + file.attribute("closest") + "`"));
}

const std::string on_device = "--words 'activations=device offload=none' ";

Ended plan_json(double memory_gib, const std::string& more) {
  const TemporaryFolder folder;
  return lockstep_program("plan " + tiny_model + "--cluster '" +
                          folder.write("four.toml", cluster_text(memory_gib)) +
                          "' --batch 8 --seq 32 --json " + more);
}

// Llama 3 405B was trained on dp=64 tp=8 pp=16, then dp=128 (table 4 of its paper), 2048 sequences a step,
// with interleaved stages and gradients that accumulate over microbatches. Nothing is fitted to it.
TEST(ProgramPlan, FindsTheMeshesOfLlama3) {
  for (const char* devices : {"8192", "16384"}) {
    const Ended ended = lockstep_program(
        "plan --model suites/models/llama-3.1-405b.json --cluster suites/clusters/h100x64.toml --batch 2048 "
        "--seq 8192 --words 'offload=none activations=device' --json --devices " +
        std::string(devices));
    ASSERT_EQ(ended.status, 0) << ended.err;
    const std::string best = nlohmann::json::parse(ended.out)["plans"][0]["plan"];
    EXPECT_NE(best.find("tp=8 pp=16"), std::string::npos) << best;
    EXPECT_NE(best.find("schedule=interleaved"), std::string::npos) << best;
    EXPECT_NE(best.find("zero=1"), std::string::npos) << best;
  }
}

// The same answer as in words, with numbers that agree among themselves.
TEST(ProgramPlan, AnswersPrograms) {
  const Ended ended = plan_json(0.003, on_device + "--top 4 --pareto");
  ASSERT_EQ(ended.status, 0) << ended.err;
  const auto j = nlohmann::json::parse(ended.out);
  EXPECT_EQ(j["devices"], 4);
  ASSERT_EQ(j["plans"].size(), 4u);
  double before = 0;
  const double flops = 8 * 32 * (6 * (8 * (64 * (64 + 64 + 32) + 3 * 64 * 172) + 509 * 64) + 6 * 8 * 64 * 32);
  for (const auto& plan : j["plans"]) {
    const double seconds = plan["step_seconds"];
    EXPECT_GE(seconds, before);
    before = seconds;
    EXPECT_NEAR(plan["tokens_per_second"].get<double>() * seconds, 8 * 32, 1e-6);
    EXPECT_NEAR(plan["of_peak"].get<double>() * seconds * 4e12 / flops, 1, 1e-9);
    EXPECT_LE(plan["bytes"]["device"], j["has_bytes"]["device"]);
    EXPECT_EQ(plan["fits"], true);
    double sum = 0;
    for (const auto& [kind, part] : plan["seconds_by_kind"].items()) sum += part.get<double>();
    EXPECT_NEAR(sum / seconds, 1, 1e-6);
    EXPECT_GT(plan["peak_bytes_by_kind"]["weights"], 0);
  }
  const double fastest = j["plans"][0]["step_seconds"];
  EXPECT_EQ(j["alike"][0]["plan"], j["plans"][0]["plan"]);
  for (const auto& plan : j["alike"]) EXPECT_LE(plan["step_seconds"].get<double>(), fastest * 1.01);
  ASSERT_GE(j["pareto"].size(), 2u);
  for (std::size_t i = 1; i < j["pareto"].size(); ++i)
    EXPECT_LT(j["pareto"][i]["bytes"]["device"], j["pareto"][i - 1]["bytes"]["device"]);
  i64 refused = 0;
  for (const auto& [rule, n] : j["refused"].items()) refused += n.get<i64>();
  EXPECT_GT(refused, 0);

  const std::string first = j["plans"][0]["plan"];
  const auto one = nlohmann::json::parse(plan_json(0.003, "--explain '" + first + "'").out);
  EXPECT_EQ(one["plans"][0], j["plans"][0]);

  const auto rows = nlohmann::json::parse(plan_json(0.003, on_device + "--fit").out)["on"];
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0]["devices"], 1);
  EXPECT_TRUE(rows[0]["best"].is_null());  // too much for one device
  EXPECT_EQ(rows[2]["best"]["plan"], first);
  const auto roomy = nlohmann::json::parse(plan_json(1, on_device + "--fit").out);
  ASSERT_EQ(roomy["on"].size(), 3u);
  for (const auto& row : roomy["on"]) {
    const auto& best = row["best"];  // of the peak of as many devices as the row has
    EXPECT_NEAR(best["of_peak"].get<double>() * best["step_seconds"].get<double>() *
                    row["devices"].get<double>() * 1e12 / flops,
                1, 1e-9);
  }
}

TEST(ProgramPlan, TellsProgramsThatNothingFits) {
  const Ended ended = plan_json(0.0001, on_device + "--pareto");
  EXPECT_EQ(ended.status, 1);
  const auto j = nlohmann::json::parse(ended.out);
  EXPECT_TRUE(j["plans"].empty() && j["alike"].empty() && j["pareto"].empty());
  EXPECT_EQ(j["fit"], 0);
  EXPECT_GT(j["closest_misfit"]["lacks_bytes"], 0);
  // What this plan needs of a device is more than there is by that much.
  const std::string closest = j["closest_misfit"]["plan"];
  const auto bytes = nlohmann::json::parse(plan_json(0.0001, "--explain '" + closest + "'").out)["plans"][0];
  EXPECT_EQ(bytes["fits"], false);
  EXPECT_NEAR(bytes["bytes"]["device"].get<double>() - j["has_bytes"]["device"].get<double>(),
              j["closest_misfit"]["lacks_bytes"].get<double>(), 2);
}

// Gradients of 2 bytes for 4 (the cluster's), and which kernels take the time, where that is asked for.
TEST(ProgramPlan, OptionsOfOnePlanAreHeeded) {
  const auto gradients = [](const std::string& more) {
    const auto j = nlohmann::json::parse(plan_json(1, "--explain dp=4 " + more).out);
    return j["plans"][0]["peak_bytes_by_kind"]["gradients"].get<i64>();
  };
  EXPECT_EQ(gradients(""), 2 * gradients("--gradient-bytes 2"));
  EXPECT_EQ(gradients(""), gradients("--gradient-bytes 4"));
  const TemporaryFolder folder;
  const std::string plan = "plan " + tiny_model + "--cluster '" + folder.write("four.toml", cluster_text(1)) +
                           "' --batch 8 --seq 32 --explain dp=4 ";
  EXPECT_FALSE(says(lockstep_program(plan).out, "attention_dx"));
  EXPECT_TRUE(says(lockstep_program(plan + "--kernels").out, "attention_dx", "adamw"));
}

TEST(ProgramPlan, AFolderThatCannotBeIsSaidFirst) {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("four.toml", cluster_text(0.003));
  const Ended ended = plan_to(cluster, cluster + "/out");
  EXPECT_EQ(ended.status, 2);
  EXPECT_EQ(ended.out.find("weighed"), std::string::npos);
  EXPECT_TRUE(says(ended.err, "--out", "a folder that can be written"));
}

TEST(ProgramPage, OfThePlannersAnswer) {
  const std::string python = "build/venv/bin/python";
  if (!std::filesystem::exists(python)) GTEST_SKIP() << "no " << python << "; `ci/venv.sh report` makes it";
  const TemporaryFolder folder;
  const std::string cluster = folder.write("four.toml", cluster_text(0.003)),
                    poor = folder.write("poor.toml", cluster_text(0.0001));
  ASSERT_EQ(plan_to(cluster, folder.path() + "/fits").status, 0);
  ASSERT_EQ(plan_to(poor, folder.path() + "/nothing").status, 1);
  const std::string log = folder.path() + "/log";
  const int status = std::system(
      (python + " reports/plan_page_test.py '" + folder.path() + "' >'" + log + "' 2>&1").c_str());
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << bytes_of_file(log);
  EXPECT_EQ(status, 0) << bytes_of_file(log);
}

// A file that says nothing of what is reached, one of nodes that are not full, and whose speed it is.
TEST(ProgramPlan, WhatIsTakenForGrantedIsSaid) {
  const TemporaryFolder folder;
  const std::string text =
      "name = \"x\"\ndevices = 8\ndevices_per_node = 4\n[device]\nmemory_gib = 80\ntflops = 900\n"
      "memory_gb_per_s = 3000\n[node]\ngb_per_s = 400\n[network]\ngb_per_s = 50\n";
  const auto planned = [&](const std::string& cluster, const std::string& more) {
    return lockstep_program("plan --model suites/models/gate-tiny.json --batch 8 --seq 16 --cluster '" +
                            cluster + "' " + more);
  };
  const std::string plain = folder.write("plain.toml", text),
                    known = folder.write("known.toml", text +
                                                           "[efficiency]\nmatmul = [[1e9, 0.5]]\n"
                                                           "[process]\ncontext_gib = 1\n");
  for (const char* more : {"--explain dp=8", "--explain dp=8 --json"})
    EXPECT_EQ(planned(plain, more).err,
              plain +
                  ": it has no [efficiency] and no [grid], so each kernel is taken to "
                  "reach all of the peak\n" +
                  plain +
                  ": it has no [process], so a process is taken to hold nothing beside the plan's own "
                  "buffers\n");
  EXPECT_EQ(planned(known, "--explain dp=8").err, "");
  const std::string whose = "for an executor that loses time only to messages and pipeline bubbles";
  EXPECT_TRUE(says(planned(known, "--explain dp=8").out, whose, "suites/published/"));
  const Ended fitted = planned("suites/published/nemo.toml:h100_80gb", "--devices 8 --explain dp=8");
  EXPECT_EQ(fitted.status, 0) << fitted.err;
  EXPECT_EQ(fitted.out.find(whose), std::string::npos) << fitted.out;
  const Ended uneven = planned(known, "--devices 6 --explain dp=6");
  EXPECT_EQ(uneven.status, 2) << uneven.out;
  EXPECT_TRUE(says(uneven.err, "6 devices fill no whole number of nodes of 4"));
  EXPECT_EQ(planned(known, "--devices 2 --explain dp=2").status, 0);
}

}  // namespace
}  // namespace lockstep
