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
  const std::vector<std::size_t>& beyond;           // parameters whose gradient is beyond its bound
  const std::vector<double>& allowed;               // of each of these: the bound, an Euclidean norm
};

// "sequences 4 to 7 not counted", "sequences 0 to 3 counted 0.8 times, 4 to 7 1.2 times", or what is known
// as such a choice, "a mean of 4 means, each of 2 sequences in a row": where every gradient in `beyond` is
// within twice its bound of float64's of the sequences so counted. Empty where no counts explain them all,
// or all are the same. Counts are the least squares of one of the gradients.
std::string counted_otherwise(const ModelConfig&, const Settings&, const WrongStep&, int threads = 1);

}  // namespace lockstep
