// LocalWorld's ranks wait, go on, deadlock and fail.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/cores.hpp"
#include "parallel/comm/local_world.hpp"

namespace lockstep {

// The mutex is held in all of this.

MemberPart& LocalWorld::State::part_of(const Rank& rank, const Request& request) const {
  return request.op->parts[rank.groups[static_cast<int>(request.stated.message.axis)].me];
}

bool LocalWorld::State::can_move(const Rank& rank) const {
  switch (rank.awaits) {
    case Awaits::peers:
      return rank.request->op->complete();
    case Awaits::slices:
      return rank.request->op->slices_done == rank.request->op->slices;
    case Awaits::delivery:
      return part_of(rank, *rank.request).delivered;
    case Awaits::room:
      return !rank.request->slot->user;
    case Awaits::nothing:
      break;
  }
  return true;
}

void LocalWorld::State::block(Lock& lock, Rank& rank, Awaits awaits, Request& request) {
  go_on_only_if_sound();
  rank.awaits = awaits;
  rank.request = &request;
  rank.blocked = 1;
  if (--running == 0) nobody_runs();
  lock.unlock();
  for (int i = 0; i < spins && rank.blocked != 0; ++i) pause_core();
  rank.blocked.wait(1);
  lock.lock();
  rank.awaits = Awaits::nothing;
  go_on_only_if_sound();
}

void LocalWorld::State::wake(Rank& rank) {
  ++running;
  rank.blocked = 0;
  rank.blocked.notify_one();
}

void LocalWorld::State::wake_movable(const Group& group) {
  for (int r : group.ranks)
    if (ranks[r].blocked && can_move(ranks[r])) wake(ranks[r]);
}

void LocalWorld::State::nobody_runs() {
  if (failure) return;
  const auto is_blocked = [](const Rank& rank) { return rank.blocked != 0; };
  if (std::none_of(ranks.begin(), ranks.end(), is_blocked)) return;  // all have ended
  if (capture_at_last()) return;
  const std::string text = deadlock_report();
  fail(std::make_exception_ptr(CommError(text)), text);
}

// Lazy contributions wait for their owners' waits, which may come after what a peer waits for now. When
// nothing else can move, those that blocked ranks need are captured: their owners are blocked as well, and
// must leave the inputs alone. True if that lets a rank go on.
bool LocalWorld::State::capture_at_last() {
  for (const Rank& rank : ranks) {
    if (!rank.blocked || rank.awaits != Awaits::peers) continue;
    const Request& request = *rank.request;
    const Group& group = request.exchange->group();
    Operation& op = *request.op;
    if (op.started < op.members) continue;
    for (int i = 0; i < group.size(); ++i)
      if (op.parts[i].slot && !op.parts[i].captured) {
        capture(op, i, group);
        captured(op, i, group);
      }
    return true;  // this rank runs now; the inputs of its other requests are no longer ours to read
  }
  return false;
}

std::string LocalWorld::State::awaited(const Rank& rank) const {
  const Request& request = *rank.request;
  const Group& group = request.exchange->group();

  std::string text = "waits for " + describe(request.stated.message, group);
  const Operation& op = *request.op;
  const char* join = ", not started by rank ";
  for (int i = 0; i < group.size(); ++i) {
    const bool member = op.sequence >= 0 || i == op.sender || i == op.receiver;
    if (!member || op.parts[i].started) continue;
    text += fmt::format("{}{}", join, group.ranks[i]);
    join = ", ";
  }
  return text;
}

std::string LocalWorld::State::deadlock_report() const {
  std::string text = "deadlock: no rank can go on";
  for (const Rank& rank : ranks)
    text += fmt::format("\n  {} {}", place(mesh, rank.rank), rank.ended ? "has ended" : awaited(rank));
  return text;
}

void LocalWorld::State::fail(std::exception_ptr error, const std::string& text) {
  if (failure) return;  // the others fail because of the first
  failure = error;
  failure_text = text;
  for (Rank& rank : ranks)
    if (rank.blocked) wake(rank);
}

void LocalWorld::State::raise(const std::string& text) {
  fail(std::make_exception_ptr(CommError(text)), text);
  throw CommError(text);
}

void LocalWorld::State::go_on_only_if_sound() const {
  if (failure) throw CommError(failure_text);
}

}  // namespace lockstep
