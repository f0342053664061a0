// The one table of parameters: it serves initialisation, loading, saving, clipping and comparing.
#pragma once
#include <string>
#include <vector>

#include "ref/config.hpp"

namespace lockstep {

// What an axis of a weight counts.
enum class Dim { one, model, heads, kv_heads, ffn, vocab };

struct Param {
  std::string name;  // Hugging Face's
  Dim row_dim, col_dim;
  i64 rows, cols;    // rows = 1 for a norm's vector
  i64 stored_rows;   // the vocabulary is padded to a multiple of `leaves`; pads are zero and stay zero
  bool decayed;      // AdamW's weight decay applies
  int unit;          // 0 embedding, 1..L layers, L+1 final norm and head
  int tied_to = -1;  // index of the parameter whose values this one shares (a tied head)
  i64 count() const { return rows * cols; }
  i64 stored() const { return stored_rows * cols; }
};

// Order of one layer's nine parameters within its unit.
enum LayerParam {
  input_norm,
  q_proj,
  k_proj,
  v_proj,
  o_proj,
  post_norm,
  gate_proj,
  up_proj,
  down_proj,
  layer_params
};

// [embed_tokens, layer 0's nine, ..., final norm, lm_head]. A tied head is listed, with tied_to = 0.
std::vector<Param> parameter_table(const ModelConfig&, i64 leaves);

// Index of layer l's parameter p in the table.
inline int param_index(i64 layer, int p) { return static_cast<int>(1 + layer * layer_params + p); }

i64 padded_vocab(const ModelConfig&, i64 leaves);

// Elements (row, col) to (row, col + n - 1) of a fresh weight: normal(0, init_std), norms 1, pads 0, as a
// function of (seed, name, position) alone, so any part can be made anywhere. Rounded to float32 so that
// float32 and float64 runs start from the same numbers. A tied head has its partner's values.
void initial_values(const ModelConfig&, const Param&, i64 seed, i64 row, i64 col, i64 n, float* values);

}  // namespace lockstep
