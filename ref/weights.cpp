#include "ref/weights.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ref/error.hpp"
#include "ref/safetensors.hpp"

namespace lockstep {
namespace {

std::vector<i64> shape_of(const Param& param) {
  if (param.row_dim == Dim::one) return {param.cols};
  return {param.rows, param.cols};
}

}  // namespace

std::vector<std::vector<float>> load_weights(const std::string& path, const std::vector<Param>& table) {
  StoredTensors stored = load_safetensors(path);
  std::vector<std::vector<float>> values;
  for (const Param& param : table) {
    values.emplace_back();
    const auto found = stored.find(param.name);
    if (found == stored.end()) {
      if (param.tied_to >= 0) continue;
      throw UserError(fmt::format("{}: parameter {} is missing; the model needs it.", path, param.name));
    }
    if (found->second.shape != shape_of(param))
      throw UserError(fmt::format("{}: parameter {} has the shape [{}]; the model needs [{}].", path,
                                  param.name, fmt::join(found->second.shape, ", "),
                                  fmt::join(shape_of(param), ", ")));
    if (param.tied_to < 0) values.back() = std::move(found->second.values);
    stored.erase(found);
  }
  for (const auto& [name, tensor] : stored)
    if (!name.ends_with(".rotary_emb.inv_freq"))  // old files keep this table, which is computed anew
      throw UserError(fmt::format("{}: the model has no parameter named {}.", path, name));
  return values;
}

namespace {

// Pads are the last rows: the front is the tensor without them.
StoredTensors stored_tensors(const std::vector<Param>& table, const std::vector<std::vector<float>>& values) {
  StoredTensors stored;
  for (std::size_t p = 0; p < table.size(); ++p)
    if (table[p].tied_to < 0)
      stored[table[p].name] = {shape_of(table[p]), {values[p].begin(), values[p].begin() + table[p].count()}};
  return stored;
}

}  // namespace

void save_weights(const std::string& path, const std::vector<Param>& table,
                  const std::vector<std::vector<float>>& values) {
  save_safetensors(path, stored_tensors(table, values));
}

void save_weights(const std::string& folder, const std::vector<Param>& table,
                  const std::vector<std::vector<float>>& values, i64 most_bytes) {
  save_model(folder, stored_tensors(table, values), most_bytes);
}

}  // namespace lockstep
