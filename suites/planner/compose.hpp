// The planner's fast way to a prediction: a plan's step is composed of pieces that were traced once and are
// shared by all plans that have them. tests hold it to predict_by_trace().
#pragma once
#include <memory>

#include "suites/planner/prediction.hpp"

namespace lockstep {

class Pieces;

class Composer {
 public:
  // Keeps references.
  Composer(const ModelConfig&, const Settings&, const Cluster&);
  ~Composer();
  Prediction predict(const Plan&);
  // The same without what the time went to, much faster. Of many microbatches it looks at some: where each
  // further one adds the same, so do all. A plan that does not fit has no time (seconds = 0).
  Prediction weigh(const Plan&);
  // Much faster still: bytes as weigh() has them, and seconds at least, soon said; then more of them. Of a
  // plan that lacks more than `least` bytes for what it keeps alone, no more than that is counted.
  struct Outlook {
    std::array<double, 3> needs{};
    double seconds = 0;
  };
  Outlook outlook(const Plan&, double least);
  double seconds_at_least(const Plan&);

 private:
  std::unique_ptr<Pieces> pieces_;
};

}  // namespace lockstep
