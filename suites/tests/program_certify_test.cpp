// lockstep compare with one dump: a trainer from outside is judged. The training loops need the Python of
// `ci/venv.sh fixtures`, and are skipped without.
#include <gtest/gtest.h>

#include <functional>

#include "reports/h5.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// What compare says of the loop's dump.
Ended judged(const std::string& options) {
  const TemporaryFolder folder;
  const std::string dump = folder.path() + "/run.h5", log = folder.path() + "/log";
  const std::string command =
      fixtures_python + " suites/certify/train_llama.py " + dump + " " + options + " >" + log + " 2>&1";
  if (std::system(command.c_str()) != 0) {
    std::ostringstream said;
    said << std::ifstream(log).rdbuf();
    return {-1, said.str(), ""};
  }
  return lockstep_program("compare " + dump);
}

#define NEEDS_TORCH                              \
  if (!std::filesystem::exists(fixtures_python)) \
  GTEST_SKIP() << "no " << fixtures_python << "; `ci/venv.sh fixtures` makes it (7 GB)"

TEST(Certify, ARightLoopIsWithinTheBound) {
  NEEDS_TORCH;
  for (const char* options : {"", "--tied"}) {
    const Ended ended = judged(options);
    EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
    // Three layers of 9 tensors, embedding, last norm and, where it is not tied, the head.
    EXPECT_TRUE(says(ended.out, "within the bound: 3 steps; at most 0.",
                     *options ? "; judged: 3 losses, 87 gradients, weights of 3 steps"
                              : "; judged: 3 losses, 90 gradients, weights of 3 steps"));
    EXPECT_EQ(ended.out.find("not judged"), std::string::npos) << ended.out;
  }
}

TEST(Certify, AMeanOfMicrobatchMeansHasAnotherLoss) {
  NEEDS_TORCH;
  const Ended ended = judged("--bug mean-of-means");
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "beyond the bound: step 0: loss: ", "; step 0: gradient of lm_head.weight: "));
}

TEST(Certify, GradientsThatNobodyAveragedAreTwiceTooLong) {
  NEEDS_TORCH;
  const Ended ended = judged("--bug no-averaging");
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "beyond the bound: step 0: gradient of lm_head.weight: ",
                   "it is 2 times what it should be"));
}

TEST(Certify, AStaleWeightShowsWhenItIsFirstUsed) {
  NEEDS_TORCH;
  const Ended ended = judged("--bug stale-weight");
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "beyond the bound: step 1: loss: ", "; step 1: gradient of lm_head.weight: "));
}

TEST(Certify, ADecayedNormIsTheOptimizers) {
  NEEDS_TORCH;
  const Ended ended = judged("--bug decayed-norms");
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out,
                   "beyond the bound: step 0: weight of model.layers.0.input_layernorm.weight after AdamW"));
}

// This program's own dumps have the reference's very error, which the bound allows four times.
TEST(Certify, OwnDumpsAreRightAndAChangedOneIsNot) {
  const TemporaryFolder folder;
  const std::string dump = folder.path() + "/a.h5";
  ASSERT_EQ(lockstep_program("train " + tiny_run + "--steps 2 --plan 'dp=2 tp=2' --dump " + dump).status, 0);
  const Ended right = lockstep_program("compare " + dump);
  EXPECT_EQ(right.status, 0) << right.out << right.err;
  const std::string most = "within the bound: 2 steps; at most ";
  ASSERT_TRUE(says(right.out, most));
  EXPECT_LE(std::stod(right.out.substr(most.size())), 0.25) << right.out;
  {
    const hid_t file = H5Fopen(dump.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, "/step1/grad/model.layers.3.self_attn.k_proj.weight", H5P_DEFAULT);
    std::vector<float> values(16 * 64);
    H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    for (float& v : values) v *= 1.0001f;
    H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(set), H5Fclose(file);
  }
  const Ended wrong = lockstep_program("compare " + dump);
  EXPECT_EQ(wrong.status, 1);
  EXPECT_TRUE(says(wrong.out,
                   "beyond the bound: step 1: gradient of model.layers.3.self_attn.k_proj.weight: ",
                   "it is 1.0001 times what it should be"));
}

// What a dump lacks is not judged, and it says so. gate-tiny has 8 layers of 9 tensors, embedding, norm and
// head.
class Lacking : public ::testing::Test {
 protected:
  static constexpr int kTensors = 74;
  void SetUp() override {
    const Ended ended = lockstep_program("train " + tiny_run + "--steps 3 --dump " + dump_);
    ASSERT_EQ(ended.status, 0) << ended.err;
  }
  void edit(const std::function<void(hid_t)>& change) {
    const hid_t file = H5Fopen(dump_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    change(file);
    H5Fclose(file);
  }
  void lose(const std::vector<std::string>& names) {
    edit([&](hid_t file) {
      for (const std::string& name : names) ASSERT_GE(H5Ldelete(file, name.c_str(), H5P_DEFAULT), 0) << name;
    });
  }
  Ended judged() const { return lockstep_program("compare " + dump_); }
  static std::string gradients(int steps) { return std::to_string(steps * kTensors) + " gradients"; }

  const TemporaryFolder folder_;
  const std::string dump_ = folder_.path() + "/a.h5";
};

TEST_F(Lacking, NothingIsLacking) {
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "within the bound: 3 steps; at most ",
                   "; judged: 3 losses, " + gradients(3) + ", 3 gradient norms, weights of 3 steps\n"));
}

TEST_F(Lacking, AStepInBetween) {
  lose({"/step1"});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 2) << ended.out;
  EXPECT_TRUE(says(ended.err, "holds a step 2 and no step 1"));
}

TEST_F(Lacking, TheTokensOfAStep) {
  lose({"/step1/tokens"});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 2) << ended.out;
  EXPECT_TRUE(says(ended.err, "holds no /step1/tokens"));
}

TEST_F(Lacking, AllGradients) {
  lose({"/step0/grad", "/step1/grad", "/step2/grad"});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 2) << ended.out;
  EXPECT_TRUE(says(ended.err, "holds no gradients (/step0/grad)"));
  EXPECT_EQ(ended.out.find("within"), std::string::npos) << ended.out;
}

TEST_F(Lacking, LossesAndNorms) {
  for (const char* step : {"/step0/", "/step1/", "/step2/"})
    lose({step + std::string("loss"), step + std::string("grad_norm")});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "; judged: " + gradients(3) + ", weights of 3 steps",
                   "; not judged: the loss of 3 steps\n"));
}

// Without a step's gradients nothing says what AdamW's moments are in the next.
TEST_F(Lacking, TheFirstGradients) {
  lose({"/step0/grad"});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "; judged: 3 losses, " + gradients(2) +
                                  ", 2 gradient norms; not judged: "
                                  "gradients of 1 step, weights of 3 steps ("));
}

TEST_F(Lacking, TheWeightsBetween) {
  lose({"/step0/weight"});
  const Ended ended = judged();
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "within the bound: 1 step; ", "; judged: 1 loss, " + gradients(1),
                   "; not judged: weights of 1 step (", "anything from step 1 on (the weights before it"));
}

TEST_F(Lacking, TheVersion) {
  edit([](hid_t file) { H5Adelete(file, "version"); });
  EXPECT_EQ(judged().status, 2);
  EXPECT_TRUE(says(judged().err, "it has no attribute 'version'"));
  edit([](hid_t file) {
    const hid_t space = H5Screate(H5S_SCALAR),
                at = H5Acreate2(file, "version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    const std::int64_t two = 2;
    H5Awrite(at, H5T_NATIVE_INT64, &two);
    H5Aclose(at), H5Sclose(space);
  });
  EXPECT_EQ(judged().status, 2);
  EXPECT_TRUE(says(judged().err, "is a dump of version 2; this program reads version 1"));
}

TEST(Certify, AnotherLayoutIsOneSentence) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/a.h5";
  h5::Writer file(path);
  file.attribute("format", std::string("lockstep dump"));
  file.attribute("version", i64{1});
  file.attribute("model", std::string("{}"));
  file.close();
  const Ended ended = lockstep_program("compare " + path);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "attribute model: architectures is missing"));
}

}  // namespace
}  // namespace lockstep
