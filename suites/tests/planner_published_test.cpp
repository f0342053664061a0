// Published measurements: reading them, and what is said of them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "suites/planner/published/published.hpp"
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
      "[[row]]\nwhen = {model = [\"odd\", \"other\"]}\nskip = \"later\"\n"
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
  EXPECT_EQ(s.unscored.at("dp x tp x pp x cp is not the number of GPUs"), 1);
  EXPECT_EQ(s.unscored.at("metric furlongs"), 1);
  EXPECT_EQ(s.unscored.at("no micro_batch said"), 1);
  // The same run is in the table as done and as out of memory.
  EXPECT_EQ(s.contradictory, 2);
}

// Context parallelism is of several kinds: rows are scored whose rule says that it is ours.
TEST(Published, SequencesThatAreCutAreScoredWhereHeadsAreExchanged) {
  const TemporaryFolder folder;
  const PublishedGroup g = group(
      folder,
      "name = \"n\"\nshape = \"gpt\"\n[[row]]\nwhen = {model = \"heads\", cp = \"2\"}\nplan = \"cp=2\"\n" +
          cluster,
      columns.substr(0, columns.size() - 1) +
          ",cp\ns,heads,2,64,4,256,512,64,4,g,2,1,1,1,4,iter_s,1,2\n"
          "s,ring,2,64,4,256,512,64,4,g,2,1,1,1,4,iter_s,1,2\ns,one,2,64,4,256,512,64,2,g,2,1,1,1,4,iter_s,1,"
          "1\n"
          "s,heads,2,64,4,256,512,64,2,g,2,1,1,1,4,iter_s,1,2\n");
  const ScoredGroup all = score(g, "", [](const PublishedRow&) {});
  EXPECT_EQ(all.rows[0].plan, "dp=2 tp=1 pp=1 cp=2");
  EXPECT_GT(all.rows[0].predicted, 0);
  EXPECT_NE(all.rows[0].predicted, all.rows[2].predicted);
  EXPECT_EQ(all.rows[1].unscored, "context parallelism, not said to exchange heads");
  EXPECT_EQ(all.rows[2].unscored, "");
  EXPECT_EQ(all.rows[3].unscored, "dp x tp x pp x cp is not the number of GPUs");
}

// RFC 4180: a quoted field may hold commas, and quotes that are doubled.
TEST(Published, FieldsMayBeQuoted) {
  const TemporaryFolder folder;
  const std::string path = folder.write(
      "q.csv",
      "source,model,metric,value,notes\r\n\"a, b\",m,iter_s,1,\"said \"\"so\"\"\"\r\ns,m,iter_s,2,\n");
  const std::vector<PublishedRow> rows = read_published_rows(path);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text("source"), "a, b");
  EXPECT_EQ(rows[0].text("notes"), "said \"so\"");
  EXPECT_EQ(rows[1].text("value"), "2");
  EXPECT_EQ(rows[1].text("notes"), "");
  EXPECT_EQ(rows[1].number, 2);
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

// Llama 3 8B: 8,030,261,248 parameters (huggingface.co), of which the embedding and 65 norms are in no
// matmul. Six operations for each other one and token; of attention's two products 4 s^2 h forward, three
// times that with backward, and once more where it is recomputed (Korthikanti et al. 2022, section 5).
TEST(Published, SharedKeysAndValuesCountOnce) {
  const double B = 4, s = 8192, h = 4096, L = 32, V = 128256;
  const CountedModel m{L, h, 1024, 14336, V, s, 3};
  const double weights = 8030261248.0 - V * h - 65 * h, scores = 4 * s * s * h * L * B;
  EXPECT_NEAR(counted_flops(m, B) / (6 * weights * s * B + 3 * scores), 1, 1e-12);
  EXPECT_NEAR(recomputed_flops(m, B, Recomputed::attention) / scores, 1, 1e-12);
  EXPECT_EQ(recomputed_flops(m, B, Recomputed::nothing), 0);
}

// Megatron-LM pads GPT-2's 50257 words to a multiple of 128 times tp.
TEST(Published, VocabulariesArePaddedForEachRank) {
  const TemporaryFolder folder;
  const PublishedGroup g = group(folder, "name = \"n\"\nshape = \"gpt\"\nvocab_multiple = 128\n" + cluster,
                                 columns +
                                     "s,m,2,64,4,256,50257,64,1,g,1,1,1,1,2,iter_s,1\n"
                                     "s,m,2,64,4,256,50257,64,2,g,1,2,1,1,2,iter_s,1\n");
  std::string why;
  EXPECT_EQ(ask(g, g.rows[0], "", why)->model.vocab, 50304);
  EXPECT_EQ(ask(g, g.rows[1], "", why)->model.vocab, 50432);
}

// The operations that a rule's plan makes again are those of attention alone.
TEST(Published, ARulesPlanSaysWhatIsRecomputed) {
  const TemporaryFolder folder;
  const PublishedGroup g = group(folder, "name = \"n\"\nshape = \"gpt\"\n" + cluster,
                                 columns + "s,m,2,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1\n");
  std::string why;
  for (const auto& [words, what] : {std::pair{"ckpt=attention", Recomputed::attention},
                                    {"ckpt=selective", Recomputed::attention},
                                    {"ckpt=full", Recomputed::layers},
                                    {"ckpt=norms", Recomputed::nothing},
                                    {"", Recomputed::nothing}})
    EXPECT_EQ(ask(g, g.rows[0], words, why)->recomputed, what) << words;
}

// A run in every metric that a source may print is one step: 2 GPUs, 4 sequences of 64 tokens, by the
// definitions of the metrics and Narayanan et al.'s operations (above), on a GPU of 300 TFLOP/s.
TEST(Published, EveryMetricIsOfTheSameStep) {
  const TemporaryFolder folder;
  std::string rows = columns.substr(0, columns.size() - 1) + ",act_ckpt,mem_gib\n";
  for (const char* metric : {"iter_s,2", "samples_per_s,2", "tokens_per_s_per_gpu,64",
                             "model_tflops_per_gpu,1", "mfu_pct,1", "hw_tflops_per_gpu,1"})
    rows += fmt::format("s,m,2,64,4,256,512,64,2,g,2,1,1,1,4,{},full,3\n", metric);
  const PublishedGroup g =
      group(folder, "name = \"n\"\nshape = \"gpt\"\nmemory_unit = \"GB\"\n" + cluster, rows);
  const ScoredGroup all = score(g, "", [](const PublishedRow&) {});
  const double B = 4, L = 2, s = 64, h = 64, V = 512, t = all.rows[0].predicted;
  EXPECT_GT(t, 0);
  const double flops = 72 * B * L * s * h * h * (1 + s / (6 * h) + V / (12 * h * L)),
               again = 96 * B * L * s * h * h * (1 + s / (6 * h) + V / (16 * h * L));
  EXPECT_DOUBLE_EQ(all.rows[1].predicted, B / t);
  EXPECT_DOUBLE_EQ(all.rows[2].predicted, B * s / t / 2);
  EXPECT_DOUBLE_EQ(all.rows[3].predicted, flops / t / 2 / 1e12);
  EXPECT_DOUBLE_EQ(all.rows[4].predicted, 100 * flops / t / 2 / 300e12);
  EXPECT_DOUBLE_EQ(all.rows[5].predicted, again / t / 2 / 1e12);
  for (const ScoredRow& row : all.rows) {
    EXPECT_DOUBLE_EQ(row.rate, B * s / t / 2) << row.row.text("metric");
    EXPECT_DOUBLE_EQ(row.memory_published, 3e9);
  }
  for (const int i : {0, 1, 2}) EXPECT_DOUBLE_EQ(all.rows[i].rate_published, 64) << "2 s, 2 sequences a s";
  const PublishedGroup binary = group(folder, "name = \"n\"\nshape = \"gpt\"\n" + cluster, rows);
  EXPECT_DOUBLE_EQ(score(binary, "", [](const PublishedRow&) {}).rows[0].memory_published, 3.0 * (1 << 30));
}

// Plans are ranked among those of their model, number of GPUs and length; of each kind two here.
TEST(Published, OnlyRunsOfOneKindAreRankedTogether) {
  const TemporaryFolder folder;
  std::string rows = columns;
  for (const char* run : {"a,2,64,4,256,512,64,1,g,1", "a,2,64,4,256,512,64,2,g,2",
                          "a,2,64,4,256,512,32,1,g,1", "b,2,64,4,256,512,64,1,g,1"})
    for (const char* micro : {"1", "2"}) rows += fmt::format("s,{},1,1,{},4,iter_s,1\n", run, micro);
  const ScoredGroup all =
      score(group(folder, "name = \"n\"\nshape = \"gpt\"\n" + cluster, rows), "", [](const PublishedRow&) {});
  ASSERT_EQ(all.sources.size(), 1u);
  ASSERT_EQ(all.sources[0].ranked.size(), 4u);
  for (const Ranked& r : all.sources[0].ranked) EXPECT_EQ(r.plans, 2u) << r.which;
}

// Of nine rows every third from the second on: 2, 5 and 8; their errors are not counted with the others'.
TEST(Published, FittedRowsAreCountedApart) {
  const TemporaryFolder folder;
  std::string rows = columns.substr(0, columns.size() - 1) + ",mem_gib\n";
  for (int i = 0; i < 9; ++i) rows += "s,a,2,64,4,256,512,64,1,g,1,1,1,1,2,iter_s,1,2\n";
  const PublishedGroup g = group(
      folder, "name = \"n\"\nshape = \"gpt\"\n[[fitted]]\nevery = 3\nfirst = 2\nwhat = \"some\"\n" + cluster,
      rows);
  const ScoredGroup all = score(g, "", [](const PublishedRow&) {});
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(all.rows[i].fitted, i == 1 || i == 4 || i == 7) << i;
  EXPECT_EQ(all.sources[0].fitted_errors.size(), 3u);
  EXPECT_EQ(all.sources[0].errors.size(), 6u);
  EXPECT_EQ(all.sources[0].memory_errors.size(), 6u);
}

// A bar that is missed is MISSED in the table and below it; rows that are far off are named, but for those
// that a constant was fitted on.
TEST(Published, TheVerdictIsSaid) {
  PublishedGroup g;
  g.bars["s"].mean = 10;
  ScoredGroup scored{&g, {}, {}};
  for (const bool fitted : {false, true}) {
    ScoredRow row;
    row.row.words = {{"source", "s"}, {"model", fitted ? "fitted" : "free"}};
    row.predicted = 3, row.published = 2, row.fitted = fitted;
    scored.rows.push_back(row);
  }
  SourceScore s;
  s.source = "s", s.errors = {0.5};
  scored.sources = {s};
  EXPECT_TRUE(says(scores_text({scored}), " met\n", "is off by +50.0 %: 3 predicted, 2 published, free"));
  EXPECT_FALSE(says(scores_text({scored}), "2 published, fitted"));
  scored.sources[0].missed = missed(g.bars["s"], s);
  EXPECT_TRUE(says(scores_text({scored}), " MISSED\n", "  MISSED: mean error 50.00 % is above 10 %\n"));
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

// Each bar is of a statistic of its own, and is missed alone: errors 0.1, 0.2 and 0.6, memory's 0.2, 0.3 and
// 0.7, regret 0.05, rank 0.5; of what was said to fit 3 in 4 do, of what fits 3 in 5 were said.
TEST(Published, EachBarIsOfItsOwnStatistic) {
  SourceScore s;
  s.errors = {0.6, 0.1, 0.2}, s.memory_errors = {0.7, 0.2, 0.3};
  s.ranked = {{"m", 2, 0.05, 0.5}};
  s.fits.emplace();
  s.fits->right = 3, s.fits->wrong = 1, s.fits->missed = 2;
  const struct {
    std::optional<double> Bar::*bar;
    double is;
    bool at_least;
  } bars[] = {{&Bar::mean, 30, false},          {&Bar::median, 20, false},
              {&Bar::worst, 60, false},         {&Bar::memory_mean, 40, false},
              {&Bar::memory_median, 30, false}, {&Bar::memory_worst, 70, false},
              {&Bar::regret, 5, false},         {&Bar::rank, 0.5, true},
              {&Bar::precision, 75, true},      {&Bar::recall, 60, true}};
  for (const auto& b : bars) {
    Bar met, not_met;
    met.*b.bar = b.is * (b.at_least ? 0.999 : 1.001), not_met.*b.bar = b.is * (b.at_least ? 1.001 : 0.999);
    EXPECT_TRUE(missed(met, s).empty()) << b.is;
    EXPECT_EQ(missed(not_met, s).size(), 1u) << b.is;
  }
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

// One that is like another, which is like a third, which has a base: what none of them says is the base's.
TEST(PublishedGroups, AClusterMayBeLikeOneThatIsLikeAnother) {
  const TemporaryFolder folder;
  for (const char* name : {"/clusters", "/published"})
    std::filesystem::create_directory(folder.path() + name);
  folder.write("clusters/base.toml",
               "devices = 8\ndevices_per_node = 8\n[device]\nmemory_gib = 80\ntflops = 300\n"
               "memory_gb_per_s = 2000\n[node]\ngb_per_s = 300\n");
  folder.write("published/one.toml",
               "[cluster.g]\nbase = \"base.toml\"\n[cluster.g.device]\nlaunch_us = 7\n");
  folder.write("published/two.toml", "[cluster.h]\nlike = \"one.g\"\ndevices = 4\n");
  folder.write("published/three.csv", columns);
  const Cluster three = load_cluster(
      folder.write("published/three.toml", "name = \"n\"\nshape = \"gpt\"\n[cluster.k]\nlike = \"two.h\"\n") +
      ":k");
  EXPECT_EQ(three.devices, 4);
  EXPECT_DOUBLE_EQ(three.launch, 7e-6);
  EXPECT_EQ(three.flops, 300e12);
}

}  // namespace
}  // namespace lockstep
