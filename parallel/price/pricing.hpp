// What the closed formulas have in common: one rank of a plan, taken apart.
#pragma once
#include <vector>

#include "parallel/price/layer.hpp"
#include "parallel/roles.hpp"

namespace lockstep {

// Parameters that are gathered and reduced together: 0 embedding, 1..L layers, L+1 final norm, L+2 head.
struct PricedUnit {
  i64 number, gradient, weight;  // elements
};

// A run of layers between two hand-overs.
struct Stretch {
  i64 index, from, to;  // chunk; layers
  bool first, last;     // of the model
};

// Everything a formula needs of one rank of a plan.
struct Pricing {
  Shape s;
  const PriceOf<Seam>& seam;
  const PriceOf<Spread>& spread;
  const PriceOf<Schedule>& schedule;
  const PriceOf<Store>& store;
  const PriceOf<Home>& home;
  const PriceOf<Stash>& stash;
  const PriceOf<Shelf>& shelf;
  Sizes z;
  i64 table, layer;  // elements of the embedding (or the head) and of a layer on this rank
  std::vector<Stretch> stretches;
  std::vector<PricedUnit> units;
};

Pricing pricing(const Plan&, const ModelConfig&, const Settings&, int rank);

// Units whose gradients are one message: places in `units`, backward's first.
struct Together {
  i64 lowest, highest;
};
std::vector<Together> reduced_together(const Pricing&);

// Elements of one microbatch that a layer keeps; that a chunk does, but for the final hidden state.
i64 kept_by(const Pricing&, i64 layer);

}  // namespace lockstep
