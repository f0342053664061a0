// The unit in which memory is told.
#pragma once

namespace lockstep {

inline constexpr double kGiB = 1024.0 * 1024 * 1024;

}  // namespace lockstep
