// Dumps: what is in them, and the first difference between two.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "ref/error.hpp"
#include "reports/dump.hpp"
#include "reports/h5.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// A made-up run of two steps: the writer does not ask whether the numbers train anything.
struct Training {
  ModelConfig model;
  Settings settings;
  std::string plan = "dp=1";
  std::vector<Param> params;
  std::vector<StepDump> steps;
  // By tensor; [step][param] for gradients and weights.
  std::vector<std::vector<float>> initial;
  std::vector<std::vector<std::vector<float>>> gradients, weights;

  Training() {
    model.vocab = 5;
    model.hidden = 2;
    model.layers = model.heads = model.kv_heads = 1;
    model.tied = true;
    settings.batch = 2;
    settings.seq = 3;
    settings.steps = 2;
    // The table starts with the embedding, padded from 5 rows to 8; only the 5 are the model's.
    params.push_back({"model.embed_tokens.weight", Dim::vocab, Dim::model, 5, 2, 8, true, 0, -1});
    params.push_back({"model.norm.weight", Dim::one, Dim::model, 1, 2, 1, false, 2, -1});
    params.push_back({"lm_head.weight", Dim::vocab, Dim::model, 5, 2, 8, true, 2, 0});
    for (const Param& p : params) initial.push_back(ramp(p, 0));
    for (int s = 0; s < 2; ++s) {
      StepDump step{4.5 - s, 1.5, 1e-3 * (s + 1), {0, 1, 2, 3, 4, 0}, {1, 2, 3, 4, -100, 1}};
      steps.push_back(step);
      gradients.emplace_back();
      weights.emplace_back();
      for (const Param& p : params) {
        gradients.back().push_back(ramp(p, 100 * (s + 1)));
        weights.back().push_back(ramp(p, 1000 * (s + 1)));
      }
    }
  }
  static std::vector<float> ramp(const Param& p, int from) {
    std::vector<float> values;
    for (i64 i = 0; i < p.count(); ++i) values.push_back(static_cast<float>(from + i));
    return values;
  }
  void write(const std::string& path) const {
    DumpWriter dump(path, model, settings, plan);
    for (std::size_t p = 0; p < params.size(); ++p) dump.initial_weight(params[p], initial[p].data());
    for (std::size_t s = 0; s < steps.size(); ++s) {
      const i64 step = static_cast<i64>(s);
      for (std::size_t p = 0; p < params.size(); ++p) dump.gradient(step, params[p], gradients[s][p].data());
      dump.step(step, steps[s]);
      for (std::size_t p = 0; p < params.size(); ++p) dump.weight(step, params[p], weights[s][p].data());
    }
    dump.close();
  }
};

class DumpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "lockstep-dump-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    a_ = path("a.h5");
    b_ = path("b.h5");
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // Both runs written and compared.
  Comparison compare(const Training& left, const Training& right) const {
    left.write(a_);
    right.write(b_);
    return compare_dumps(a_, b_);
  }
  std::string refusal() const {
    try {
      return "no error, but: " + compare_dumps(a_, b_).text;
    } catch (const UserError& error) {
      return error.what();
    }
  }
  fs::path folder_;
  std::string a_, b_;
};

TEST_F(DumpTest, HoldsTheRun) {
  const Training run;
  run.write(a_);
  EXPECT_FALSE(fs::exists(a_ + ".tmp"));
  const h5::Reader file(a_);
  EXPECT_EQ(file.attribute("plan"), "dp=1");
  EXPECT_EQ(file.attribute("seq"), "3");
  EXPECT_EQ(file.attribute("beta2"), "0.95");
  EXPECT_EQ(file.attribute("vocab_size"), "5");
  EXPECT_EQ(file.attribute("tie_word_embeddings"), "1");
  EXPECT_NE(file.attribute("model").find(R"("architectures":["LlamaForCausalLM"])"), std::string::npos);

  EXPECT_EQ(file.list("/"), (std::vector<std::string>{"initial", "step0", "step1"}));
  EXPECT_EQ(file.list("/step0"),  // as written
            (std::vector<std::string>{"grad", "tokens", "labels", "lr", "loss", "grad_norm", "weight"}));
  const auto embedding = file.read<float>("/initial/model.embed_tokens.weight");
  EXPECT_EQ(embedding.shape, (h5::Shape{5, 2}));
  EXPECT_EQ(embedding.values, run.initial[0]);
  EXPECT_EQ(file.read<float>("/step1/grad/model.norm.weight").shape, (h5::Shape{2}));
  EXPECT_EQ(file.read<float>("/step1/grad/model.norm.weight").values, (std::vector<float>{200, 201}));
  EXPECT_EQ(file.read<float>("/step0/weight/model.embed_tokens.weight").values[9], 1009.0f);
  EXPECT_EQ(file.read<i32>("/step0/labels").shape, (h5::Shape{2, 3}));
  EXPECT_EQ(file.read<i32>("/step0/labels").values[4], -100);
  EXPECT_EQ(file.scalar<double>("/step1/loss"), 3.5);
  EXPECT_EQ(file.scalar<double>("/step1/lr"), 2e-3);
  EXPECT_EQ(file.scalar<double>("/step0/grad_norm"), 1.5);
}

TEST_F(DumpTest, LeavesATiedHeadOut) {
  Training().write(a_);
  const h5::Reader file(a_);
  for (const char* group : {"/initial", "/step0/grad", "/step1/weight"})
    EXPECT_EQ(file.list(group), (std::vector<std::string>{"model.embed_tokens.weight", "model.norm.weight"}));
}

TEST_F(DumpTest, LeavesNothingWithoutClose) {
  { DumpWriter dump(a_, Training().model, Training().settings, "dp=1"); }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(DumpTest, RefusesAStepOfAnotherShape) {
  DumpWriter dump(a_, Training().model, Training().settings, "dp=1");
  StepDump step = Training().steps[0];
  step.labels.pop_back();
  EXPECT_THROW(dump.step(0, step), std::logic_error);
}

TEST_F(DumpTest, EqualRunsAreEqual) {
  Training other;
  other.plan = "dp=2 zero=3";  // a plan decides no number
  const Comparison c = compare(Training(), other);
  EXPECT_TRUE(c.equal);
  EXPECT_EQ(c.text, "equal: 2 steps, 2 tensors");
}

TEST_F(DumpTest, ZeroHasNoSign) {
  Training left, right;
  left.gradients[1][0][3] = 0.0f;
  right.gradients[1][0][3] = -0.0f;
  left.steps[0].grad_norm = -0.0;
  right.steps[0].grad_norm = 0.0;
  EXPECT_TRUE(compare(left, right).equal);
}

TEST_F(DumpTest, EveryOtherBitCounts) {
  Training left, right;
  right.weights[1][1][1] = std::nextafterf(2001.0f, 3000.0f);
  const Comparison c = compare(left, right);
  EXPECT_FALSE(c.equal);
  EXPECT_EQ(c.text, "differ: step 1, weight of model.norm.weight [1]: 2001 (0x44fa2000) in " + a_ +
                        ", 2001.0001 (0x44fa2001) in " + b_ + "; 1 of its 2 values differ");
}

TEST_F(DumpTest, EqualNaNsAreEqualAndOthersNot) {
  Training left, right;
  left.gradients[0][0][0] = right.gradients[0][0][0] = std::nanf("1");
  EXPECT_TRUE(compare(left, right).equal);
  right.gradients[0][0][0] = 1;
  EXPECT_FALSE(compare(left, right).equal);
}

TEST_F(DumpTest, NamesTheFirstDifferenceInTheOrderOfTraining) {
  Training left, right;
  right.gradients[1][1][0] = -1;  // later step
  right.weights[0][0][0] = -1;    // later in the same step
  right.gradients[0][0][7] = -1;
  right.gradients[0][0][9] = -1;
  EXPECT_EQ(compare(left, right).text,
            "differ: step 0, gradient of model.embed_tokens.weight [3, 1]: 107 (0x42d60000) in " + a_ +
                ", -1 (0xbf800000) in " + b_ + "; 2 of its 10 values differ");
  right.steps[0].loss = 4.25;
  EXPECT_EQ(compare(left, right).text, "differ: step 0, loss: 4.5 (0x4012000000000000) in " + a_ +
                                           ", 4.25 (0x4011000000000000) in " + b_);
  right.steps[0].labels[4] = 0;
  EXPECT_EQ(compare(left, right).text,
            "differ: step 0, labels [1, 1]: -100 in " + a_ + ", 0 in " + b_ + "; 1 of its 6 values differ");
  right.initial[1][1] = 7;
  EXPECT_EQ(compare(left, right).text.substr(0, 51), "differ: initial weight of model.norm.weight [1]: 1 ");
  right.settings.lr = 0.5;
  EXPECT_EQ(compare(left, right).text, "differ: settings: lr is 0.001 in " + a_ + ", 0.5 in " + b_);
}

TEST_F(DumpTest, AMissingStepOrTensorIsADifference) {
  Training left, right;
  right.steps.pop_back();
  EXPECT_EQ(compare(left, right).text,
            "differ: steps: 2 in " + a_ + ", 1 in " + b_ + ", equal as far as both go");
  right = Training();
  right.params[1].name = "model.other.weight";
  EXPECT_EQ(compare(left, right).text, "differ: initial weight of model.norm.weight: only in " + a_);
}

// Reading float64 as float32 would round, and a difference could vanish.
TEST_F(DumpTest, ConvertsNoNumber) {
  Training().write(a_);
  const h5::Reader file(a_);
  EXPECT_THROW(file.read<float>("/step0/loss"), UserError);
  EXPECT_THROW(file.read<double>("/initial/model.norm.weight"), UserError);
  EXPECT_THROW(file.read<i64>("/step0/tokens"), UserError);
  EXPECT_THROW(file.strings("/step0/tokens"), UserError);
}

TEST_F(DumpTest, RefusesDifferentModels) {
  Training other;
  other.model.rms_eps = 1e-5;
  Training().write(a_);
  other.write(b_);
  EXPECT_EQ(refusal(),
            "'" + a_ + "' and '" + b_ + "' are of different models; compare two runs of one model");
}

TEST_F(DumpTest, RefusesWhatIsNoDump) {
  Training().write(a_);
  EXPECT_EQ(refusal(), "'" + b_ + "' does not exist; name an HDF5 file");
  {
    h5::Writer file(b_);
    file.attribute("format", std::string("lockstep run"));
    file.close();
  }
  EXPECT_EQ(refusal(), "'" + b_ + "' is not a dump of a training run (reports/schema.md says what one is)");
}

TEST_F(DumpTest, RefusesACutFileInASentence) {
  Training().write(a_);
  const auto size = fs::file_size(a_) - 24;  // of HDF5; then comes the hash
  for (std::uintmax_t keep : {std::uintmax_t{0}, std::uintmax_t{7}, std::uintmax_t{96}, size / 2, size - 1}) {
    fs::copy_file(a_, b_, fs::copy_options::overwrite_existing);
    fs::resize_file(b_, keep);
    EXPECT_EQ(refusal(),
              "'" + b_ + "' cannot be read as HDF5: it is another kind of file, unreadable, or cut off (" +
                  std::to_string(keep) + " bytes); write it anew");
  }
  for (std::uintmax_t keep : {size + 23, size + 8}) {
    fs::copy_file(a_, b_, fs::copy_options::overwrite_existing);
    fs::resize_file(b_, keep);
    EXPECT_TRUE(says(refusal(), "'" + b_ + "' is damaged: its bytes are not those that were written"))
        << keep;
  }
}

}  // namespace
}  // namespace lockstep
