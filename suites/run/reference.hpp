// The single-device run every plan must equal.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "suites/run/whole.hpp"

namespace lockstep {

// By parameter of the table, [rows, cols] each; a tied head's is empty. As load_weights() gives them.
using Weights = std::vector<std::vector<float>>;
Weights fresh_weights(const ModelConfig&, const Settings&);
Weights as_stored(Weights,
                  const Settings&);  // rounded to what the run's weights are stored as; fresh ones are
// Of no weights, these threads make fresh ones.
void initialise(const RankView&, const Weights&, int threads = 1);

// One step after another, for runs too long to be kept whole. In the run's type of numbers: weights are those
// that the model computes with, bf16 ones widened.
class Reference {
 public:
  // Keeps the data. initial: one vector per parameter of the table, as load_weights() gives them, or empty
  // for fresh weights.
  Reference(const ModelConfig&, const Settings&, const TokenFile&, const std::string& isa, int threads,
            const std::vector<std::vector<float>>& initial = {});
  ~Reference();
  const std::vector<Param>& table() const;
  Whole::Step step();
  struct Training;

 private:
  std::unique_ptr<Training> training_;
};

// All of settings.steps. `share` is told what part of them is done.
Whole reference_run(const ModelConfig&, const Settings&, const TokenFile&, const std::string& isa,
                    int threads, const std::vector<std::vector<float>>& initial = {},
                    const std::function<void(double)>& share = {});

}  // namespace lockstep
