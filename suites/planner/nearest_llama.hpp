// Decoders that are Llamas but for parts too small for a prediction, as Llamas.
#pragma once
#include <string>
#include <vector>

#include "ref/config.hpp"

namespace lockstep {

struct NearestLlama {
  ModelConfig model;
  std::vector<std::string> left_out;  // what it has beside, in words
};

// UserError: as load_model_config(), of a configuration that is not even nearly a Llama's.
NearestLlama nearest_llama(const std::string& path);

// Whether there is one for a configuration that load_model_config() refuses.
bool has_nearest_llama(const std::string& path);

}  // namespace lockstep
