// A run of layers between two hand-overs of the pipeline, and what its microbatches have under way.
#pragma once
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/ends.hpp"

namespace lockstep {

// Layers [first, second) of chunk `chunk` of `chunks`: as even as whole layers allow. Where two layers more
// could be dealt evenly, the model's ends have one less, beside embedding and head (Llama 3, 2024, section
// 3.3.2).
inline std::pair<int, int> layers_of(int chunk, int chunks, i64 layers) {
  if (layers % chunks != 0 && (layers + 2) % chunks == 0) {
    const int even = static_cast<int>((layers + 2) / chunks), first = std::max(0, chunk * even - 1);
    return {first, std::min(static_cast<int>(layers), (chunk + 1) * even - 1)};
  }
  return {static_cast<int>(chunk * layers / chunks), static_cast<int>((chunk + 1) * layers / chunks)};
}

class Chunk {
 public:
  // What a chunk at the model's ends needs beside its layers.
  struct Inputs {
    Buf cos, sin, ids, labels, losses;
  };
  Chunk(const Rank&, int chunk, int chunks, int microbatches, const Inputs&);

  // x [b,Ts,D] -> y, or nothing where the model ends. The first chunk makes its own x.
  Buf forward(int j, Buf x);
  // dy -> dx, or nothing where the model begins. weights_now: weight gradients are computed on the way and
  // each unit is announced to the store as it completes; otherwise they wait for weight_grads().
  Buf backward(int j, Buf dy, float loss_scale, bool weights_now, bool last);
  void weight_grads(int j, bool last);

 private:
  struct Microbatch {
    std::vector<Saved> saved;  // by layer
    Buf end;                   // last chunk: the final hidden state
    WorkList later;            // weight gradients split from their backward
  };
  void acquire(const std::vector<int>& order, std::size_t k);
  void announce(int unit, int j, bool last);

  Rank r_;
  int norm_unit_;                         // final norm's; the head's is the next
  std::unique_ptr<Embedding> embedding_;  // first chunk
  std::vector<Layer> layers_;
  std::unique_ptr<Head> head_;                       // last chunk
  std::vector<int> forward_units_, backward_units_;  // whose weights a pass needs, in order
  std::vector<Microbatch> microbatch_;
};

}  // namespace lockstep
