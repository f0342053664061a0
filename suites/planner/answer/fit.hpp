// What training a model takes, and the least hardware for it: the best plan on 1, 2, 4, ... devices of a
// kind.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "suites/planner/answer/explain.hpp"

namespace lockstep {

struct Fit {
  i64 devices = 0, legal = 0, fit = 0;
  std::optional<Weighed> best;
  // The best that keeps nothing on the host or on disk; if none does: bytes that the closest lacks. Where
  // words rule such plans out: neither.
  std::optional<Weighed> alone;
  double alone_lacks = 0, lacks = 0;
};

// On so many devices; `given` as for choose().
Fit fit_on(i64 devices, const Question&, const Values& given);
// On 1, 2, 4, ... and all of the cluster's devices. `say` hears each row when it is there.
std::vector<Fit> fits(const Question&, const Values& given, const std::function<void(const Fit&)>& say);

// Bytes of weights, gradients, optimizer and activations on one device, as a table.
std::string bytes_text(const Question&, bool markdown);
// A row for each number of devices.
std::string fits_text(const std::vector<Fit>&, const Question&, bool markdown);
// "fits from 2 devices on; from 4 with nothing on the host"
std::string least_text(const std::vector<Fit>&);

}  // namespace lockstep
