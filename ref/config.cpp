#include "ref/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "ref/error.hpp"

namespace lockstep {
namespace {

using json = nlohmann::json;

// Reads fields of one JSON object and complains in the user's terms.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  i64 size(const char* key, i64 otherwise) const { return has(key) ? size(key) : otherwise; }
  i64 size(const char* key) const { return up_to(1'000'000'000, key); }
  i64 up_to(i64 most, const char* key) const {
    const json& value = at(key);
    if (!value.is_number_integer() || value.get<double>() < 1 ||
        value.get<double>() > static_cast<double>(most))
      fail(fmt::format("{} is {}; it must be a whole number from 1 to {}", key, value.dump(), most));
    return value.get<i64>();
  }

  double positive(const char* key) const {
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0))
      fail(fmt::format("{} is {}; it must be a number above 0", key, value.dump()));
    return value.get<double>();
  }
  double positive(const char* key, double otherwise) const { return has(key) ? positive(key) : otherwise; }

  bool flag(const char* key) const {
    if (!has(key)) return false;
    if (!object_[key].is_boolean())
      fail(fmt::format("{} is {}; it must be true or false", key, object_[key].dump()));
    return object_[key].get<bool>();
  }

  std::string word(const char* key, const char* otherwise) const {
    if (!has(key)) return otherwise;
    if (!object_[key].is_string())
      fail(fmt::format("{} is {}; it must be a string", key, object_[key].dump()));
    return object_[key].get<std::string>();
  }

  Fields object(const char* key) const {
    if (!at(key).is_object()) fail(fmt::format("{} is {}; it must be an object", key, at(key).dump()));
    return {at(key), where_};
  }

  const json& at(const char* key) const {
    if (!has(key)) fail(fmt::format("{} is missing", key));
    return object_[key];
  }

  [[noreturn]] void fail(const std::string& what) const { throw UserError(where_ + ": " + what + "."); }

 private:
  const json& object_;
  std::string where_;
};

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  if (!in)
    throw UserError(
        fmt::format("{}: this model configuration (a Hugging Face config.json) cannot be read: {}.", path,
                    std::strerror(errno)));
  return {std::istreambuf_iterator<char>(in), {}};
}

json parse(const std::string& text, const std::string& origin) {
  const char* no_object = "this is not a JSON object; a Hugging Face config.json is";
  json object;
  try {
    object = json::parse(text);
  } catch (const json::parse_error& e) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(e.byte, text.size()));
    throw UserError(fmt::format("{}:{}: {}.", origin, 1 + std::count(text.begin(), end, '\n'), no_object));
  } catch (const json::exception&) {
    throw UserError(fmt::format("{}: it holds a number that is too large for any type.", origin));
  }
  if (!object.is_object()) throw UserError(fmt::format("{}: {}.", origin, no_object));
  return object;
}

// Mistral's is Llama's but for its sliding window, which a file that does not say `null` has.
void check_architecture(const Fields& fields, const json& object) {
  const json& names = fields.at("architectures");
  const bool mistral = names == json::array({"MistralForCausalLM"});
  const std::string type = fields.word("model_type", mistral ? "mistral" : "llama");
  if (names == json::array({"LlamaForCausalLM"}) && type != "llama")
    fields.fail(
        fmt::format("model_type is \"{}\", and architectures [\"LlamaForCausalLM\"]: which is it?", type));
  if (names != json::array({"LlamaForCausalLM"}) && !mistral)
    fields.fail(
        fmt::format("architectures is {}; only [\"LlamaForCausalLM\"] can be trained, and "
                    "[\"MistralForCausalLM\"] without its sliding window",
                    names.dump()));
  if (mistral && !(object.contains("sliding_window") && object["sliding_window"].is_null()))
    fields.fail("MistralForCausalLM can be trained where sliding_window is null");
  if (fields.has("attention_dropout") && object["attention_dropout"] != 0)
    fields.fail(fmt::format("attention_dropout is {}; it must be 0", object["attention_dropout"].dump()));
  const std::string activation = fields.word("hidden_act", "silu");
  if (activation != "silu") fields.fail(fmt::format("hidden_act is \"{}\"; it must be \"silu\"", activation));
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (fields.flag(key)) fields.fail(fmt::format("{} is true; Llama's layers here have no bias", key));
}

RopeScaling read_rope_scaling(const Fields& fields) {
  RopeScaling s;
  const std::string type = fields.word("rope_type", fields.word("type", "default").c_str());
  if (type == "default") return s;
  if (type != "linear" && type != "llama3")
    fields.fail(fmt::format("rope_type is \"{}\"; known are default, linear and llama3", type));
  s.factor = fields.positive("factor");
  s.kind = RopeScaling::Kind::linear;
  if (type == "linear") return s;
  s.kind = RopeScaling::Kind::llama3;
  s.low_freq_factor = fields.positive("low_freq_factor");
  s.high_freq_factor = fields.positive("high_freq_factor");
  s.original_max_position = fields.size("original_max_position_embeddings");
  if (s.high_freq_factor <= s.low_freq_factor)
    fields.fail(fmt::format("high_freq_factor is {}; it must be above low_freq_factor, which is {}",
                            s.high_freq_factor, s.low_freq_factor));
  return s;
}

void read_rope(const Fields& fields, ModelConfig& config) {
  config.rope_theta = fields.positive("rope_theta", config.rope_theta);
  if (fields.has("rope_scaling")) config.rope_scaling = read_rope_scaling(fields.object("rope_scaling"));
  if (fields.has("rope_parameters")) {  // where newer files keep both
    const Fields rope = fields.object("rope_parameters");
    config.rope_theta = rope.positive("rope_theta", config.rope_theta);
    config.rope_scaling = read_rope_scaling(rope);
  }
}

void check_heads(const Fields& fields, const ModelConfig& c) {
  if (c.heads % c.kv_heads != 0)
    fields.fail(
        fmt::format("num_attention_heads is {}; it must be a multiple of num_key_value_heads, which is {}",
                    c.heads, c.kv_heads));
  if (c.head_dim % 2 != 0)
    fields.fail(fmt::format("the width of a head is {}; rotary positions need an even one", c.head_dim));
}

nlohmann::ordered_json fields_of(const ModelConfig& m) {
  nlohmann::ordered_json fields = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", m.vocab},
      {"hidden_size", m.hidden},
      {"intermediate_size", m.intermediate},
      {"num_hidden_layers", m.layers},
      {"num_attention_heads", m.heads},
      {"num_key_value_heads", m.kv_heads},
      {"head_dim", m.head_dim},
      {"max_position_embeddings", m.max_position},
      {"rope_theta", m.rope_theta},
      {"rms_norm_eps", m.rms_eps},
      {"initializer_range", m.init_std},
      {"tie_word_embeddings", m.tied},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"mlp_bias", false},
  };
  const RopeScaling& r = m.rope_scaling;
  if (r.kind == RopeScaling::Kind::linear)
    fields["rope_scaling"] = {{"rope_type", "linear"}, {"factor", r.factor}};
  if (r.kind == RopeScaling::Kind::llama3)
    fields["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", r.factor},
                              {"low_freq_factor", r.low_freq_factor},
                              {"high_freq_factor", r.high_freq_factor},
                              {"original_max_position_embeddings", r.original_max_position}};
  return fields;
}

}  // namespace

std::string model_config_file(const std::string& path) {
  return std::filesystem::is_directory(path) ? path + "/config.json" : path;
}

ModelConfig load_model_config(const std::string& path) {
  const std::string file = model_config_file(path);
  return parse_model_config(text_of(file), file);
}

ModelConfig parse_model_config(const std::string& text, const std::string& origin) {
  const json object = parse(text, origin);
  const Fields fields(object, origin);
  check_architecture(fields, object);

  ModelConfig c;
  c.vocab = fields.size("vocab_size");
  c.hidden = fields.size("hidden_size");
  c.intermediate = fields.size("intermediate_size");
  c.layers = fields.up_to(999'999, "num_hidden_layers");
  c.heads = fields.size("num_attention_heads");
  c.kv_heads = fields.size("num_key_value_heads", c.heads);
  if (!fields.has("head_dim") && c.hidden % c.heads != 0)
    fields.fail(
        fmt::format("hidden_size is {}; without head_dim it must be a multiple of num_attention_heads, {}",
                    c.hidden, c.heads));
  c.head_dim = fields.size("head_dim", c.hidden / c.heads);
  c.max_position = fields.size("max_position_embeddings", 2048);
  c.rms_eps = fields.positive("rms_norm_eps", c.rms_eps);
  c.init_std = fields.positive("initializer_range", c.init_std);
  c.tied = fields.flag("tie_word_embeddings");
  check_heads(fields, c);
  read_rope(fields, c);
  return c;
}

std::string model_config_text(const ModelConfig& config) { return fields_of(config).dump(2); }

void save_model_config(const std::string& path, const std::string& origin, const ModelConfig& config) {
  nlohmann::ordered_json object = fields_of(config);
  const json given = parse(text_of(model_config_file(origin)), origin);
  for (const auto& [key, value] : given.items())
    if (!object.contains(key)) object[key] = value;  // what does not change the numbers: token ids, ...
  for (const char* key : {"dtype", "torch_dtype"}) object.erase(key);
  object["torch_dtype"] = "float32";
  std::ofstream out(path);
  out << object.dump(2) << '\n';
  out.close();
  if (!out) throw UserError(path + ": this file cannot be written; its folder must exist and have room.");
}

}  // namespace lockstep
