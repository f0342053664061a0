#include "parallel/resting.hpp"

namespace lockstep {

RestingWeights::RestingWeights(const Context& c, const std::vector<i64>& elements)
    : device_(c.device), rest_(c.home->rest()), units_(elements.size()) {
  for (const int u : c.params->units)
    if (elements[u])
      units_[u].rest = device_.take("weights", rest_, elements[u], device_.type_of(Kind::weights));
}

void RestingWeights::prefetch(int unit) {
  Unit& u = units_[unit];
  if (!below() || u.here) return;
  u.here = device_.take("fetched", Kind::gathered, u.rest.elements());
  u.coming = device_.start_copy(u.here, u.here, u.rest, u.rest, u.rest.elements(), "weights to device");
}

void RestingWeights::acquire(int unit) {
  if (!below()) return;
  prefetch(unit);
  Unit& u = units_[unit];
  if (u.coming) device_.wait_copy(u.coming);
  ++u.users;
}

void RestingWeights::release(int unit) {
  if (!below()) return;
  Unit& u = units_[unit];
  if (--u.users == 0) u.here.free();
}

}  // namespace lockstep
