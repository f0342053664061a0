// A model that is traced or trained to learn of a machine, not of the model.
#pragma once
#include "ref/config.hpp"

namespace lockstep {

inline ModelConfig small_model() {
  ModelConfig m;
  m.vocab = 509, m.hidden = 256, m.intermediate = 704, m.layers = 2, m.heads = 8, m.kv_heads = 4;
  m.head_dim = 32, m.max_position = 512;
  return m;
}

}  // namespace lockstep
