// The largest number that a word of a plan takes, and so of what such words divide or make up.
#pragma once

namespace lockstep {

inline constexpr int kMostOfAWord = 999'999;

}  // namespace lockstep
