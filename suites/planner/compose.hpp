// The planner's fast way to a prediction: a plan's step is composed of pieces that were traced once and are
// shared by all plans that have them. tests hold it to predict_by_trace().
#pragma once
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
  // further one adds the same, so do all.
  Prediction weigh(const Plan&);

 private:
  Prediction compose(const Plan&, bool quick);
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace lockstep
