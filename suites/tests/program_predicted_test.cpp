// A sweep with a cluster's file: predicted beside measured, and what going on with another file means.
#include <gtest/gtest.h>

#include <cmath>

#include "reports/h5.hpp"
#include "suites/planner/prediction.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// A machine of two devices, whose weights and activations are numbers of so many bytes.
std::string cluster_text(const std::string& tflops, int bytes = 4) {
  const std::string b = std::to_string(bytes);
  return "name = \"made up\"\ndevices = 2\ndevices_per_node = 2\n[device]\nmemory_gib = 1\ntflops = " +
         tflops + "\nmemory_gb_per_s = 100\nlaunch_us = 0.1\nweight_bytes = " + b +
         "\ngradient_bytes = 4\nactivation_bytes = " + b + "\n[node]\ngb_per_s = 10\nlatency_us = 2\n";
}

std::string timed_suite(const std::string& more) {
  return suite_text(
      "batch = 8\nseq = 16\nclip = 0.5\nlr = 0.01\nwarmup = 1\ntimed_steps = 2\ntimed_steps_most = 2\n" +
      more + "[axes]\ntp = [1, 2]\npp = [1, 2]\n");
}

// By the slow way, which shares nothing with the planner's but the traces and the costs.
double by_trace(const std::string& plan, const std::string& cluster_path) {
  const Cluster cluster = load_cluster(cluster_path);
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  Settings s;
  s.batch = 8, s.seq = 16;
  return predict_by_trace({model, settings_on(cluster, s), Plan::parse(plan)}, cluster).seconds;
}

std::vector<double> predicted(const std::string& run) {
  return h5::Reader(run).read<double>("/plans/predicted_seconds").values;
}

TEST(ProgramPredicted, BesideWhatIsTimedAndOfThePresentCluster) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("tiny.toml", timed_suite("cluster = \"one.toml\"\n")),
                    one = folder.write("one.toml", cluster_text("0.05")),
                    two = folder.write("two.toml", cluster_text("0.025")), out = folder.path() + "/out",
                    run = out + "/run.h5";
  const Ended first = lockstep_program("sweep " + suite + " --out " + out);
  ASSERT_EQ(first.status, 0) << first.out << first.err;
  const auto plans = h5::Reader(run).strings("/plans/plan");
  const auto timed = h5::Reader(run).read<i64>("/plans/timed").values;
  const auto expect = [&](const std::string& cluster) {
    const auto seconds = predicted(run);
    for (std::size_t i = 0; i < plans.size(); ++i)
      if (timed[i] && Plan::parse(plans[i]).ranks() <= 2) {
        EXPECT_NEAR(seconds[i] / by_trace(plans[i], cluster), 1, 1e-6) << plans[i];
      } else {
        EXPECT_TRUE(std::isnan(seconds[i])) << plans[i];
      }
  };
  expect(one);
  EXPECT_TRUE(says(h5::Reader(run).attribute("predicted_with"), "tflops = 0.05"));

  // Another cluster: no plan runs again, and all predictions are its own.
  const auto measured = h5::Reader(run).read<double>("/plans/tokens_per_second").values;
  const Ended again = lockstep_program("sweep " + suite + " --out " + out + " --cluster " + two);
  ASSERT_EQ(again.status, 0) << again.out << again.err;
  EXPECT_TRUE(says(again.out + again.err, "4 of 4 plans are recorded"));
  expect(two);
  const auto still = h5::Reader(run).read<double>("/plans/tokens_per_second").values;
  for (std::size_t i = 0; i < still.size(); ++i)
    EXPECT_TRUE(still[i] == measured[i] || (std::isnan(still[i]) && std::isnan(measured[i])));

  // None: nothing is predicted.
  folder.write("tiny.toml", timed_suite(""));
  ASSERT_EQ(lockstep_program("sweep " + suite + " --out " + out).status, 0);
  for (const double seconds : predicted(run)) EXPECT_TRUE(std::isnan(seconds));
  EXPECT_EQ(h5::Reader(run).attribute("predicted_with"), "");
}

TEST(ProgramPredicted, ADeviceOfOtherNumbersIsRefused) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("tiny.toml", timed_suite("")),
                    half = folder.write("half.toml", cluster_text("0.05", 2));
  const Ended ended = lockstep_program("sweep " + suite + " --cluster " + half);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "of 2, 4 and 2 bytes, and the suite's are of 4, 4 and 4",
                   "`lockstep calibrate --dtype float32`"));
  const std::string bf16 = folder.write("bf16.toml", timed_suite("dtype = \"bf16\"\n")),
                    one = folder.write("one.toml", cluster_text("0.05"));
  const Ended other = lockstep_program("sweep " + bf16 + " --cluster " + one);
  EXPECT_EQ(other.status, 2);
  EXPECT_TRUE(says(other.err, "`lockstep calibrate --dtype bf16`"));
  const Ended fits = lockstep_program("sweep " + bf16 + " --out " + folder.path() + "/out --cluster " + half);
  EXPECT_EQ(fits.status, 0) << fits.err;
  EXPECT_EQ(lockstep_program("sweep " + suite + " --cluster " + folder.path() + "/no.toml").status, 2);
}

}  // namespace
}  // namespace lockstep
