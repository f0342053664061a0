// The planner's fast way to a prediction: a plan's step is composed of pieces that were traced once and are
// shared by all plans that have them. tests hold it to predict_by_trace().
#pragma once
#include <limits>
#include <memory>

#include "suites/planner/prediction.hpp"

namespace lockstep {

class Composer {
 public:
  // Keeps references.
  Composer(const ModelConfig&, const Settings&, const Cluster&);
  ~Composer();
  Prediction predict(const Plan&);
  // The same without what the time went to, much faster. Of many microbatches it looks at some: where each
  // further one adds the same, so do all. A plan that does not fit has no time (seconds = 0); of one that
  // lacks more than `least` bytes for what it keeps alone, no more than that is counted.
  Prediction weigh(const Plan&, double least = std::numeric_limits<double>::infinity());

 private:
  enum class Depth { whole, quick };
  Prediction compose(const Plan&, Depth, double least);
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace lockstep
