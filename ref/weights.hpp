// A model's weights from files, checked against the parameter table.
#pragma once
#include <string>
#include <vector>

#include "ref/params.hpp"

namespace lockstep {

// One vector [rows, cols] per parameter of the table, in its order; a tied head's is empty. `path` as in
// load_safetensors(). UserError: a parameter missing, of another shape, or unknown to the model.
std::vector<std::vector<float>> load_weights(const std::string& path, const std::vector<Param>& table);

// Writes the same to a file: `values` as load_weights() gives them, or with pads, which are not written.
void save_weights(const std::string& path, const std::vector<Param>& table,
                  const std::vector<std::vector<float>>& values);
// To a folder, as save_model() does.
void save_weights(const std::string& folder, const std::vector<Param>& table,
                  const std::vector<std::vector<float>>& values, i64 most_bytes);

}  // namespace lockstep
