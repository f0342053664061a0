// The single-device run every plan must equal.
#pragma once
#include <string>

#include "suites/whole.hpp"

namespace lockstep {

// initial: one vector per parameter of the table, as load_weights() gives them, or empty for fresh weights.
Whole reference_run(const ModelConfig&, const Settings&, const TokenFile&, const std::string& isa, int threads,
                    const std::vector<std::vector<float>>& initial = {});

}  // namespace lockstep
