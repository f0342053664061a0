// Where a fault entered: not only the first place where a run differs from the reference, but what the
// pattern of all that differs says about the computation and the axis of the mesh behind it.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "suites/run/assembly.hpp"

namespace lockstep {

struct Finding {
  Difference first;  // in order of computation
  // Of a step whose loss differs: the first gradient, which has a place.
  std::optional<Difference> gradient;
  std::string
      pattern;       // "the loss is equal, gradients differ from there down: layer 5's backward of attention"
  std::string axis;  // "all 512 values lie with tp rank 1: suspect tp"; empty: no axis can be named
  std::string text() const;
};

// Nothing if the runs are equal, as far as `found` goes. Holdings: as the Assembly of `found` has them.
std::optional<Finding> locate(const Whole& expected, const Whole& found, const std::vector<Holding>&,
                              const Mesh&);

// Of ranks that hold one place: ", ranks of different dp disagree: suspect dp"; by the coordinates of those
// that agree with the first of them and of those that differ.
std::string which_axis_parts(const Mesh&, const std::vector<int>& agree, const std::vector<int>& differ);

}  // namespace lockstep
