#include "ref/params.hpp"

#include <xxhash.h>

#include <algorithm>

#include "kernels/normal.hpp"
#include "kernels/random.hpp"

namespace lockstep {
namespace {

const char* const kEmbedding = "model.embed_tokens.weight";

}  // namespace

i64 padded_vocab(const ModelConfig& config, i64 leaves) {
  return (config.vocab + leaves - 1) / leaves * leaves;
}

std::vector<Param> parameter_table(const ModelConfig& config, i64 leaves) {
  const i64 D = config.hidden, F = config.intermediate, V = config.vocab;
  const i64 Q = config.heads * config.head_dim, KV = config.kv_heads * config.head_dim;
  std::vector<Param> table;
  auto matrix = [&](int unit, std::string name, Dim row_dim, i64 rows, Dim col_dim, i64 cols) {
    const i64 stored_rows = row_dim == Dim::vocab ? padded_vocab(config, leaves) : rows;
    table.push_back({std::move(name), row_dim, col_dim, rows, cols, stored_rows, true, unit});
  };
  auto vector = [&](int unit, std::string name) {
    table.push_back({std::move(name), Dim::one, Dim::model, 1, D, 1, false, unit});
  };

  matrix(0, kEmbedding, Dim::vocab, V, Dim::model, D);
  for (int l = 0; l < config.layers; ++l) {
    const int unit = 1 + l;
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    vector(unit, layer + "input_layernorm.weight");
    matrix(unit, layer + "self_attn.q_proj.weight", Dim::heads, Q, Dim::model, D);
    matrix(unit, layer + "self_attn.k_proj.weight", Dim::kv_heads, KV, Dim::model, D);
    matrix(unit, layer + "self_attn.v_proj.weight", Dim::kv_heads, KV, Dim::model, D);
    matrix(unit, layer + "self_attn.o_proj.weight", Dim::model, D, Dim::heads, Q);
    vector(unit, layer + "post_attention_layernorm.weight");
    matrix(unit, layer + "mlp.gate_proj.weight", Dim::ffn, F, Dim::model, D);
    matrix(unit, layer + "mlp.up_proj.weight", Dim::ffn, F, Dim::model, D);
    matrix(unit, layer + "mlp.down_proj.weight", Dim::model, D, Dim::ffn, F);
  }
  const int last = 1 + static_cast<int>(config.layers);
  vector(last, "model.norm.weight");
  matrix(last, "lm_head.weight", Dim::vocab, V, Dim::model, D);
  if (config.tied) table.back().tied_to = 0;
  return table;
}

void initial_values(const ModelConfig& config, const Param& param, i64 seed, i64 row, i64 col, i64 n,
                    float* values) {
  if (row >= param.rows) return void(std::fill_n(values, n, 0.0f));  // pads
  if (param.row_dim == Dim::one) return void(std::fill_n(values, n, 1.0f));
  const std::string& name = param.tied_to >= 0 ? kEmbedding : param.name;
  const std::uint64_t key =
      mix(mix(static_cast<std::uint64_t>(seed)) ^ XXH3_64bits(name.data(), name.size()));
  normal_numbers(key, static_cast<std::uint64_t>(row * param.cols + col), n, config.init_std, values);
}

}  // namespace lockstep
