#include "parallel/comm/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace lockstep {
namespace {

bool is_transfer(const Message& m) { return m.verb == Verb::send || m.verb == Verb::recv; }
bool is_reduction(const Message& m) { return m.verb == Verb::all_reduce || m.verb == Verb::reduce_scatter; }

// The same operation, as two members of it state it.
bool agree(const Message& a, const Message& b) {
  const bool same_kind = is_transfer(a) ? is_transfer(b) : a.verb == b.verb;
  return same_kind && a.type == b.type && a.blocks == b.blocks && a.n == b.n &&
         a.microbatch == b.microbatch && (!is_reduction(a) || a.reduce == b.reduce) &&
         (a.verb != Verb::broadcast || a.peer == b.peer) &&
         std::strncmp(a.what, b.what, sizeof Stated::what - 1) == 0;
}

std::string spell(const Message& m, const Group& group) {
  std::string text = describe(m, group);
  if (is_reduction(m))
    text += m.reduce == Reduce::sum ? ", sum" : m.reduce == Reduce::max ? ", max" : ", none";
  if (m.verb == Verb::broadcast) text += fmt::format(", root {}", m.peer);
  if (is_transfer(m)) text += fmt::format(", tag {}", m.tag);
  return text + fmt::format(", {} blocks of {} {}", m.blocks, m.n, type_name(m.type));
}

std::size_t round_up(i64 bytes) { return (static_cast<std::size_t>(std::max<i64>(bytes, 1)) + 63) / 64 * 64; }

}  // namespace

void Stated::set(const Message& m) {
  message = m;
  std::strncpy(what, m.what ? m.what : "", sizeof what - 1);
  what[sizeof what - 1] = 0;
  message.what = what;
}

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
  if (!agree(op->first.message, m))
    throw CommError(fmt::format("mismatch on {}: {} started {}, but {} started {}", axis_name(m.axis),
                                place(mesh, group_.ranks[op->first_member]), spell(op->first.message, group_),
                                place(mesh, group_.ranks[me]), spell(m, group_)));
  return *op;
}

void Exchange::finish(Operation& op) {
  if (++op.finished < op.members) return;
  live_.erase(std::find(live_.begin(), live_.end(), &op));
  spare_.push_back(&op);
}

}  // namespace lockstep
