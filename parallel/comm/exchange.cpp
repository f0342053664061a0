#include "parallel/comm/exchange.hpp"

#include <algorithm>

namespace lockstep {
namespace {

std::size_t round_up(i64 bytes) { return (static_cast<std::size_t>(std::max<i64>(bytes, 1)) + 63) / 64 * 64; }

}  // namespace

// How many operations may be live in a group of P members with at most O requests each? A live one that some
// member has not started is outstanding at all that have started it, for none can have finished it. A live
// one that all have started is outstanding at whoever has not finished it. So each is among the O of some
// member: P*O operations always suffice. A start therefore never waits for a peer to get anywhere, and a
// program that is right with endless buffering is not deadlocked by this one.
//
// Slots: a member that does each message at its start (eager) needs one for each of its O requests. What a
// slot held for a request that is over may not have reached a peer who is late; then it is brought to him.
// Lazily nothing may reach anybody before his wait, so there each operation that may be live has a slot of
// its own.
Exchange::Exchange(Group group, const CommNeeds::OfAxis& needs, Timing timing)
    : group_(std::move(group)),
      timing_(timing),
      operations_(group_.ranks.size() * needs.outstanding),
      staging_(round_up(needs.largest_bytes) * group_.size() *
               (timing == Timing::eager ? needs.outstanding : operations_.size())),
      slots_(group_.size() * (timing == Timing::eager ? needs.outstanding : operations_.size())),
      spare_slots_(group_.ranks.size()),
      next_(group_.ranks.size()) {
  spare_.reserve(operations_.size());
  live_.reserve(operations_.size());
  for (Operation& op : operations_) op.parts = std::make_unique<MemberPart[]>(group_.ranks.size());
  char* data = staging_.data();
  for (Slot& slot : slots_) slot.data = data, data += round_up(needs.largest_bytes);
  for (auto& spare : spare_slots_) spare.reserve(slots_.size() / spare_slots_.size());
  reset();
}

void Exchange::reset() {
  spare_.clear();
  live_.clear();
  for (auto op = operations_.rbegin(); op != operations_.rend(); ++op) spare_.push_back(&*op);
  std::fill(next_.begin(), next_.end(), 0);
  auto slot = slots_.rbegin();
  for (auto spare = spare_slots_.rbegin(); spare != spare_slots_.rend(); ++spare) {
    spare->clear();
    for (std::size_t i = 0; i < slots_.size() / spare_slots_.size(); ++i, ++slot)
      slot->user = nullptr, spare->push_back(&*slot);
  }
}

Slot* Exchange::take(int me) {
  Slot* slot = spare_slots_[me].back();
  spare_slots_[me].pop_back();
  return slot;
}

Operation& Exchange::open(int me, const Message& m, int members, int givers) {
  Operation& op = *spare_.back();
  spare_.pop_back();
  op.first.set(m);
  op.first_member = me;
  op.sequence = op.sender = op.receiver = -1;
  op.members = members;
  op.givers = givers;
  op.started = op.captured = op.delivered = op.finished = 0;
  op.slices = op.next_slice = op.slices_done = 0;
  for (int i = 0; i < group_.size(); ++i) {
    MemberPart& part = op.parts[i];
    part.message = nullptr;
    part.slot = nullptr;
    part.started = part.captured = part.delivered = false;
    part.claimed = false;
  }
  live_.push_back(&op);
  return op;
}

Operation& Exchange::match(int me, const Message& m, const Mesh& mesh) {
  Operation* op = nullptr;
  if (is_transfer(m)) {
    const int sender = m.verb == Verb::send ? me : m.peer;
    const int receiver = m.verb == Verb::send ? m.peer : me;
    for (Operation* o : live_)  // the oldest that still lacks my side
      if (o->sequence < 0 && o->sender == sender && o->receiver == receiver &&
          o->first.message.tag == m.tag && !o->parts[me].started) {
        op = o;
        break;
      }
    if (!op) {
      op = &open(me, m, 2, 1);
      op->sender = sender;
      op->receiver = receiver;
    }
  } else {
    const i64 sequence = next_[me]++;
    for (Operation* o : live_)
      if (o->sequence == sequence) op = o;
    if (!op) {
      op = &open(me, m, group_.size(), m.verb == Verb::broadcast ? 1 : group_.size());
      op->sequence = sequence;
    }
  }
  check_agreement(op->first.message, op->first_member, m, me, group_, mesh);
  return *op;
}

void Exchange::deliver(Operation& op, int member) {
  op.parts[member].delivered = true;
  if (++op.delivered < op.members) return;
  for (int i = 0; i < group_.size(); ++i)
    if (Slot* slot = op.parts[i].slot) {
      slot->user = nullptr;
      if (timing_ == Timing::lazy) spare_slots_[i].push_back(slot);
    }
}

void Exchange::finish(Operation& op, int member) {
  if (Slot* slot = op.parts[member].slot; slot && timing_ == Timing::eager)
    spare_slots_[member].push_back(slot);
  if (++op.finished < op.members) return;
  live_.erase(std::find(live_.begin(), live_.end(), &op));
  spare_.push_back(&op);
}

}  // namespace lockstep
