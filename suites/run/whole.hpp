// Losses, gradients and weights of a run, whole: assembled from what every rank holds (assembly.hpp), or
// taken from the reference. Both are compared and hashed in this one form.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/cluster.hpp"

namespace lockstep {

struct Whole {
  struct Step {
    double loss = 0, grad_norm = 0;
    // By parameter table index, stored rows; a tied head's are empty.
    std::vector<std::vector<float>> gradient, weight;
  };
  std::vector<Param> table;
  std::vector<Step> steps;

  std::string hash() const;
};

// The hash of a run, one step after another: of losses, norms, gradients and weights. -0 counts as +0, pads
// do not count.
class RunHash {
 public:
  RunHash();
  ~RunHash();
  void add(const std::vector<Param>& table, const Whole::Step&);
  std::string text() const;  // 32 hexadecimal digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// -0 equals +0; every other bit counts.
bool same(float, float);
bool same(double, double);

// The first place where two runs differ, in the order in which a step computes: the loss; gradients from the
// head down to the embedding; their norm; weights. `found` may be of fewer steps: those are compared.
struct Difference {
  i64 step;
  std::string what;  // "loss", "gradient norm", "gradient of <name>", "weight of <name>"
  i64 row = -1, col = -1;
  double expected, found;
  std::string text() const;
};
std::optional<Difference> first_difference(const Whole& expected, const Whole& found);

// Something in a run that needs no second run to be wrong: a loss that is not finite, a gradient all zero,
// clipping that never acted. The empty string if all is well.
std::string vacuous(const Whole&, const Settings&);
std::string vacuous(const Whole::Step&, i64 k);  // of one step: its loss or gradient norm is no number

}  // namespace lockstep
