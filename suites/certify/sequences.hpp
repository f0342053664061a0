// Gradients that are wrong, explained: how often each sequence of the batch would have to count.
#pragma once
#include <string>
#include <vector>

#include "ref/config.hpp"
#include "ref/settings.hpp"

namespace lockstep {

struct WrongStep {
  const std::vector<std::vector<float>>& before;    // the weights it began with, by parameter [rows, cols]
  const std::vector<i32>&tokens, &labels;           // [B, T]
  const std::vector<std::vector<float>>& gradient;  // what the trainer says it had, by parameter
  struct Beyond {
    std::size_t param;
    double off, allowed;  // its distance from float64's gradient, and the bound of that
  };
  const std::vector<Beyond>& beyond;
};

// "sequences 4 to 7 not counted", "a mean of 4 means, each of 2 sequences in a row", ...: of all that may
// happen to a part of the batch, in a row or apart, what leaves least of one gradient; else what least
// squares say, "sequence 0 counted 1.5 times". Empty where that does not bring every gradient in `beyond`
// within its bound and to half its distance at most, where all sequences count the same, and of batches and
// models that are too large for it (sequences.cpp).
std::string counted_otherwise(const ModelConfig&, const Settings&, const WrongStep&, int threads = 1);

}  // namespace lockstep
