// A Llama as Hugging Face describes it: the fields of `config.json` that change the numbers.
#pragma once
#include <string>

#include "kernels/lanes.hpp"

namespace lockstep {

struct RopeScaling {
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  i64 original_max_position = 8192;
};

struct ModelConfig {
  i64 vocab = 0;         // V
  i64 hidden = 0;        // D
  i64 intermediate = 0;  // F
  i64 layers = 0;        // L
  i64 heads = 0;         // H
  i64 kv_heads = 0;      // K
  i64 head_dim = 0;      // hd
  i64 max_position = 0;
  double rope_theta = 10000;
  double rms_eps = 1e-6;
  double init_std = 0.02;
  bool tied = false;  // the head's weight is the embedding's
  RopeScaling rope_scaling;
};

// The file itself: of a folder its config.json.
std::string model_config_file(const std::string& path);

// Throws UserError: unreadable file, another architecture, missing or impossible field.
ModelConfig load_model_config(const std::string& path);
// The same of the file's text; `origin` names it where something is wrong.
ModelConfig parse_model_config(const std::string& text, const std::string& origin);

// The fields of a config.json, as transformers' LlamaConfig.from_dict takes them.
std::string model_config_text(const ModelConfig&);

// Writes them, and what else the file at `origin` says (token ids, ...), for weights in float32. UserError:
// the file cannot be written.
void save_model_config(const std::string& path, const std::string& origin, const ModelConfig&);

}  // namespace lockstep
