#include "parallel/comm/exchange.hpp"

#include <algorithm>

namespace lockstep {
namespace {

std::size_t round_up(i64 bytes) { return (static_cast<std::size_t>(std::max<i64>(bytes, 1)) + 63) / 64 * 64; }

}  // namespace

// How many operations may be live in a group of P members with at most O requests each? A live one that some
// member has not started is outstanding at all that have started it, for none can have finished it. A live
// one that all have started is outstanding at whoever has not finished it. So each is among the O of some
// member: P*O operations, with one slot for each member, always suffice. A start therefore never waits for
// room, and a program that is right with endless buffering is not deadlocked by this one.
Exchange::Exchange(Group group, const CommNeeds& needs)
    : group_(std::move(group)),
      operations_(group_.ranks.size() * needs.outstanding),
      parts_(sizeof(Part) * group_.size() * operations_.size()),
      staging_(round_up(needs.largest_bytes) * group_.size() * operations_.size()),
      next_(group_.ranks.size()) {
  spare_.reserve(operations_.size());
  live_.reserve(operations_.size());
  Part* parts = reinterpret_cast<Part*>(parts_.data());
  char* slot = staging_.data();
  for (Operation& op : operations_) {
    op.parts = parts;
    for (int i = 0; i < group_.size(); ++i, ++parts, slot += round_up(needs.largest_bytes))
      parts->slot = slot;
  }
  reset();
}

void Exchange::reset() {
  spare_.clear();
  live_.clear();
  for (auto op = operations_.rbegin(); op != operations_.rend(); ++op) spare_.push_back(&*op);
  std::fill(next_.begin(), next_.end(), 0);
}

Operation& Exchange::open(int me, const Message& m, int members, int givers) {
  Operation& op = *spare_.back();
  spare_.pop_back();
  op.first.set(m);
  op.first_member = me;
  op.sequence = op.sender = op.receiver = -1;
  op.members = members;
  op.givers = givers;
  op.started = op.captured = op.finished = 0;
  op.slices = op.next_slice = op.slices_done = 0;
  for (int i = 0; i < group_.size(); ++i)
    op.parts[i] = Part{nullptr, 0, op.parts[i].slot, false, false, false};
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

void Exchange::finish(Operation& op) {
  if (++op.finished < op.members) return;
  live_.erase(std::find(live_.begin(), live_.end(), &op));
  spare_.push_back(&op);
}

}  // namespace lockstep
