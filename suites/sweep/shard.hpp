// One job's part of a suite, where several share it: `lockstep gate SUITE --shard 2/4`.
#pragma once
#include <optional>
#include <string>

#include "suites/sweep/suite.hpp"

namespace lockstep {

struct Shard {
  int part = 1, parts = 1;
};

inline constexpr const char* kShardForm = "write this job's number, from 1, and how many jobs there are: 2/4";

// "2/4"; nothing, if that is no part of so many.
std::optional<Shard> shard_of(const std::string& text);

// Leaves this part of the plans. Each is in one part, and no two parts differ by more than a plan. What rules
// refuse is told with part 1: the parts' numbers add up to the whole's, and a merged report has each of them
// once. UserError: there are fewer plans than parts, and a job that judges nothing must not pass.
void deal(Enumeration&, const Shard&);

}  // namespace lockstep
