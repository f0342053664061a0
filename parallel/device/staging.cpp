#include "parallel/device/staging.hpp"

#include <algorithm>
#include <stdexcept>

namespace lockstep {

Staging::Staging(Comm& inner, Engine& engine, const Mesh& mesh, int rank, const CommNeeds& needs)
    : inner_(inner), engine_(engine) {
  for (int a = 0; a < static_cast<int>(Axis::count); ++a)
    groups_.push_back(mesh.group(static_cast<Axis>(a), rank));
  for (const i64 bytes : needs.in_flight) {
    const i64 room = std::max<i64>(bytes, 1);
    slots_.push_back({room, -1, engine.allocate(Medium::host, room), engine.allocate(Medium::host, room)});
  }
}

int Staging::start(const Message& m) {
  const auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.id < 0; });
  if (free == slots_.end()) throw std::logic_error("more messages under way than were traced");
  const Group& group = groups_[static_cast<std::size_t>(m.axis)];
  Message on_host = m;
  const i64 in = in_elements(m, group.me, group.size()) * type_bytes(m.type);
  const i64 out = out_elements(m, group.me, group.size()) * type_bytes(m.type);
  if (std::max(in, out) > free->room) throw std::logic_error("a larger message than was traced");
  if (in > 0 && engine_.holds(m.in)) {
    engine_.download(free->in, m.in, in);
    on_host.in = free->in;
  }
  free->to = nullptr;
  free->bytes = out;
  if (free->bytes > 0 && engine_.holds(m.out)) {
    free->to = m.out;
    on_host.out = free->out;
  }
  return free->id = inner_.start(on_host);
}

void Staging::wait(int request) {
  inner_.wait(request);
  const auto slot =
      std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) { return s.id == request; });
  if (slot == slots_.end()) throw std::logic_error("waits for a message that it did not start");
  if (slot->to) engine_.upload(slot->to, slot->out, slot->bytes);
  slot->id = -1;
}

}  // namespace lockstep
