// Reading a Hugging Face config.json, and what it refuses.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "ref/config.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

using json = nlohmann::json;

const json kGood = {{"architectures", {"LlamaForCausalLM"}},
                    {"vocab_size", 509},
                    {"hidden_size", 64},
                    {"intermediate_size", 172},
                    {"num_hidden_layers", 3},
                    {"num_attention_heads", 8}};

// The good one with one field changed; null: taken out.
json with(const std::string& key, const json& value) {
  json object = kGood;
  object[key] = value;
  if (value.is_null()) object.erase(key);
  return object;
}

ModelConfig load(const json& object) {
  const TemporaryFolder folder;
  return load_model_config(folder.write("config.json", object.dump()));
}

std::string refusal_of(const json& object) {
  return refusal([&] { load(object); });
}

TEST(Config, AbsentFieldsHaveTheDefaultsOfTransformers) {
  const ModelConfig c = load(kGood);
  EXPECT_EQ(c.vocab, 509);
  EXPECT_EQ(c.hidden, 64);
  EXPECT_EQ(c.intermediate, 172);
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.heads, 8);
  EXPECT_EQ(c.kv_heads, 8);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.max_position, 2048);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.rms_eps, 1e-6);
  EXPECT_EQ(c.init_std, 0.02);
  EXPECT_FALSE(c.tied);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::none);
}

TEST(Config, FieldsAreRead) {
  json object = kGood;
  object.update({{"num_key_value_heads", 2},
                 {"head_dim", 16},
                 {"max_position_embeddings", 77},
                 {"rope_theta", 5e5},
                 {"rms_norm_eps", 1e-5},
                 {"initializer_range", 0.1},
                 {"tie_word_embeddings", true},
                 {"rope_scaling",
                  {{"rope_type", "llama3"},
                   {"factor", 32.0},
                   {"low_freq_factor", 1.5},
                   {"high_freq_factor", 4.5},
                   {"original_max_position_embeddings", 99}}}});
  const ModelConfig c = load(object);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.max_position, 77);
  EXPECT_EQ(c.rope_theta, 5e5);
  EXPECT_EQ(c.rms_eps, 1e-5);
  EXPECT_EQ(c.init_std, 0.1);
  EXPECT_TRUE(c.tied);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(c.rope_scaling.factor, 32.0);
  EXPECT_EQ(c.rope_scaling.low_freq_factor, 1.5);
  EXPECT_EQ(c.rope_scaling.high_freq_factor, 4.5);
  EXPECT_EQ(c.rope_scaling.original_max_position, 99);
}

TEST(Config, NewerFilesKeepThetaAndScalingTogether) {
  const ModelConfig c =
      load(with("rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 4.0}}));
  EXPECT_EQ(c.rope_theta, 5e5);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::linear);
  EXPECT_EQ(c.rope_scaling.factor, 4.0);
}

TEST(Config, TheProjectsModelsLoadFromFilesAndFolders) {
  EXPECT_EQ(load_model_config("suites/models/gate-tiny.json").vocab, 509);
  EXPECT_EQ(load_model_config("suites/models/gate-untied.json").kv_heads, 4);
  EXPECT_EQ(load_model_config("suites/models/smol-5m.json").vocab, 4096);
  EXPECT_TRUE(load_model_config("suites/fixtures/tied").tied);
}

TEST(Config, OtherArchitecturesAreRefused) {
  EXPECT_TRUE(
      says(refusal_of(with("architectures", {"Qwen2ForCausalLM"})), "Qwen2ForCausalLM", "LlamaForCausalLM"));
  EXPECT_TRUE(says(refusal_of(with("architectures", nullptr)), "architectures is missing"));
  EXPECT_TRUE(says(refusal_of(with("model_type", "qwen3")), "model_type is \"qwen3\"", "LlamaForCausalLM"));
  EXPECT_TRUE(says(refusal_of(with("hidden_act", "gelu")), "gelu", "silu"));
  EXPECT_TRUE(says(refusal_of(with("attention_bias", true)), "attention_bias"));
  EXPECT_TRUE(says(refusal_of(with("mlp_bias", true)), "mlp_bias"));
  EXPECT_TRUE(says(refusal_of(with("attention_dropout", 0.1)), "attention_dropout is 0.1"));
}

// transformers' MistralConfig has a window of 4096 tokens where a file says nothing.
TEST(Config, MistralIsLlamaWithoutItsWindow) {
  json mistral = kGood;
  mistral["architectures"] = {"MistralForCausalLM"};
  EXPECT_TRUE(says(refusal_of(mistral), "sliding_window is null"));
  mistral["sliding_window"] = 4096;
  EXPECT_TRUE(says(refusal_of(mistral), "sliding_window is null"));
  mistral["sliding_window"] = nullptr;
  EXPECT_EQ(parse_model_config(mistral.dump(), "m").vocab, kGood["vocab_size"]);
}

TEST(Config, MissingAndImpossibleFieldsAreNamed) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    EXPECT_TRUE(says(refusal_of(with(key, nullptr)), std::string(key) + " is missing"));
    for (const json& wrong :
         {json(0), json(-8), json(1.5), json("64"), json(1e18), json(18446744073709551615u)})
      EXPECT_TRUE(says(refusal_of(with(key, wrong)), key, wrong.dump())) << wrong;
  }
  // A word of a plan (virtual) may have as many, and takes no larger number.
  EXPECT_TRUE(says(refusal_of(with("num_hidden_layers", 1000000)), "num_hidden_layers", "from 1 to 999999"));
  EXPECT_TRUE(says(refusal_of(with("rms_norm_eps", 0)), "rms_norm_eps is 0"));
  EXPECT_TRUE(says(refusal_of(with("rope_theta", "big")), "rope_theta"));
  EXPECT_TRUE(says(refusal_of(with("tie_word_embeddings", 1)), "true or false"));
  EXPECT_TRUE(says(refusal_of(with("rope_scaling", {{"rope_type", "yarn"}})), "yarn", "llama3"));
  EXPECT_TRUE(says(refusal_of(with("rope_scaling", {{"type", "linear"}})), "factor is missing"));
  EXPECT_TRUE(says(refusal_of(with("rope_scaling", 2)), "object"));
}

TEST(Config, HeadsMustDivide) {
  EXPECT_TRUE(says(refusal_of(with("num_key_value_heads", 3)), "8", "multiple", "3"));
  EXPECT_TRUE(says(refusal_of(with("hidden_size", 60)), "60", "multiple", "8"));
  EXPECT_TRUE(says(refusal_of(with("head_dim", 7)), "7", "even"));
}

TEST(Config, UnreadableFilesAreRefused) {
  const TemporaryFolder folder;
  EXPECT_TRUE(says(refusal([&] { load_model_config(folder.path() + "/none.json"); }), "none.json"));
  EXPECT_TRUE(says(refusal([&] { load_model_config(folder.path()); }), "config.json"));
  for (const char* text : {"", "{", "[1]", "\x80"})
    EXPECT_TRUE(says(refusal([&] { load_model_config(folder.write("bad.json", text)); }), "JSON object"));
  EXPECT_TRUE(says(refusal([&] { load_model_config(folder.write("bad.json", "{\"a\": 1e999}")); }),
                   "a number that is too large for any type"));
  // A comma too many, with its line.
  EXPECT_TRUE(says(refusal([&] { load_model_config(folder.write("bad.json", "{\n\"a\": 1,\n}\n")); }),
                   "bad.json:3: "));
}

auto every_field(const ModelConfig& c) {
  const RopeScaling& r = c.rope_scaling;
  return std::tuple(c.vocab, c.hidden, c.intermediate, c.layers, c.heads, c.kv_heads, c.head_dim,
                    c.max_position, c.rope_theta, c.rms_eps, c.init_std, c.tied, r.kind, r.factor,
                    r.low_freq_factor, r.high_freq_factor, r.original_max_position);
}

// Both published files and ones whose every field is unusual.
TEST(Config, WhatIsSavedIsRead) {
  const TemporaryFolder folder;
  json unusual = kGood;
  unusual.update({{"num_key_value_heads", 2},
                  {"head_dim", 16},
                  {"max_position_embeddings", 77},
                  {"rope_theta", 123.5},
                  {"rms_norm_eps", 0.03125},
                  {"initializer_range", 0.5},
                  {"tie_word_embeddings", true},
                  {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}},
                  {"bos_token_id", 7},
                  {"dtype", "bfloat16"}});
  std::vector<std::string> paths = {folder.write("unusual.json", unusual.dump())};
  for (const auto& entry : std::filesystem::directory_iterator("suites/models"))
    paths.push_back(entry.path());
  for (const std::string& path : paths) {
    const ModelConfig given = load_model_config(path);
    save_model_config(folder.path() + "/config.json", path, given);
    EXPECT_EQ(every_field(load_model_config(folder.path())), every_field(given)) << path;
    std::ifstream saved(folder.path() + "/config.json");
    std::ifstream origin(path);
    const json object = json::parse(saved), before = json::parse(origin);
    EXPECT_EQ(object.value("bos_token_id", -1), before.value("bos_token_id", -1)) << "what changes no number";
    EXPECT_EQ(object["torch_dtype"], "float32");
    EXPECT_FALSE(object.contains("dtype"));
  }
}

}  // namespace
}  // namespace lockstep
