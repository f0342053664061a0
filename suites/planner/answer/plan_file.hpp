// What `lockstep plan --out` keeps: every plan that fits, why others do not, the best ones in detail, and all
// that it takes to ask again. The HDF5 layout is in reports/schema.md.
#pragma once
#include <string>

#include "suites/planner/answer/explain.hpp"

namespace lockstep {

// What the user named.
struct Asked {
  std::string model, cluster;  // paths
  std::string words;
  std::string again;  // the command that asks the same again
};

// The first `top` plans in detail. Written aside, then renamed. UserError: it cannot be written.
void write_plan_file(const Asked&, const Question&, const Choices&, std::size_t top, const std::string& path);

}  // namespace lockstep
