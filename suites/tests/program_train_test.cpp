// lockstep train, show and compare on files, as a user has them.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "ref/data_order.hpp"
#include "ref/weights.hpp"
#include "suites/commands/command.hpp"
#include "suites/tests/hasty_shelf.hpp"
#include "suites/tests/hdf5_reader.hpp"
#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

// The line of a run's hash.
std::string hash_of(const Ended& ended) {
  const std::size_t at = ended.out.find("hash ");
  return at == std::string::npos ? "no hash in: " + ended.out + ended.err : ended.out.substr(at, 5 + 32);
}

Ended train(const std::string& plan, const std::string& more = "") {
  return lockstep_program("train " + tiny_run + "--steps 2 --plan '" + plan + "' " + more);
}

TEST(ProgramTrain, PrintsEveryStepAndEqualsTheSingleDevice) {
  const Ended ended = train("dp=2 tp=2 pp=2 ckpt=full", "--check");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(
      says(ended.out,
           "\nseam tensor, spread together, schedule 1f1b, store data, home on-device, stash checkpoint, "
           "shelf at-hand\nstep 0  loss "));
  EXPECT_TRUE(says(ended.out, "step 0  loss ", "step 1  loss ", "gradient norm", "tokens/s", "hash ",
                   "equal to the single device: 2 steps"));
}

// A step's seconds are within the process's, so it may not have said less than this.
TEST(ProgramTrain, SaysTokensASecond) {
  const auto begin = std::chrono::steady_clock::now();
  const Ended ended = train("dp=1", "--steps 30");
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  double seconds = 0;
  int steps = 0;
  for (std::size_t at = 0; (at = ended.out.find("\nstep ", at)) != std::string::npos; ++at, ++steps) {
    double rate = 0;
    ASSERT_EQ(std::sscanf(ended.out.c_str() + at, "\nstep %*d loss %*f gradient norm %*f lr %*f %lf tokens/s",
                          &rate),
              1)
        << ended.out;
    seconds += 8 * 16 / rate;
  }
  EXPECT_EQ(steps, 30);
  EXPECT_LT(seconds, all * 1.01);
}

// Of gate-tiny: 8 layers of 64 x (64 + 64 + 2 x 16) + 3 x 64 x 172 weights and a head of 509 x 64, in 16 x 32
// tokens.
TEST(ProgramTime, SaysTheMedianStepAndTheModelsOperations) {
  const Ended ended = lockstep_program("time " + tiny_run + "--steps 3 --plan 'dp=2 zero=1' --peak 0.1");
  ASSERT_EQ(ended.status, 0) << ended.err;
  double seconds = 0, tokens = 0, rate = 0, percent = 0;
  const std::size_t at = ended.out.find("median step ");
  ASSERT_NE(at, std::string::npos) << ended.out;
  ASSERT_EQ(std::sscanf(ended.out.c_str() + at,
                        "median step %lf s of 3, %lf tokens/s, %lf model TFLOP/s a rank, %lf %% of 0.1",
                        &seconds, &tokens, &rate, &percent),
            4)
      << ended.out;
  const double weights = 8 * (64 * (64 + 64 + 32) + 3 * 64 * 172) + 509 * 64, n = 8 * 16;
  const double flops = n * (6 * weights + 6 * 8 * 64 * 16);
  EXPECT_NEAR(tokens * seconds / n, 1, 1e-3);
  EXPECT_NEAR(rate, flops / 2 / seconds / 1e12, 0.00051);  // printed with three decimals
  EXPECT_NEAR(percent, rate / 0.1 * 100, 1);
  EXPECT_TRUE(says(ended.out, "dp=2", "float32, fast", "timed, not checked"));
}

TEST(ProgramTrain, ThreadsKernelsAndTimingChangeNoBit) {
  const std::string expected = hash_of(train("dp=1"));
  EXPECT_EQ(hash_of(train("tp=2 micro=2", "--threads 2 --timing lazy --isa plain")), expected);
  EXPECT_NE(hash_of(train("dp=1", "--seed 2")), expected);
}

// What is looked at before it is waited for is right by luck, until it is made to come late.
TEST(ProgramTrain, LazyTimingMakesMessagesAndCopiesLate) {
  const HastyStrategy hasty;
  const std::vector<const Command*> all = commands();
  const auto train_here = *std::find_if(all.begin(), all.end(), [](auto* c) { return c->name == "train"; });
  for (const bool copies : {false, true})
    for (const char* timing : {"eager", "lazy"}) {
      Hasty::copies = copies;
      CLI::App app;
      const Command::Action action = train_here->declare(app);
      app.parse(tiny_run + "--steps 1 --plan \"ckpt=full every=2\" --check --timing " + timing);
      testing::internal::CaptureStdout();
      const int status = action();
      const std::string said = testing::internal::GetCapturedStdout();
      const bool lazy = timing == std::string("lazy");
      EXPECT_EQ(status, lazy ? 1 : 0) << copies << said;
      EXPECT_TRUE(says(said, lazy ? "step 0: gradient of " : "equal to the single device"));
    }
}

TEST(ProgramTrain, DumpsOfTwoPlansAreEqual) {
  const TemporaryFolder folder;
  const std::string a = folder.path() + "/a.h5", b = folder.path() + "/b.h5";
  ASSERT_EQ(train("dp=2 pp=2", "--dump " + a).status, 0);
  ASSERT_EQ(train("tp=4 sp=1 ckpt=full", "--dump " + b).status, 0);
  const Ended ended = lockstep_program("compare " + a + " " + b);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "equal: 2 steps, 74 tensors"));  // 8 layers of 9, embedding, final norm
}

TEST(ProgramTrain, DumpHoldsTheTextInSampleOrder) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/a.h5";
  ASSERT_EQ(train("dp=2 micro=2", "--dump " + path).status, 0);
  const Hdf5Reader dump(path);
  const TokenFile text("datasets/excerpt-v509.tok");
  Settings settings;
  settings.batch = 8, settings.seq = 16;
  std::vector<std::int32_t> tokens(8 * 16), labels(8 * 16);
  for (i64 i = 0; i < 8; ++i) sample(text, settings, 1, i, &tokens[i * 16], &labels[i * 16]);
  EXPECT_EQ(dump.read<std::int32_t>("/step1/tokens"), tokens);
  EXPECT_EQ(dump.read<std::int32_t>("/step1/labels"), labels);
}

TEST(ProgramTrain, OneFlippedBitIsNamed) {
  const TemporaryFolder folder;
  const std::string a = folder.path() + "/a.h5", b = folder.path() + "/b.h5";
  ASSERT_EQ(train("dp=1", "--dump " + a).status, 0);
  std::filesystem::copy(a, b);
  {
    const hid_t file = H5Fopen(b.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, "/step1/grad/model.layers.3.self_attn.k_proj.weight", H5P_DEFAULT);
    std::vector<std::uint32_t> bits(16 * 64);  // 2 heads of 8, width 64
    const hid_t type = H5Tcopy(H5T_NATIVE_FLOAT);
    H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bits.data());
    bits[5 * 64 + 7] ^= 1;
    H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bits.data());
    H5Tclose(type), H5Dclose(set), H5Fclose(file);
  }
  const Ended ended = lockstep_program("compare " + a + " " + b);
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.out, "step 1", "gradient of model.layers.3.self_attn.k_proj.weight", "[5, 7]"));
}

TEST(ProgramTrain, DamagedDumpIsTheUsersMistake) {
  const TemporaryFolder folder;
  const std::string a = folder.path() + "/a.h5", b = folder.path() + "/b.h5";
  ASSERT_EQ(train("dp=1", "--dump " + a).status, 0);
  std::filesystem::copy(a, b);
  std::filesystem::resize_file(b, std::filesystem::file_size(b) / 2);
  const Ended ended = lockstep_program("compare " + a + " " + b);
  EXPECT_EQ(ended.status, 2);
  EXPECT_TRUE(says(ended.err, "lockstep: ", "b.h5"));
}

// HDF5 keeps texts in a heap, without a checksum: the size of its first, 24 bytes on, becomes larger than the
// file. HDF5 1.10 ends with a signal at it, 1.14 with an error. Our own files have a seal, that other
// trainers' do not have.
TEST(ProgramTrain, DamageThatEndsTheLibraryIsASentence) {
  const TemporaryFolder folder;
  const std::string a = folder.path() + "/a.h5", b = folder.path() + "/b.h5";
  ASSERT_EQ(train("dp=1", "--dump " + a).status, 0);
  std::filesystem::copy(a, b);
  std::filesystem::resize_file(b, std::filesystem::file_size(b) - 24);  // reports/seal.cpp
  EXPECT_EQ(lockstep_program("compare " + a + " " + b).status, 0);
  std::ostringstream bytes;
  bytes << std::ifstream(b).rdbuf();
  const std::size_t heap = bytes.str().find("GCOL");
  ASSERT_NE(heap, std::string::npos);
  std::fstream(b, std::ios::in | std::ios::out).seekp(static_cast<std::streamoff>(heap) + 28).put(20);
  const std::string how = H5_VERSION_GE(1, 14, 0) ? "" : "HDF5's library itself ends at it";
  for (const std::string& files : {b, a + " " + b}) {
    const Ended ended = lockstep_program("compare " + files);
    EXPECT_EQ(ended.status, 2);
    EXPECT_TRUE(says(ended.err, "lockstep: '" + b + "' is damaged: " + how));
  }
}

// Weights written to a file and read back are the fresh ones; others are not. Exercises the padded
// vocabulary.
TEST(ProgramTrain, StartsFromGivenWeights) {
  const TemporaryFolder folder;
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const std::vector<Param> table = parameter_table(model, 8);
  std::vector<std::vector<float>> values;
  for (const Param& p : table) {
    values.emplace_back(static_cast<std::size_t>(p.count()));
    for (i64 row = 0; row < p.rows; ++row)
      initial_values(model, p, 1, row, 0, p.cols, values.back().data() + row * p.cols);
  }
  const std::string same = folder.path() + "/same.safetensors", other = folder.path() + "/other.safetensors";
  save_weights(same, table, values);
  values[0][70] += 1;
  save_weights(other, table, values);
  const std::string fresh = hash_of(train("dp=1"));
  EXPECT_EQ(hash_of(train("tp=4 pp=2", "--init " + same)), fresh);
  const Ended changed = train("tp=4 pp=2", "--check --init " + other);
  EXPECT_NE(hash_of(changed), fresh);
  EXPECT_TRUE(says(changed.out, "equal to the single device"));
}

// Nothing is shown by runs that are equal in nothing but this.
TEST(ProgramTrain, LossesThatAreNoNumbersProveNothing) {
  const TemporaryFolder folder;
  const ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  const std::vector<Param> table = parameter_table(model, 8);
  std::vector<std::vector<float>> values;
  for (const Param& p : table) values.emplace_back(static_cast<std::size_t>(p.count()), 0.01f);
  values[0][70] = std::nanf("");
  const std::string weights = folder.path() + "/nan.safetensors", dump = folder.path() + "/nan.h5";
  save_weights(weights, table, values);
  const Ended ended = train("dp=2", "--check --init " + weights + " --dump " + dump);
  EXPECT_EQ(ended.status, 1);
  EXPECT_TRUE(says(ended.out, "equal to the single device, which proves nothing: step 0 has the loss nan"));
  const Ended compared = lockstep_program("compare " + dump + " " + dump);
  EXPECT_EQ(compared.status, 1);
  EXPECT_TRUE(says(compared.out, "equal, which proves nothing: step 0, loss is nan"));
}

// The saved weights are those that the last step left, whatever the number of files; a run goes on from them.
TEST(ProgramTrain, SavesWhatItTrained) {
  const TemporaryFolder folder;
  const std::string one = folder.path() + "/one", many = folder.path() + "/many",
                    dump = folder.path() + "/a.h5";
  ASSERT_EQ(train("dp=2 zero=3", "--save " + one + " --dump " + dump).status, 0);
  EXPECT_TRUE(std::filesystem::exists(one + "/model.safetensors"));
  const std::vector<Param> table = parameter_table(load_model_config(one), 8);
  const auto weights = load_weights(one, table);
  const Hdf5Reader last(dump);
  for (std::size_t p = 0; p < table.size(); ++p)
    if (table[p].tied_to < 0) {
      EXPECT_EQ(weights[p], last.read<float>("/step1/weight/" + table[p].name)) << table[p].name;
    }
  // 1.7 MB of weights in files of 88 kB, which is 64 bytes less than two of the largest in a layer; the
  // embedding alone has 130 kB.
  ASSERT_EQ(train("tp=4", "--shard-gb 0.000088 --save " + many).status, 0);
  EXPECT_FALSE(std::filesystem::exists(many + "/model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(many + "/model.safetensors.index.json"));
  EXPECT_EQ(load_weights(many, table), weights);
  std::map<std::string, std::pair<std::size_t, std::size_t>> shards;  // bytes, and of the first tensor
  for (const auto& file : std::filesystem::directory_iterator(many)) {
    if (file.path().extension() != ".safetensors") continue;
    std::ostringstream text;
    text << std::ifstream(file.path()).rdbuf();
    const std::string shard = text.str();
    std::uint64_t header = 0;
    std::memcpy(&header, shard.data(), sizeof header);
    std::size_t first = 0, tensors = 0;
    const auto parts = nlohmann::json::parse(shard.substr(8, header));
    for (const auto& [name, part] : parts.items()) {
      if (name == "__metadata__") continue;
      ++tensors;
      if (part["data_offsets"][0] == 0) first = part["data_offsets"][1];
    }
    const std::size_t bytes = shard.size() - 8 - header;
    EXPECT_TRUE(bytes <= 88000 || tensors == 1) << file.path();
    shards[file.path().filename()] = {bytes, first};
  }
  ASSERT_GT(shards.size(), 2u);
  for (auto shard = shards.begin(), next = std::next(shard); next != shards.end(); ++shard, ++next)
    EXPECT_GT(shard->second.first + next->second.second, 88000u) << next->first << " could have begun sooner";
  EXPECT_EQ(hash_of(train("pp=2", "--init " + many)), hash_of(train("dp=2", "--init " + one)));
  // One file instead of many: nothing of the many is left.
  ASSERT_EQ(train("dp=1", "--save " + many).status, 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(many), {}), 2);
}

TEST(ProgramTrain, SavedConfigurationKeepsWhatItWasGiven) {
  const TemporaryFolder folder;
  std::ostringstream text;
  text << std::ifstream("suites/models/gate-tiny.json").rdbuf();
  std::string model = text.str();
  model.replace(model.rfind('}'), 1, ", \"eos_token_id\": 77, \"torch_dtype\": \"bfloat16\"}");
  const std::string path = folder.write("given.json", model);
  const Ended ended =
      lockstep_program("train --data datasets/excerpt-v509.tok --batch 2 --seq 8 --steps 1 --model " + path +
                       " --save " + folder.path());
  ASSERT_EQ(ended.status, 0) << ended.err;
  std::ostringstream saved;
  saved << std::ifstream(folder.path() + "/config.json").rdbuf();
  EXPECT_TRUE(says(saved.str(), "\"eos_token_id\": 77", "\"torch_dtype\": \"float32\"", "\"head_dim\": 8"));
}

TEST(ProgramShow, PrintsTheProgramItsMemoryAndItsMessages) {
  const Ended ended = lockstep_program("show " + tiny_model + "--plan 'dp=2 tp=2 pp=2' --rank 5 --seq 16");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(
      ended.out, "\nseam tensor, spread together, schedule 1f1b, store data, home on-device, stash keep, "));
  EXPECT_TRUE(says(ended.out, "rank 5", "forward: chunk 1, microbatch 3", "run ", "start ", "@0x",
                   "peak bytes", "formula", "no deadlock"));
  EXPECT_EQ(ended.out.find("differ"), std::string::npos) << ended.out;
  // 8 sequences in 4 microbatches of a replica; a middle stage would pass 2 tensors of 16 x 64 floats for
  // each, the last of two passes one back.
  EXPECT_TRUE(says(ended.out, "pp                       4         16384"));
}

TEST(ProgramShow, SaysWhichSegmentARankHas) {
  const Ended ended =
      lockstep_program("show " + tiny_model + "--plan 'dp=2 cp=2' --segments 2 --rank 3 --seq 16");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(says(ended.out, "rank 3 (dp 1, tp 0, pp 0, cp 1)", "no deadlock")) << ended.out.substr(0, 200);
  EXPECT_TRUE(says(ended.out, "spread ulysses", "all_to_all cp `layers.0.attn.q`", "swap_axes("));
  EXPECT_EQ(ended.out.find("differ"), std::string::npos) << ended.out;
}

// A model of 5 million parameters: 42 MB of moments go, 3 MB of blocks come.
TEST(ProgramResident, DiskOffloadLowersWhatTheSystemSaysIsResident) {
  const std::string run =
      "resident --model suites/models/smol-5m.json --data datasets/excerpt-v509.tok --batch 1 --seq 16 "
      "--steps 2 ";
  const Ended ended = lockstep_program(run + "--within 0.2");
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_TRUE(says(ended.out, "offload=optimizer to=disk", "VALID: resident memory is lowered by "));
  // No run is resident to the byte.
  EXPECT_EQ(lockstep_program(run + "--within 1e-9").status, 1);
}

}  // namespace
}  // namespace lockstep
