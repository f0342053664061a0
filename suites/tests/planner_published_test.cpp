// Published measurements: reading them, and what is said of them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "suites/planner/published.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

const std::string columns =
    "source,model,layers,hidden,heads,ffn,vocab,seq,gpus,gpu_type,dp,tp,pp,"
    "micro_batch,global_batch,metric,value\n";
const std::string cluster =
    "[cluster.g]\ndevices = 8\ndevices_per_node = 8\n[cluster.g.device]\nmemory_gib = 80\n"
    "tflops = 300\nmemory_gb_per_s = 2000\n[cluster.g.node]\ngb_per_s = 300\n";

PublishedGroup group(const TemporaryFolder& folder, const std::string& toml, const std::string& csv) {
  folder.write("g.csv", csv);
  return load_published_group(folder.write("g.toml", toml));
}

std::string mistake(const std::string& toml, const std::string& csv) {
  const TemporaryFolder folder;
  return refusal([&] {
    const PublishedGroup g = group(folder, toml, csv);
    score(g, "", [](const PublishedRow&) {});
  });
}

TEST(Published, MistakesAreNamedWithTheirPlace) {
  const std::string head = "name = \"n\"\nshape = \"gpt\"\n",
                    row = "s,m,2,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1\n";
  EXPECT_EQ(mistake(head + cluster, "# who\n" + columns + row), "");
  EXPECT_TRUE(says(mistake(head + cluster, "source,modle,metric,value\n"), "g.csv:1", "`modle`", "`model`"));
  EXPECT_TRUE(says(mistake(head + cluster, columns + "s,m\n"), "g.csv:2", "2 fields, but 17 columns"));
  EXPECT_TRUE(says(mistake(head + cluster, columns + "s,m,two,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1\n"),
                   "g.csv:2", "layers is `two`"));
  EXPECT_TRUE(says(mistake(head + cluster, columns + "s,m,2,64,4,256,512,64,1,x,1,1,1,1,2,iter_s,1\n"),
                   "no [cluster.x]"));
  EXPECT_TRUE(says(mistake(head + "[[row]]\nwhen = {modl = \"m\"}\n" + cluster, columns + row), "g.toml:4",
                   "no column `modl`", "`model`"));
  EXPECT_TRUE(says(mistake("name = \"n\"\nshape = \"moe\"\n" + cluster, columns + row), "gpt or llama"));
  EXPECT_TRUE(says(mistake(head + "[bar.other]\nmean = 1\n" + cluster, columns + row), "[bar.other]"));
  EXPECT_TRUE(says(mistake(head + "[[row]]\nplan = \"zerro=1\"\n" + cluster, columns + row), "zerro"));
}

TEST(Published, RowsAreScoredByTheirReason) {
  const TemporaryFolder folder;
  const std::string toml =
      "name = \"n\"\nshape = \"gpt\"\n[[row]]\nwhen = {model = \"odd\"}\nskip = \"an odd one\"\n"
      "[[fitted]]\nrows = [1]\nwhat = \"all\"\n" +
      cluster;
  const PublishedGroup g = group(
      folder, toml,
      columns +
          "s,a,2,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1\ns,odd,2,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1\n"
          "s,a,2,64,4,256,512,64,2,g,1,1,1,1,2,iter_s,1\ns,a,2,64,4,256,512,64,1,g,1,1,1,1,2,furlongs,1\n"
          "\"s\",a,2,64,4,256,512,64,1,g,1,1,1,,2,iter_s,1\ns,a,2,64,4,256,512,64,1,g,1,1,1,1,2,status,"
          "OOM\n");
  const ScoredGroup all = score(g, "", [](const PublishedRow&) {});
  ASSERT_EQ(all.sources.size(), 1u);
  const SourceScore& s = all.sources[0];
  EXPECT_EQ(s.rows, 6);
  EXPECT_EQ(s.scored, 2);
  EXPECT_EQ(s.fitted, 1);
  EXPECT_TRUE(s.errors.empty());
  EXPECT_EQ(s.unscored.at("an odd one"), 1);
  EXPECT_EQ(s.unscored.at("dp x tp x pp is not the number of GPUs"), 1);
  EXPECT_EQ(s.unscored.at("metric furlongs"), 1);
  EXPECT_EQ(s.unscored.at("no micro_batch said"), 1);
  // The same run is in the table as done and as out of memory.
  EXPECT_EQ(s.contradictory, 2);
}

TEST(Published, MetricsEqualClosedForms) {
  // 1 - 6 sum d^2 / (n (n^2 - 1)), without ties: d = 1, 1, 0, 1, 1.
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3, 4, 5}, {2, 1, 3, 5, 4}), 1 - 6.0 * 4 / (5 * 24));
  EXPECT_DOUBLE_EQ(rank_correlation({1, 2, 3}, {30, 20, 10}), -1);
  // Ties take their mean rank: 1.5, 1.5, 3 against 1, 2, 3: 1.5 / sqrt(1.5 * 2).
  EXPECT_NEAR(rank_correlation({5, 5, 9}, {1, 2, 3}), std::sqrt(3.0) / 2, 1e-12);
  EXPECT_EQ(rank_correlation({1, 1}, {1, 2}), 0);
  EXPECT_DOUBLE_EQ(regret({3, 2, 1}, {75, 100, 50}), 0.25);
  EXPECT_DOUBLE_EQ(median_of({4, 1, 3, 2}), 2.5);
  Detection d;
  for (const auto& [said, so] :
       {std::pair{true, true}, {true, true}, {true, false}, {false, true}, {false, false}})
    d.add(said, so);
  EXPECT_DOUBLE_EQ(d.precision(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(d.recall(), 2.0 / 3);
}

// 72 B L s h^2 (1 + s/6h + V/12hL), with recomputation 96 B L s h^2 (1 + s/6h + V/16hL) (Narayanan et al.
// 2021, section 5.1), of GPT-3 175B; and the block that stands for a GELU block has its weights.
TEST(Published, AGeluBlockCountsAsThePapersSay) {
  const double B = 64, L = 96, s = 2048, h = 12288, V = 51200;
  const CountedModel m{L, h, h, 4 * h, V, s, 2};
  EXPECT_NEAR(counted_flops(m, B) / (72 * B * L * s * h * h * (1 + s / (6 * h) + V / (12 * h * L))), 1,
              1e-12);
  EXPECT_NEAR((counted_flops(m, B) + recomputed_flops(m, B, Recomputed::layers)) /
                  (96 * B * L * s * h * h * (1 + s / (6 * h) + V / (16 * h * L))),
              1, 1e-12);
  EXPECT_EQ(3 * swiglu_width(49152, 8), 2 * 49152);
  EXPECT_EQ(swiglu_width(4096, 8) % 8, 0);
  EXPECT_NEAR(3.0 * static_cast<double>(swiglu_width(4096, 8)) / (2 * 4096), 1, 0.002);
}

// What Calculon and vTrain reach on their own clusters, on rows that nothing was fitted on.
TEST(Published, MegatronsTablesAreMet) {
  for (const char* name : {"vtrain", "megatron-2022"}) {
    const PublishedGroup g = load_published_group(fmt::format("suites/published/{}.toml", name));
    EXPECT_FALSE(g.bars.empty());
    const ScoredGroup all = score(g, "", [](const PublishedRow&) {});
    for (const SourceScore& s : all.sources) {
      EXPECT_TRUE(s.missed.empty()) << s.source;
      if (g.bars.count(s.source)) {
        EXPECT_LE(s.fitted, s.rows / 8) << s.source;
      }
    }
  }
}

TEST(Published, AMissedBarIsSaid) {
  Bar bar;
  bar.mean = 10, bar.worst = 30, bar.rank = 0.9;
  SourceScore s;
  s.errors = {0.05, 0.25};
  s.ranked = {{"m", 2, 0, 0.5}};
  EXPECT_EQ(missed(bar, s).size(), 2u);
  EXPECT_TRUE(says(missed(bar, s)[0], "mean", "15.00", "10"));
  bar.mean = 15, bar.rank = 0.5;
  EXPECT_TRUE(missed(bar, s).empty());
  s.errors.clear();
  EXPECT_TRUE(says(missed(bar, s)[0], "nothing was scored"));
}

// A plan may be asked for as a group's trainer would run it.
TEST(PublishedGroups, TheirClustersArePlannedOn) {
  const Cluster nemo = load_cluster("suites/published/nemo.toml:h100_80gb");
  EXPECT_EQ(nemo.flops, 989.4e12);
  EXPECT_EQ(nemo.trainer.exposed_tp, 0.456);
  const auto complaint = [](const char* path) -> std::string {
    try {
      load_cluster(path);
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(complaint("suites/published/nemo.toml:b200"),
            "suites/published/nemo.toml: no cluster `b200`; there are h100_80gb");
  EXPECT_NE(complaint("suites/published/nemo.toml").find("write suites/published/nemo.toml:h100_80gb"),
            std::string::npos);
  EXPECT_EQ(complaint("suites/clusters/h100x64.toml:h100_80gb"),
            "suites/clusters/h100x64.toml: this is a cluster, and no group of published rows");
}

}  // namespace
}  // namespace lockstep
