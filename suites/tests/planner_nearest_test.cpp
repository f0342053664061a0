// Models that are nearly Llamas, as planned for: their published numbers of parameters.
#include <gtest/gtest.h>

#include "ref/params.hpp"
#include "suites/planner/nearest_llama.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

double parameters_of(const ModelConfig& model) {
  double all = 0;
  for (const Param& p : parameter_table(model, 1))
    if (p.tied_to < 0) all += static_cast<double>(p.rows * p.cols);
  return all;
}

struct Published {
  const char* config;
  double parameters;  // of its safetensors, model.safetensors.index.json or the model's page on Hugging Face
  std::vector<std::string> left_out;
};

const char* const kWindow = "the sliding window: attention is to all tokens before";
const Published kPublished[] = {
    // Qwen/Qwen2.5-7B, Qwen/Qwen3-8B, microsoft/Phi-3-mini-4k-instruct, mistralai/Mistral-7B-v0.1
    {R"({"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 3584,
         "intermediate_size": 18944, "num_attention_heads": 28, "num_hidden_layers": 28,
         "num_key_value_heads": 4, "sliding_window": 131072, "use_sliding_window": false,
         "tie_word_embeddings": false, "vocab_size": 152064, "attention_dropout": 0.0})",
     7615616512,
     {"biases of q, k and v"}},
    {R"({"architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
         "intermediate_size": 12288, "num_attention_heads": 32, "num_hidden_layers": 36,
         "num_key_value_heads": 8, "sliding_window": null, "use_sliding_window": false,
         "tie_word_embeddings": false, "vocab_size": 151936, "attention_bias": false, "rope_scaling": null})",
     8190735360,
     {"norms of q and k"}},
    {R"({"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 3072,
         "intermediate_size": 8192, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 32, "sliding_window": 2047, "tie_word_embeddings": false,
         "vocab_size": 32064, "attention_bias": false, "rope_scaling": {"type": "longrope"}})",
     3821079552,
     {kWindow, "how positions are scaled"}},
    {R"({"architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
         "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 8, "sliding_window": 4096, "tie_word_embeddings": false,
         "vocab_size": 32000})",
     7241732096,
     {kWindow}},
    // google/gemma-2b, allenai/OLMo-2-1124-7B
    {R"({"architectures": ["GemmaForCausalLM"], "head_dim": 256, "hidden_act": "gelu", "hidden_size": 2048,
         "intermediate_size": 16384, "num_attention_heads": 8, "num_hidden_layers": 18,
         "num_key_value_heads": 1, "vocab_size": 256000, "attention_bias": false})",
     2506172416,
     {"GELU in place of SiLU, and the embedding's scale"}},
    {R"({"architectures": ["Olmo2ForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
         "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 32, "tie_word_embeddings": false, "vocab_size": 100352})",
     7298617344,
     {"norms of q and k, and of what branches give"}},
};

TEST(NearestLlama, HasTheParametersThatArePublished) {
  const TemporaryFolder folder;
  for (const Published& p : kPublished) {
    const std::string file = folder.write("config.json", p.config);
    EXPECT_THROW(load_model_config(file), UserError) << p.config;
    ASSERT_TRUE(has_nearest_llama(file)) << p.config;
    const NearestLlama nearest = nearest_llama(file);
    EXPECT_NEAR(parameters_of(nearest.model) / p.parameters, 1, 1e-4) << p.config;
    EXPECT_EQ(nearest.left_out, p.left_out);
  }
}

TEST(NearestLlama, OfALlamaIsItself) {
  for (const char* file : {"suites/models/llama-3-8b.json", "suites/models/llama-3.1-405b.json"}) {
    const NearestLlama nearest = nearest_llama(file);
    EXPECT_EQ(model_config_text(nearest.model), model_config_text(load_model_config(file)));
    EXPECT_TRUE(nearest.left_out.empty()) << file;
  }
}

TEST(NearestLlama, KeepsHowPositionsTurn) {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& rope) {
    return nearest_llama(folder.write(
        "config.json", R"({"architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "intermediate_size": 64,
            "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 99, "rope_parameters": )" +
                           rope + "}"));
  };
  const NearestLlama plain = with(R"({"rope_theta": 1000000, "rope_type": "default"})");
  EXPECT_EQ(plain.model.rope_theta, 1000000);
  EXPECT_EQ(plain.left_out.size(), 1u) << "norms alone";
  const NearestLlama scaled = with(R"({"rope_theta": 500000, "rope_type": "yarn", "factor": 4.0})");
  EXPECT_EQ(scaled.model.rope_theta, 500000);
  EXPECT_EQ(scaled.left_out.back(), "how positions are scaled");
}

TEST(NearestLlama, OfAnotherShapeThereIsNone) {
  const TemporaryFolder folder;
  for (const char* text : {R"({"architectures": ["GPT2LMHeadModel"], "n_embd": 768})",
                           R"({"architectures": ["Qwen3ForCausalLM"]})",
                           R"({"architectures": "LlamaForCausalLM"})", "[]", "no JSON"}) {
    const std::string file = folder.write("config.json", text);
    EXPECT_FALSE(has_nearest_llama(file)) << text;
    EXPECT_NE(refusal([&] { nearest_llama(file); }), "") << text;
  }
}

}  // namespace
}  // namespace lockstep
