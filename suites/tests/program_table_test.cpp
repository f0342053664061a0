// lockstep table: three accounts of what a plan costs, and the textbook's.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "suites/commands/command.hpp"
#include "suites/costs/costs.hpp"
#include "suites/costs/textbook.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// Tied, 509 rows padded to 512, and no shard comes out even: every named difference is there.
struct Scene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  Scene() { settings.batch = 16, settings.seq = 16; }
  Prepared prepared(const std::string& line) const {
    return prepare({model, settings, Plan::parse(line), &data});
  }
  TextbookRow row(const std::string& line, const std::string& what) const {
    for (const TextbookRow& r : textbook_rows(prepared(line)))
      if (r.what.starts_with(what) && (r.of.empty() || r.of == "stage 0")) return r;
    ADD_FAILURE() << line << " has no row `" << what << "`";
    return {};
  }
};

TEST(Textbook, EveryFigureIsExplained) {
  const Scene s;
  for (const char* line :
       {"dp=1", "micro=4", "dp=4", "dp=4 zero=1", "dp=4 zero=2 micro=2", "dp=16 zero=3",
        "dp=4 zero=3 micro=2", "tp=2", "tp=4 sp=1 micro=2", "pp=4", "pp=8 micro=4",
        "pp=4 schedule=gpipe micro=2", "pp=4 schedule=interleaved virtual=2",
        "pp=2 schedule=interleaved virtual=4 micro=8", "offload=optimizer", "offload=optimizer to=disk",
        "ckpt=full", "ckpt=full micro=4", "dp=2 tp=2 pp=2 zero=1 ckpt=full"}) {
    const auto rows = textbook_rows(s.prepared(line));
    EXPECT_FALSE(rows.empty()) << line;
    for (TextbookRow row : rows) {
      EXPECT_TRUE(row.equal()) << line << ": " << row.what;
      for (const auto& d : row.differences) EXPECT_NE(d.much, 0) << line << ": " << d.why;
      // A figure that is another, however little, is seen.
      row.textbook += 1;
      EXPECT_FALSE(row.equal());
      row.textbook -= 1, row.here = std::nextafter(row.here, 0.0);
      EXPECT_FALSE(row.equal());
    }
  }
}

// The papers' figures, by hand. V 509, D 64, F 172, K 2 of 8 heads, L 8.
TEST(Textbook, SaysWhatThePapersSay) {
  const Scene s;
  const double n = 509 * 64 + 64 + 8 * (2 * 64 + 2 * 64 * 64 + 2 * 16 * 64 + 3 * 172 * 64);
  const std::string bytes = "bytes a parameter: weights";
  EXPECT_EQ(s.row("dp=4", bytes).textbook, 16 * n);
  EXPECT_EQ(s.row("dp=4 zero=1", bytes).textbook, (8 + 8 / 4.0) * n);
  EXPECT_EQ(s.row("dp=4 zero=2", bytes).textbook, (4 + 12 / 4.0) * n);
  EXPECT_EQ(s.row("dp=4 zero=3", bytes).textbook, 16 / 4.0 * n);
  EXPECT_EQ(s.row("dp=4 zero=1", bytes).form, "8 + 8/d");
  EXPECT_EQ(s.row("dp=4 zero=2", bytes).form, "4 + 12/d");
  EXPECT_EQ(s.row("dp=4 zero=3 micro=4", "elements a parameter").textbook, 3 * n);
  EXPECT_EQ(s.row("dp=4 zero=2 micro=4", "elements a parameter").textbook, 2 * n);
  EXPECT_EQ(s.row("tp=2", "all_reduce").textbook, 4);
  EXPECT_EQ(s.row("pp=4", "microbatches").textbook, 4);
  EXPECT_EQ(s.row("pp=4 micro=8", "microbatches").textbook, 2);
  EXPECT_EQ(s.row("pp=4 schedule=gpipe", "microbatches").textbook, 16);
  // Stage 0 holds L (1 + (p-1) / (p v)) layers: 8 (1 + 3/8) = 11 of one layer a chunk.
  EXPECT_EQ(s.row("pp=4 schedule=interleaved virtual=2", "chunks").textbook, 11);
  EXPECT_EQ(s.row("ckpt=full micro=2", "bytes of activations").textbook, 4 * 16 * 2 * 64 * 8);
  EXPECT_EQ(s.row("offload=optimizer", "bytes a parameter copied to").textbook, 4 * n);
  // Where exactness costs: log2 16 = 4 slots of a gradient in place of 1.
  const TextbookRow alone = s.row("dp=1", bytes);
  ASSERT_EQ(alone.differences.size(), 3u);
  EXPECT_EQ(alone.differences[0].much, 3 * 4 * n);
  EXPECT_EQ(alone.differences[1].much, 4 * 4 * 509 * 64);  // the tied head's
  EXPECT_EQ(alone.differences[2].much, (4 + 4 * 4 + 8) * 3 * 64 + 4 * 4 * 3 * 64);
}

TEST(Costs, FormulaTraceAndRunAreHeldTogether) {
  const Scene s;
  const PlanCosts good = costs(s.prepared("dp=2 pp=2 zero=3 ckpt=full"), "auto", 1);
  ASSERT_EQ(good.ranks.size(), 4u);
  EXPECT_EQ(disagreement(good), "");

  const auto spoilt = [&](const std::function<void(PlanCosts::Rank&)>& spoil) {
    PlanCosts bad = good;
    spoil(bad.ranks[3]);
    return disagreement(bad);
  };
  for (int k = 0; k < static_cast<int>(Kind::count); ++k)
    EXPECT_TRUE(says(spoilt([&](PlanCosts::Rank& r) { r.formula[k] += 4; }),
                     "rank 3: ", kind_name(static_cast<Kind>(k)), "by formula"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.run_together += 1; }), "rank 3: ", "alive in the run"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.by_formula.pop_back(); }), "formula and trace"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.by_formula[0].elements += 1; }), "formula and trace"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.by_run.pop_back(); }), "trace and run"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.by_run[0].axis = Axis::kv; }), "trace and run"));
  EXPECT_TRUE(says(spoilt([](PlanCosts::Rank& r) { r.by_run.insert(r.by_run.begin(), r.by_run[0]); }),
                   "trace and run"));
}

std::string table_suite(const std::string& more) { return suite_text("batch = 8\nseq = 16\n" + more); }

TEST(ProgramTable, SaysThatAllIsEqual) {
  const TemporaryFolder folder;
  const std::string suite = folder.write(
      "t.toml", table_suite("[axes]\ndp = [1, 2]\nzero = [0, 1]\n[[also]]\nplan = \"pp=2 ckpt=full\"\n"));
  const Ended text = lockstep_program("table " + suite);
  EXPECT_EQ(text.status, 0) << text.out << text.err;
  EXPECT_TRUE(says(text.out, "EQUAL: 5 plans", "8 + 8/d", "Rajbhandari et al. 2020", "stage 1: ", "formula",
                   "trace", "run"));
  EXPECT_EQ(text.out.find(" NO"), std::string::npos);
  EXPECT_EQ(text.out.find('|'), std::string::npos);

  const Ended markdown = lockstep_program("table --markdown --only zero=1 " + suite);
  EXPECT_EQ(markdown.status, 0);
  EXPECT_TRUE(says(markdown.out, "| plan | by | weights |", "| --- | --- | ---: |",
                   "| dp=2 tp=1 pp=1 zero=1 |", "EQUAL: 2 plans"));
  EXPECT_EQ(markdown.out.find("ckpt"), std::string::npos);
}

// A shelf that takes four bytes less than its price says: in float32, or in bfloat16, which no run looks at.
TEST(ProgramTable, AFigureThatDiffersMakesTheExitStatusOne) {
  static i64 wrong_in = 0;
  PriceOf<Shelf> price = chosen<Shelf>(Plan::parse("")).price;
  static const auto right = price.device;
  price.device = [](const Shape& s, const KeptElements& k) {
    return right(s, k) + (s.activation == wrong_in ? 4 : 0);
  };
  const Strategy<Shelf> mispriced(
      "mispriced", {}, [](const Plan& p) { return p.number("every") == 2; }, {},
      chosen<Shelf>(Plan::parse("")).make, price);
  const TemporaryFolder folder;
  const std::string suite = folder.write("t.toml", table_suite("[axes]\nckpt = \"full\"\nevery = 2\n"));
  const auto all = commands();
  const auto table = std::find_if(all.begin(), all.end(), [](auto* c) { return c->name == "table"; });
  for (const auto& [bytes, status, ending] :
       {std::tuple{0, 0, "EQUAL: 1 plans"}, {4, 1, "NOT EQUAL: 1 of them"}, {2, 1, "NOT EQUAL: 1 of them"}}) {
    wrong_in = bytes;
    CLI::App app;
    const Command::Action action = (*table)->declare(app);
    app.parse(suite);
    testing::internal::CaptureStdout();
    EXPECT_EQ(action(), status) << bytes;
    const std::string said = testing::internal::GetCapturedStdout();
    EXPECT_TRUE(says(said, ending)) << bytes;
    EXPECT_EQ(said.find("every=2: rank 0: activations: ") != std::string::npos, bytes == 4);
    EXPECT_EQ(said.find("every=2, bfloat16: rank 0: activations: ") != std::string::npos, bytes == 2);
  }
}

TEST(ProgramTable, MistakesAreOneSentence) {
  const TemporaryFolder folder;
  const std::string suite = folder.write("t.toml", table_suite("[axes]\ndp = 1\n"));
  for (const auto& [arguments, said] :
       {std::pair{"table no/such.toml", "no/such.toml"}, {"table", "suite"}}) {
    const Ended ended = lockstep_program(arguments);
    EXPECT_EQ(ended.status, 2);
    EXPECT_TRUE(says(ended.err, said));
  }
  const Ended none = lockstep_program("table " + suite + " --only dp=7");
  EXPECT_EQ(none.status, 2);
  EXPECT_TRUE(says(none.err, "no plan", "dp=7"));
}

}  // namespace
}  // namespace lockstep
