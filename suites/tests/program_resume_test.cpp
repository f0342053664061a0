// A training that ends and goes on under another plan: the bits of one that never ended.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// What the options say later counts.
Ended trained(const std::string& options) {
  const std::string all = tiny_run + "--total 4 " + options + " ";
  std::vector<std::pair<std::string, std::string>> named;
  for (std::size_t at = all.find("--"); at != std::string::npos;) {
    const std::size_t next = all.find(" --", at), end = all.find(' ', at);
    const std::string name = all.substr(at, end - at);
    named.erase(std::remove_if(named.begin(), named.end(), [&](const auto& o) { return o.first == name; }),
                named.end());
    named.emplace_back(name, all.substr(end, next == std::string::npos ? next : next - end));
    at = next == std::string::npos ? next : next + 1;
  }
  std::string line = "train";
  for (const auto& [name, value] : named) line += " " + name + value;
  return lockstep_program(line);
}
// Two steps of four by the first plan, kept in `folder`.
Ended begin(const std::string& plan, const std::string& folder, const std::string& more = "") {
  return trained("--steps 2 --plan '" + plan + "' --state '" + folder + "' " + more);
}
// The other two.
Ended go_on(const std::string& plan, const std::string& folder, const std::string& more = "--check") {
  return trained("--steps 4 --plan '" + plan + "' --resume '" + folder + "' " + more);
}

struct Change {
  const char *from, *to, *more;
};
class Resume : public ::testing::TestWithParam<Change> {};

TEST_P(Resume, UnderAnotherPlanGivesTheSameBits) {
  const auto [from, to, more] = GetParam();
  const TemporaryFolder folder;
  const Ended first = begin(from, folder.path(), more);
  ASSERT_EQ(first.status, 0) << first.err;
  const Ended second = go_on(to, folder.path(), std::string("--check ") + more);
  EXPECT_EQ(second.status, 0) << second.out << second.err;
  EXPECT_TRUE(says(second.out, "goes on after 2 steps", "step 2  loss ", "step 3  loss ",
                   "equal to the single device: 2 steps after 2, bit for bit"))
      << second.out;
}

// Each way to keep the optimizer's state once as where it comes from and once as where it goes.
INSTANTIATE_TEST_SUITE_P(
    Plans, Resume,
    ::testing::Values(Change{"dp=1", "dp=2 tp=2 pp=2", ""}, Change{"dp=2 zero=1", "dp=4 zero=3", ""},
                      Change{"dp=4 zero=3 ckpt=full", "tp=4 sp=1", ""},
                      Change{"tp=2 pp=2 schedule=zero-bubble", "dp=2 zero=2 offload=optimizer", ""},
                      Change{"dp=2 zero=2 offload=weights", "pp=4 schedule=interleaved virtual=2 micro=2",
                             ""},
                      Change{"dp=2 offload=optimizer to=disk", "dp=2 tp=2 zero=1", ""},
                      Change{"pp=2 zero=1 dp=2", "dp=2 zero=3 offload=weights to=disk", ""},
                      Change{"dp=2 tp=2 zero=1", "pp=2 offload=optimizer", "--dtype bf16"},
                      Change{"dp=2 zero=3 offload=optimizer to=disk", "tp=2", "--dtype bf16"},
                      Change{"cp=2 zero=1", "dp=2 cp=2 zero=3", "--segments 2"},
                      Change{"dp=2 cp=2 zero=2 replicas=2", "cp=2 pp=2", "--segments 2"},
                      Change{"pp=2 tp=2", "dp=4 zero=2", "--model suites/models/gate-untied.json"},
                      Change{"tp=2 dp=2", "pp=2 zero=1 dp=2", "--model suites/models/gate-odd.json"}));

TEST(Resuming, KeepsWhatItIsAskedTo) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/kept";
  const Ended ended = begin("dp=2 zero=1", path, "--state-every 1");
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "state: " + path + "/step-1", "state: " + path + "/step-2"));

  // The last that is whole; one that is named; as a model too, in the names of transformers.
  fs::copy(path + "/step-2", path + "/step-3", fs::copy_options::recursive);
  fs::remove(path + "/step-3/state.json");
  EXPECT_TRUE(says(go_on("dp=1", path).out, "goes on after 2 steps, the last of `dp=2 tp=1 pp=1 zero=1`"));
  EXPECT_TRUE(
      says(go_on("dp=1", path + "/step-1").out, "goes on after 1 steps", "3 steps after 1, bit for bit"));
  EXPECT_EQ(trained("--steps 1 --init '" + path + "/step-2'").status, 0);

  // Again kept from where it went on, and in files of at most so much.
  ASSERT_EQ(go_on("dp=2 zero=3", path, "--state '" + path + "' --shard-gb 0.0005").status, 0);
  EXPECT_TRUE(fs::exists(path + "/step-4/second_moments/model.safetensors.index.json"));
  const Ended more = trained("--steps 5 --check --resume '" + path + "'");
  EXPECT_TRUE(says(more.out, "equal to the single device: 1 steps after 4, bit for bit"))
      << more.out << more.err;
}

// Files of two steps, mixed by hand or by a disk, are no state.
TEST(Resuming, TensorsOfAnotherStepAreSeen) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/kept";
  ASSERT_EQ(begin("dp=1", path, "--dtype bf16 --state-every 1").status, 0);
  for (const std::string part : {"", "/first_moments", "/second_moments", "/masters"}) {
    const std::string of = path + "/step-2" + part, file = of + "/model.safetensors";
    fs::rename(file, of + "/aside");
    fs::copy_file(path + "/step-1" + part + "/model.safetensors", file);
    const Ended ended = go_on("dp=1", path, "--dtype bf16");
    EXPECT_EQ(ended.status, 2) << ended.out;
    EXPECT_TRUE(says(ended.err, "step-2" + part + ": its tensors are not those that were kept")) << ended.err;
    fs::rename(of + "/aside", file);
  }
  EXPECT_EQ(go_on("dp=1", path, "--dtype bf16").status, 0);
}

// Whoever names the folder is told of the last state in it that is whole, and whoever names a state is not.
TEST(Resuming, OfADamagedStateAnOlderOneIsNamed) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/kept";
  ASSERT_EQ(trained("--steps 3 --plan dp=1 --state '" + path + "' --state-every 1").status, 0);
  const auto damage = [&](int step) {
    std::fstream file(path + "/step-" + std::to_string(step) + "/first_moments/model.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end).put('x');
  };
  const std::string why = ": its tensors are not those that were kept; a file is damaged, or of another step";
  damage(3);
  EXPECT_TRUE(says(go_on("dp=1", path).err,
                   "step-3/first_moments" + why + "; an older one is whole: --resume " + path + "/step-2\n"));
  EXPECT_TRUE(says(go_on("dp=1", path + "/step-3").err, why + "\n"));
  damage(2);
  const Ended ended = go_on("dp=1", path);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "; an older one is whole: --resume " + path + "/step-1\n"));
  EXPECT_EQ(go_on("dp=1", path + "/step-1").status, 0);
  damage(1);
  EXPECT_TRUE(says(go_on("dp=1", path).err, "step-3/first_moments" + why + "\n"));
}

// Its writing was cut off: it is passed over, and written over.
TEST(Resuming, AHalfWrittenStateIsNone) {
  const TemporaryFolder folder;
  const std::string step = folder.path() + "/step-2";
  fs::create_directory(step);
  std::ofstream(step + "/second_moments") << "no folder";
  const Ended cut = begin("dp=1", folder.path());
  EXPECT_EQ(cut.status, 2) << cut.out;
  EXPECT_TRUE(says(cut.err, "second_moments", "cannot be written"));
  EXPECT_TRUE(fs::exists(step + "/model.safetensors"));
  EXPECT_TRUE(says(go_on("dp=1", folder.path()).err, "neither it nor a step-N in it"));
  fs::remove(step + "/second_moments");
  EXPECT_EQ(begin("dp=1", folder.path()).status, 0);
  EXPECT_EQ(go_on("dp=1", folder.path()).status, 0);
}

// A check begins where the training began, be that weights of a file.
TEST(Resuming, AKeptTrainingKnowsWhatItBeganFrom) {
  const TemporaryFolder folder;
  const std::string weights = folder.path() + "/weights", kept = folder.path() + "/kept";
  ASSERT_EQ(trained("--steps 1 --seed 7 --save '" + weights + "'").status, 0);
  ASSERT_EQ(begin("dp=2 zero=1", kept, "--init '" + weights + "'").status, 0);
  const Ended right = go_on("dp=1", kept, "--check --init '" + weights + "'");
  EXPECT_EQ(right.status, 0) << right.out << right.err;
  const Ended wrong = go_on("dp=1", kept, "--check");
  EXPECT_EQ(wrong.status, 2) << wrong.out;
  EXPECT_TRUE(says(wrong.err, "it began from other weights", "--init"));
  EXPECT_EQ(go_on("dp=1", kept, "").status, 0);
}

TEST(Resuming, WhatCannotGoOnIsSaid) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/kept";
  ASSERT_EQ(begin("dp=1", path).status, 0);
  const auto refused = [&](const Ended& ended, const auto&... parts) {
    EXPECT_EQ(ended.status, 2) << ended.out;
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
    EXPECT_TRUE(says(ended.err, parts...)) << ended.err;
  };
  refused(go_on("dp=1", path, "--batch 4"), "it was trained with batch 8, and 4 is asked for");
  refused(go_on("dp=1", path, "--total 0 --steps 3"), "it was trained with total 4, and 3 is asked for");
  refused(go_on("dp=1", path, "--dtype bf16"), "it was trained with dtype \"float32\", and \"bf16\"");
  refused(go_on("dp=1", path, "--steps 2"), "2 steps are done");
  refused(go_on("dp=1", folder.path() + "/nowhere"), "nowhere", "--state");
  refused(go_on("dp=1", path, "--dump x.h5"), "--dump excludes --resume");
  refused(go_on("dp=1", path, "--check --fast"), "nothing to --resume");
  refused(go_on("dp=1", path, "--fast"), "it was trained with fast false, and true");
  refused(go_on("dp=1", path + "/" + std::string(300, 'x')), "neither it nor a step-N");
  refused(begin("dp=1", path), "it holds step-2 of a training that was further");
  refused(begin("dp=1", "/proc/nowhere"), "--state /proc/nowhere", "a folder that can be written");

  const std::string state = path + "/step-2/state.json";
  const auto with = [&](const std::string& text) {
    std::ofstream(state) << text;
    return go_on("dp=1", path);
  };
  nlohmann::json j = nlohmann::json::parse(std::ifstream(state));
  const std::string before = j.dump();
  j["data_hash"] = "0";
  refused(with(j.dump()), "another text");
  j = nlohmann::json::parse(before), j["version"] = 3;
  refused(with(j.dump()), "its version is 3");
  j = nlohmann::json::parse(before), j["settings"].erase("clip");
  refused(with(j.dump()), "clip null");
  refused(with(before.substr(0, 40)), "damaged");
  refused(with("[1]"), "damaged");
  refused(with(R"({"format": 3})"), "not the state");
  j = nlohmann::json::parse(before), j["steps"] = -1;
  refused(with(j.dump()), "damaged");
  j = nlohmann::json::parse(before), j["plan"] = 1;
  refused(with(j.dump()), "damaged");
  EXPECT_EQ(with(before).status, 0);
  nlohmann::json model = nlohmann::json::parse(std::ifstream("suites/models/gate-tiny.json"));
  model["rope_theta"] = 12345.0;
  const std::string other = folder.write("other.json", model.dump());
  refused(go_on("dp=1", path, "--model '" + other + "'"), "of another model");
  fs::remove(path + "/step-2/second_moments/model.safetensors");
  refused(with(before), "second_moments");
}

// Of the float32 masters of bf16 weights nothing is lost, and it shows if it is.
TEST(Resuming, MastersAreKeptInFloat32) {
  const TemporaryFolder folder;
  ASSERT_EQ(begin("dp=1", folder.path(), "--dtype bf16").status, 0);
  const std::string step = folder.path() + "/step-2";
  fs::remove_all(step + "/masters");
  fs::create_directory(step + "/masters");
  fs::copy(step + "/model.safetensors", step + "/masters/model.safetensors");  // rounded
  nlohmann::json j = nlohmann::json::parse(std::ifstream(step + "/state.json"));
  j["hashes"]["/masters"] = j["hashes"][""];
  std::ofstream(step + "/state.json") << j;
  const Ended ended = go_on("dp=1", folder.path(), "--check --dtype bf16");
  EXPECT_EQ(ended.status, 1) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "not equal to the single device", "step 2")) << ended.out;
}

// Whoever may not look does not know that there is none.
TEST(Resuming, AStateThatMayNotBeReadIsSaidToBeOne) {
  const std::string other =  // root may read everything
      geteuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups '" : "'";
  const auto as_other = [&](const std::string& arguments) {
    return shell(other + beside("lockstep") + "' " + arguments);
  };
  if (as_other("--version").status != 0) GTEST_SKIP() << "nobody else may run " << beside("lockstep");
  const TemporaryFolder folder;
  for (const auto& [name, mode] :
       {std::pair{"closed", fs::perms::none}, {"listed", fs::perms::others_read}}) {
    const std::string path = folder.path() + "/" + name;
    fs::create_directory(path);
    fs::permissions(path, mode | (geteuid() == 0 ? fs::perms::none : fs::perms::owner_read));
    fs::permissions(folder.path(), fs::perms::all);
    const Ended ended = as_other("train " + tiny_run + "--steps 4 --resume " + path);
    EXPECT_EQ(ended.status, 2);
    EXPECT_TRUE(says(ended.err, path + ": this training's state cannot be read: Permission denied"));
  }
}

}  // namespace
}  // namespace lockstep
