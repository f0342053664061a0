// A cluster's file with a misspelled key: the sentence names that, not what is missing for it.
#include <gtest/gtest.h>

#include "suites/planner/cluster.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

TEST(Clusters, AMisspelledKeyIsNamedWithTheOneThatWasMeant) {
  const TemporaryFolder folder;
  const auto mistake = [&](const std::string& right, const std::string& wrong) {
    std::string text =
        "devices = 16\ndevices_per_node = 8\n"
        "[device]\nmemory_gib = 1\ntflops = 1\nmemory_gb_per_s = 1\nlaunch_us = 2\n"
        "[node]\ngb_per_s = 450\n[network]\nlatency_us = 5\ngb_per_s = 50\n"
        "[host]\nlink_gb_per_s = 55\nmemory_gib = 240\nmemory_gb_per_s = 60\n"
        "[pace]\nmatmul_gflops = 50\ncopy_gb_per_s = 10\n"
        "[grid.matmul]\nrows = [1]\ncolumns = [1]\nsums = [1]\ngflops = [1]\n";
    text.replace(text.find(right), right.size(), wrong);
    return refusal([&] { load_cluster(folder.write("c.toml", text)); });
  };
  EXPECT_EQ(mistake("tflops", "tflops"), "");
  struct Typo {
    const char *right, *wrong, *where, *sentence;
  };
  for (const Typo& t : {
           Typo{"devices =", "devcies =", "c.toml:1: ",
                "no key `devcies` in the file; did you mean `devices`?"},
           {"devices_per_node", "gpus_per_node",
            "c.toml:2: ", "no key `gpus_per_node` in the file; did you mean `devices_per_node`?"},
           {"[device]", "[devcie]", "c.toml:3: ", "no key `devcie` in the file; did you mean `device`?"},
           // A word that is there already is near, too.
           {"memory_gib = 1\n", "memory_gb = 1\n",
            "c.toml:4: ", "no key `memory_gb` in [device]; did you mean `memory_gib`?"},
           {"tflops", "tflop", "c.toml:5: ", "no key `tflop` in [device]; did you mean `tflops`?"},
           {"launch_us", "lunch_us",
            "c.toml:7: ", "no key `lunch_us` in [device]; did you mean `launch_us`?"},
           {"[node]", "[nodes]", "c.toml:8: ", "no key `nodes` in the file; did you mean `"},
           {"gb_per_s = 450", "gb_per_sec = 450",
            "c.toml:9: ", "no key `gb_per_sec` in [node]; did you mean `gb_per_s`?"},
           // Near nothing.
           {"gb_per_s = 450", "speed = 450", "c.toml:9: ", "no key `speed` in [node]; gb_per_s is missing"},
           {"[network]", "[netwrok]", "c.toml:10: ", "no key `netwrok` in the file; did you mean `"},
           {"link_gb_per_s", "link_gb_s", "c.toml:14: ", "in [host]; did you mean `link_gb_per_s`?"},
           {"copy_gb_per_s", "copy_gbps", "c.toml:19: ", "in [pace]; did you mean `copy_gb_per_s`?"},
           {"sums", "sum_s", "c.toml:23: ", "in [grid.matmul]; did you mean `sums`?"},
           {"gflops = [1]", "gflop = [1]", "c.toml:24: ", "in [grid.matmul]; did you mean `gflops`?"},
       }) {
    const std::string said = mistake(t.right, t.wrong);
    EXPECT_TRUE(says(said, t.where, t.sentence)) << said;
  }
  EXPECT_TRUE(says(mistake("tflops = 1\n", ""), "c.toml: tflops is missing in [device]"));
  EXPECT_TRUE(
      says(mistake("[device]\n", ""), "c.toml:6: no key `launch_us` in the file; [device] is missing"));
}

}  // namespace
}  // namespace lockstep
