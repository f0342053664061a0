// Reading safetensors files that are true, cut off, or lying.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "ref/config.hpp"
#include "ref/safetensors.hpp"
#include "ref/weights.hpp"
#include "ref/write_aside.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

template <class Value>
std::string bytes_of(const std::vector<Value>& values) {
  std::string bytes(values.size() * sizeof(Value), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string file_bytes(const std::string& header, const std::string& data) {
  return bytes_of(std::vector<std::uint64_t>{header.size()}) + header + data;
}

StoredTensors load(const std::string& bytes) {
  static const TemporaryFolder folder;
  return load_safetensors(folder.write("model.safetensors", bytes));
}

std::string refusal_of(const std::string& bytes) {
  return refusal([&] { load(bytes); });
}

const std::string kPair =
    file_bytes(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
               R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
               bytes_of(std::vector<float>{7, 1, 2, 3, 4, 5, 6}));

TEST(SafeTensors, ReadsShapesAndValues) {
  const StoredTensors tensors = load(kPair);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_TRUE(tensors.at("a").shape.empty());
  EXPECT_EQ(tensors.at("a").values, (std::vector<float>{7}));
  EXPECT_EQ(tensors.at("b").shape, (std::vector<i64>{2, 3}));
  EXPECT_EQ(tensors.at("b").values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

// IEEE 754: binary16 0x3c00 is 1, 0xc500 is -5, 0x7bff is 65504, 0x0001 is 2^-24, 0x7c00 is infinity;
// bfloat16 is the upper half of a binary32.
TEST(SafeTensors, WidensHalves) {
  const auto f16 =
      load(file_bytes(R"({"x":{"dtype":"F16","shape":[6],"data_offsets":[0,12]}})",
                      bytes_of(std::vector<std::uint16_t>{0x3c00, 0xc500, 0x7bff, 1, 0x7c00, 0x3555})));
  EXPECT_EQ(f16.at("x").values,
            (std::vector<float>{1.0f, -5.0f, 65504.0f, 0x1p-24f, INFINITY, 1365.0f / 4096}));
  const auto bf16 = load(file_bytes(R"({"x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}})",
                                    bytes_of(std::vector<std::uint16_t>{0x3f80, 0xc0a0, 0x4049})));
  EXPECT_EQ(bf16.at("x").values, (std::vector<float>{1.0f, -5.0f, 3.140625f}));
}

TEST(SafeTensors, EveryCutIsRefused) {
  for (std::size_t length = 0; length < kPair.size(); ++length)
    EXPECT_NE(refusal_of(kPair.substr(0, length)), "") << "cut to " << length;
  EXPECT_TRUE(says(refusal_of(kPair + "x"), "added"));
}

// Whatever one byte becomes, the file is read or refused; nothing else happens.
TEST(SafeTensors, EveryChangedByteIsReadOrRefused) {
  const std::size_t header_end = kPair.size() - 28;
  for (std::size_t place = 0; place < header_end; ++place)
    for (const char value : {'\0', '9', '"', '-', '}', '\xff'}) {
      std::string bytes = kPair;
      bytes[place] = value;
      refusal_of(bytes);
    }
}

TEST(SafeTensors, LyingHeadersAreRefused) {
  const std::string data = bytes_of(std::vector<float>{1, 2, 3, 4});
  auto refused = [&](const std::string& header) { return refusal_of(file_bytes(header, data)); };
  auto one = [&](const std::string& fields) { return refused(R"({"x":{)" + fields + "}}"); };
  EXPECT_EQ(one(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"), "");
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[5],"data_offsets":[0,16])"), "20 bytes"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), "16 to 0"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[4],"data_offsets":[4,20])"), "follow one another"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[8],"data_offsets":[0,32])"), "cut off"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,12])"), "added"));
  EXPECT_TRUE(says(one(R"("dtype":"I64","shape":[2],"data_offsets":[0,16])"), "I64", "F32"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16])"), "no file"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "shape"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])"), "shape"));
  EXPECT_TRUE(says(one(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), "data_offsets"));
  EXPECT_TRUE(says(one(R"("shape":[4],"data_offsets":[0,16])"), "dtype"));
  EXPECT_TRUE(says(refused(R"({"x":7})"), "tensor x"));
  EXPECT_TRUE(says(refused(R"([])"), "JSON object"));
  EXPECT_TRUE(says(refused(R"({"x":)"), "JSON object"));
  EXPECT_TRUE(says(refused(R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                           R"("y":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})"),
                   "follow one another"));
  EXPECT_TRUE(says(refusal_of(bytes_of(std::vector<std::uint64_t>{~std::uint64_t{0}}) + "{}"), "header"));
}

TEST(SafeTensors, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  const StoredTensors tensors = {
      {"w", {{2, 2}, {1, -0.0f, 1e-45f, 3}}}, {"empty", {{0, 5}, {}}}, {"s", {{1}, {9}}}};
  save_safetensors(folder.path() + "/model.safetensors", tensors);
  const StoredTensors back = load_safetensors(folder.path());
  ASSERT_EQ(back.size(), 3u);
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(back.at(name).shape, tensor.shape);
    EXPECT_EQ(bytes_of(back.at(name).values), bytes_of(tensor.values));
  }
  EXPECT_TRUE(
      says(refusal([&] { save_safetensors(folder.path() + "/none/x", tensors); }), "cannot be written"));
}

// Readers map the file: the format has its writers align the tensors to 8 bytes.
TEST(SafeTensors, TensorsAreAligned) {
  const TemporaryFolder folder;
  for (std::size_t n = 1; n <= 8; ++n) {
    const std::string path = folder.path() + "/" + std::to_string(n);
    save_safetensors(path, {{std::string(n, 'x'), {{1}, {1}}}});
    std::uint64_t header = 0;
    std::ifstream(path).read(reinterpret_cast<char*>(&header), sizeof header);
    EXPECT_EQ(header % 8, 0u) << n;
  }
}

// A disk that fills up while a model is written over an older one leaves the older one, and nothing else.
TEST(WriteAside, WhoeverReadsFindsTheOldFileOrTheNew) {
  const TemporaryFolder folder;
  const std::string path = folder.write("model.safetensors", "old");
  const auto now = [&] {
    std::string text;
    std::getline(std::ifstream(path), text);
    return text;
  };
  EXPECT_FALSE(write_aside(path, [&](std::ostream& out) {
    out << "half" << std::flush;
    EXPECT_EQ(now(), "old");
    out.setstate(std::ios::badbit);
  }));
  EXPECT_EQ(now(), "old");
  EXPECT_TRUE(write_aside(path, [&](std::ostream& out) {
    out << "new" << std::flush;
    EXPECT_EQ(now(), "old");
  }));
  EXPECT_EQ(now(), "new");
  const auto begin = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin, std::filesystem::directory_iterator()), 1);
}

TEST(SafeTensors, FoldersMayHoldSeveralFiles) {
  const TemporaryFolder folder;
  EXPECT_TRUE(says(refusal([&] { load_safetensors(folder.path()); }), "model.safetensors"));
  save_safetensors(folder.path() + "/one.safetensors", {{"a", {{1}, {1}}}});
  save_safetensors(folder.path() + "/two.safetensors", {{"b", {{1}, {2}}}});
  const std::string index = "model.safetensors.index.json";
  folder.write(index, R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  EXPECT_EQ(load_safetensors(folder.path()).size(), 2u);
  folder.write(index, R"({"weight_map":{"a":"one.safetensors","b":"three.safetensors"}})");
  EXPECT_TRUE(says(refusal([&] { load_safetensors(folder.path()); }), "three.safetensors"));
  folder.write(index, R"({"weight_map":{"a":"../one.safetensors"}})");
  EXPECT_TRUE(says(refusal([&] { load_safetensors(folder.path()); }), "beside it"));
  folder.write(index, "{}");
  EXPECT_TRUE(says(refusal([&] { load_safetensors(folder.path()); }), "weight_map"));
}

// Two tensors of 40 bytes fill a file of 80, one of 120 has a file of its own; what transformers reads of the
// index, and nothing of the model that was there before, in as many files or in one.
TEST(SafeTensors, AModelsFilesHoldAtMostSoMuch) {
  const TemporaryFolder folder;
  const auto model = [](float x) {
    return StoredTensors{{"a", {{10}, std::vector<float>(10, x)}},
                         {"b", {{2, 5}, std::vector<float>(10, x)}},
                         {"c", {{30}, std::vector<float>(30, x)}}};
  };
  const auto is = [&](float x) {
    const StoredTensors found = load_safetensors(folder.path());
    return found.size() == 3 && found.at("a").values[0] == x && found.at("c").values[29] == x;
  };
  const auto files = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      names.insert(entry.path().filename());
    return names;
  };
  const std::string first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  save_model(folder.path(), model(1), 200);
  EXPECT_EQ(files(), (std::set<std::string>{"model.safetensors"}));
  save_model(folder.path(), model(2), 80);
  EXPECT_EQ(files(), (std::set<std::string>{first, second, "model.safetensors.index.json"}));
  EXPECT_TRUE(is(2));
  const auto index = nlohmann::json::parse(std::ifstream(folder.path() + "/model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 200);
  EXPECT_EQ(index["weight_map"], (nlohmann::json{{"a", first}, {"b", first}, {"c", second}}));
  save_model(folder.path(), model(3), 79);  // a third file
  EXPECT_EQ(files().size(), 4u);
  EXPECT_TRUE(is(3));
  save_model(folder.path(), model(4), 1);  // none fits: a file for each, and none without any
  EXPECT_EQ(files().size(), 4u);
  EXPECT_TRUE(is(4));
  save_model(folder.path(), model(4), 200);
  EXPECT_EQ(files(), (std::set<std::string>{"model.safetensors"}));
  EXPECT_TRUE(is(4));
}

// A model of one layer and one number more or less.
struct Weights : testing::Test {
  Weights() {
    config.vocab = 3, config.hidden = 2, config.intermediate = 2, config.layers = 1;
    config.heads = 1, config.kv_heads = 1, config.head_dim = 2;
    config.tied = true;
    table = parameter_table(config, 8);
    for (const Param& p : table)
      if (p.tied_to < 0)
        tensors[p.name] = {
            p.row_dim == Dim::one ? std::vector<i64>{p.cols} : std::vector<i64>{p.rows, p.cols},
            std::vector<float>(static_cast<std::size_t>(p.count()), 0.5f)};
  }
  std::vector<std::vector<float>> load() {
    const std::string path = folder.path() + "/model.safetensors";
    save_safetensors(path, tensors);
    return load_weights(path, table);
  }
  TemporaryFolder folder;
  ModelConfig config;
  std::vector<Param> table;
  StoredTensors tensors;
};

TEST_F(Weights, AreInTheTablesOrder) {
  tensors.at("model.norm.weight").values = {3, 4};
  const auto values = load();
  ASSERT_EQ(values.size(), table.size());
  EXPECT_EQ(values[0].size(), 6u);
  EXPECT_EQ(values[10], (std::vector<float>{3, 4}));
  EXPECT_TRUE(values[11].empty());
  save_weights(folder.path() + "/again", table, values);
  EXPECT_EQ(load_weights(folder.path() + "/again", table), values);
}

// A tied head is the embedding, whatever else a file holds for it (as in Transformers' tie_weights).
TEST_F(Weights, ATiedHeadsOwnCopyIsLeft) {
  tensors["lm_head.weight"] = {{3, 2}, std::vector<float>(6, 9.0f)};
  const auto values = load();
  EXPECT_EQ(values[0], std::vector<float>(6, 0.5f));
  EXPECT_TRUE(values[11].empty());
}

// Llama 2's first files keep this table; nothing else that the model has not is taken.
TEST_F(Weights, FilesMayKeepTheTableOfFrequencies) {
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{1}, {1}};
  EXPECT_EQ(refusal([&] { load(); }), "");
  tensors["model.layers.0.self_attn.inv_freq"] = {{1}, {1}};
  EXPECT_TRUE(says(refusal([&] { load(); }), "no parameter named model.layers.0.self_attn.inv_freq"));
}

TEST_F(Weights, MustFitTheModel) {
  EXPECT_EQ(refusal([&] { load(); }), "");
  tensors.at("model.norm.weight").shape = {2, 1};
  EXPECT_TRUE(says(refusal([&] { load(); }), "model.norm.weight", "[2, 1]", "[2]"));
  tensors.erase("model.norm.weight");
  EXPECT_TRUE(says(refusal([&] { load(); }), "model.norm.weight is missing"));
  tensors["model.norm.weight"] = {{2}, {1, 1}};
  tensors["model.layers.1.mlp.up_proj.weight"] = {{1}, {1}};
  EXPECT_TRUE(says(refusal([&] { load(); }), "no parameter named model.layers.1.mlp.up_proj.weight"));
}

}  // namespace
}  // namespace lockstep
