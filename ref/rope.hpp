// Rotary position tables (Su et al. 2021; linear and llama3 scaling as in Hugging Face's
// modeling_rope_utils).
#pragma once
#include <vector>

#include "ref/config.hpp"

namespace lockstep {

// cos and sin [T, head_dim/2], computed in double, rounded once to T.
template <class T>
struct RopeTable {
  std::vector<T> cos, sin;
};
template <class T>
RopeTable<T> rope_table(const ModelConfig&, i64 seq);

}  // namespace lockstep
