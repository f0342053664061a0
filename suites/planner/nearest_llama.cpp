#include "suites/planner/nearest_llama.hpp"

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "ref/error.hpp"

namespace lockstep {
namespace {

using json = nlohmann::json;

// By architecture what each always has that a Llama has not. Their shapes, and what their matrices cost, are
// a Llama's: modeling_<name>.py of Hugging Face's transformers.
const std::map<std::string, std::vector<std::string>> kNearly = {
    {"LlamaForCausalLM", {}},
    {"MistralForCausalLM", {}},
    {"Phi3ForCausalLM", {}},
    {"Qwen2ForCausalLM", {"biases of q, k and v"}},
    {"Qwen3ForCausalLM", {"norms of q and k"}},
    {"Olmo2ForCausalLM", {"norms of q and k, and of what branches give"}},
    {"GemmaForCausalLM", {"GELU in place of SiLU, and the embedding's scale"}},
};

bool is_on(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && !it->is_null() && *it != false && *it != 0 && *it != 0.0;
}

// The file's object; nothing, where it is none, or none of these architectures'.
std::optional<json> known(const std::string& file) {
  std::ifstream in(file);
  json object = json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return {};
  const auto names = object.find("architectures");
  if (names == object.end() || !names->is_array() || names->size() != 1 || !names->front().is_string())
    return {};
  if (!kNearly.count(names->front().get<std::string>())) return {};
  return object;
}

}  // namespace

NearestLlama nearest_llama(const std::string& path) {
  const std::string file = model_config_file(path);
  std::optional<json> found = known(file);
  if (!found) return {load_model_config(path), {}};
  json& object = *found;
  NearestLlama nearest{{}, kNearly.at(object["architectures"][0])};
  const auto leave_out = [&](const char* key, const char* what) {
    if (is_on(object, key)) nearest.left_out.emplace_back(what);
    object.erase(key);
  };
  if (!object.contains("use_sliding_window") || is_on(object, "use_sliding_window"))
    leave_out("sliding_window", "the sliding window: attention is to all tokens before");
  leave_out("attention_bias", "biases of attention");
  leave_out("mlp_bias", "biases of the MLP");
  leave_out("attention_dropout", "dropout of attention");
  // What GemmaConfig takes where the file says nothing.
  if (object["architectures"][0] == "GemmaForCausalLM") object.emplace("tie_word_embeddings", true);
  object.erase("hidden_act"), object.erase("hidden_activation");
  object["architectures"] = {"LlamaForCausalLM"};
  try {
    nearest.model = parse_model_config(object.dump(), file);
  } catch (const UserError&) {  // perhaps for how its positions are scaled
    if (const auto rope = object.find("rope_parameters");
        rope != object.end() && rope->contains("rope_theta"))
      object["rope_theta"] = (*rope)["rope_theta"];
    leave_out("rope_scaling", "how positions are scaled");
    leave_out("rope_parameters", "how positions are scaled");
    nearest.model = parse_model_config(object.dump(), file);
  }
  return nearest;
}

bool has_nearest_llama(const std::string& path) {
  if (!known(model_config_file(path))) return false;
  try {
    nearest_llama(path);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

}  // namespace lockstep
