// The safetensors format (github.com/huggingface/safetensors): 8 bytes with the length of a JSON header,
// the header {name: {dtype, shape, data_offsets}}, then the tensors' bytes, little-endian, without gaps.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {

struct StoredTensor {
  std::vector<i64> shape;
  std::vector<float> values;  // row-major
};
using StoredTensors = std::map<std::string, StoredTensor>;  // by name

// A file, or a folder with model.safetensors or with model.safetensors.index.json and the files it names.
// F32, F16 and BF16 are read. UserError: unreadable or cut off, or a header that is not true of the file.
StoredTensors load_safetensors(const std::string& path);

// Writes F32, aside and renamed. UserError: the file cannot be written.
void save_safetensors(const std::string& path, const StoredTensors&);

// Writes model.safetensors, or files of at most `most_bytes` of tensors and model.safetensors.index.json, as
// transformers reads them, and removes what an earlier model left under such names. UserError: as above.
void save_model(const std::string& folder, const StoredTensors&, i64 most_bytes);

}  // namespace lockstep
