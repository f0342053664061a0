// What the rows of the textbook are written with: a run in the papers' symbols.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "suites/costs/textbook.hpp"

namespace lockstep {

struct Book {
  const Prepared& prepared;
  const Plan& plan;
  const ModelConfig& model;
  double B, T, D, L;  // sequences a step, tokens of each, width, layers
  int d, t, p;        // ranks on each axis: data, tensor, pipeline
  double b, m;        // sequences of a microbatch, microbatches of a rank

  explicit Book(const Prepared&);
  // Whether all words but these, and micro, have their fallback: the strategy is by itself.
  bool only(std::set<std::string> words) const;
  bool says(const std::string& word, const std::string& value) const;
  double peak(Kind) const;  // bytes, traced on rank 0
};

// What is gathered and reduced together: the embedding, a layer, the final norm, the head. In elements.
struct Bundle {
  enum class Of { embedding, layer, final_norm, head } of;
  double bare, stored;  // without pads of the vocabulary, and with them
  bool tied = false;    // the head's weight is the embedding, but its gradient is summed apart
};
std::vector<Bundle> bundles(const Book&);
double parameters(const std::vector<Bundle>&);  // bare, a tied head not again

void differ(TextbookRow&, const std::string& why, double much);  // nothing if it is zero

void state_rows(const Book&, std::vector<TextbookRow>&);  // data parallelism, ZeRO, offload
void layer_rows(const Book&, std::vector<TextbookRow>&);  // tensor and pipeline parallelism, checkpointing

}  // namespace lockstep
