// What the papers say that a strategy costs, beside what it costs here. Where exact mode holds or sends more,
// the difference has a name and a figure of its own. None of this is shared with price.cpp or the executor:
// `here` is read off the trace.
#pragma once
#include <string>
#include <vector>

#include "parallel/cluster.hpp"

namespace lockstep {

struct TextbookRow {
  std::string of;      // "stage 1" where it matters which, else empty
  std::string what;    // is counted: "bytes a parameter: weights, gradients, moments"
  std::string form;    // "4 + 12/d"
  std::string source;  // paper, section
  double textbook, here;
  struct Difference {
    std::string why;
    double much;
  };
  std::vector<Difference> differences;  // those that are not zero
  double unit = 1;  // what the figures are divided by to be shown: parameters, for instance

  bool equal() const;  // textbook and differences make up `here`, exactly
};

// The rows that are known for this plan: a strategy by itself, float32. None for a plan that combines others.
std::vector<TextbookRow> textbook_rows(const Prepared&);

}  // namespace lockstep
