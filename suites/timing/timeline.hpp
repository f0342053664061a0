// A simulated step as people look at it: who does what when, and what a rank's time goes to.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "parallel/cluster.hpp"
#include "parallel/trace/simulate.hpp"

namespace lockstep {

struct Timeline {
  // Neighbouring bars of one kind are one: kernels of a pass, messages of a microbatch.
  struct Bar {
    double from, to;        // seconds
    std::string pass;       // "forward", "backward", "input gradients", "weight gradients", "update"
    int chunk, microbatch;  // -1: of none
  };
  struct Stream {
    int rank;          // stands for the ranks of its stage, which do the same
    std::string name;  // "compute", an axis ("dp"), "copies"
    std::vector<Bar> bars;
  };
  double seconds = 0;
  double from = 0, step = 0;  // of a part of a step: when it begins, and how long the step is; 0: it is whole
  std::vector<Stream> streams;  // by rank, computing first
  // Where a step's seconds go, as a mean over ranks; they add up to `seconds`: "compute", "update", an axis
  // (waiting for its messages), "copies" (waiting for them), "bubble" (waiting for other ranks).
  std::map<std::string, double> parts;
};

// What lies between two times of a step; its `parts` are the step's, in proportion.
Timeline cut(const Timeline& whole, double from, double to);

// Joins neighbouring bars of one kind whose gap is shorter than the 2000th part of the step.
void close_gaps(Timeline&);

// Gaps shorter than the 2000th part of a step are closed.
Timeline timeline_of(const Simulated&);
Timeline timeline_of(const Prepared&, const Costs&);

// For the page: {"seconds": s, "passes": [name, ...], "streams": [[rank, name, [from, length, pass, chunk,
// microbatch, ...]], ...], "parts": {name: part of the step}} with times in 10000ths of the step; pass counts
// in `passes`. Of a part of a step also "from" and "step", in seconds; its times are in 10000ths of the part.
std::string json_of(const Timeline&);

// For the terminal: a line per stream, `width` characters to a step.
std::string text_of(const Timeline&, int width);

}  // namespace lockstep
