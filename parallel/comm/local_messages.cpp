// LocalWorld's messages: what a rank does at the start and at the wait of one.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "parallel/comm/local_world.hpp"
#include "parallel/comm/tree.hpp"

namespace lockstep {
namespace {

constexpr i64 kSlice = 16384;  // elements of an all_reduce that one rank combines at a time

bool gives(const Message& m, int me) {
  return m.verb != Verb::recv && (m.verb != Verb::broadcast || m.peer == me);
}
i64 in_bytes(const Message& m, int me, int size) { return in_elements(m, me, size) * type_bytes(m.type); }

// The output of a member, from all contributions. Whoever has claimed the part does it.
void write_output(const Operation& op, int me, int size) {
  const Message& m = *op.parts[me].message;
  const i64 bytes = m.n * type_bytes(m.type);  // of one block
  const auto slot = [&](int member) { return op.parts[member].slot->data; };
  char* out = static_cast<char*>(m.out);
  switch (m.verb) {
    case Verb::all_reduce:
      copy_bytes(out, slot(0), m.blocks * bytes);
      break;
    case Verb::broadcast:
      copy_bytes(out, slot(m.peer), m.blocks * bytes);
      break;
    case Verb::recv:
      copy_bytes(out, slot(m.peer), m.blocks * bytes);
      break;
    case Verb::send:
      break;
    case Verb::all_gather:
      for (i64 block = 0; block < m.blocks; ++block)
        for (int i = 0; i < size; ++i)
          copy_bytes(out + (block * size + i) * bytes, slot(i) + block * bytes, bytes);
      break;
    case Verb::all_to_all:
      for (i64 block = 0; block < m.blocks; ++block)
        for (int i = 0; i < size; ++i)
          copy_bytes(out + (block * size + i) * bytes, slot(i) + (block * size + me) * bytes, bytes);
      break;
    case Verb::reduce_scatter:
      for (i64 block = 0; block < m.blocks; ++block) {
        const void* parts[kMaxRanks];
        for (int i = 0; i < size; ++i) parts[i] = slot(i) + (block * size + me) * bytes;
        combine_tree(m.type, m.reduce, parts, size, m.n, out + block * bytes);
      }
      break;
  }
}

}  // namespace

int LocalWorld::State::start(Rank& rank, const Message& m) {
  try {
    check_start(m, mesh, rank.rank, rank.groups, rank.outstanding, needs);
  } catch (const CommError& e) {
    Lock lock(mutex);
    raise(e.what());
  }
  const int axis = static_cast<int>(m.axis);
  const int index = rank.free_requests.back();
  rank.free_requests.pop_back();
  Request& request = rank.requests[index];
  const int capacity = static_cast<int>(rank.requests.size());
  request.id = index + capacity * rank.serial;
  rank.serial = (rank.serial + 1) % ((1 << 30) / capacity);
  request.stated.set(m);
  request.exchange = rank.exchanges[axis];
  request.op = nullptr;
  ++rank.outstanding[axis];
  if (request.exchange)
    begin_shared(rank, request);
  else
    begin_alone(m, rank.groups[axis]);
  return request.id;
}

// In a group of one every collective is a copy. Lazily it too is done at the wait.
void LocalWorld::State::begin_alone(const Message& m, const Group& group) {
  if (timing == Timing::eager)
    copy_bytes(m.out, m.in, in_elements(m, 0, 1) * type_bytes(m.type));
  else
    poison_output(m, group);
}

void LocalWorld::State::begin_shared(Rank& rank, Request& request) {
  Exchange& exchange = *request.exchange;
  const Message& m = request.stated.message;
  const Group& group = rank.groups[static_cast<int>(m.axis)];
  const bool eager = timing == Timing::eager;
  const i64 bytes = in_bytes(m, group.me, group.size());
  request.slot = nullptr;
  if (gives(m, group.me)) {
    Lock lock(mutex);
    request.slot = exchange.take(group.me);
    if (request.slot->user) make_room(lock, rank, request);
  }
  // Before the others are told of this start: from then on they may write the output.
  if (eager && request.slot) copy_bytes(request.slot->data, m.in, bytes);
  poison_output(m, group);
  ++rank.wires[static_cast<int>(m.axis)].messages;
  rank.wires[static_cast<int>(m.axis)].sent += bytes;

  Lock lock(mutex);
  go_on_only_if_sound();
  try {
    request.op = &exchange.match(group.me, m, mesh);
  } catch (const CommError& e) {
    raise(e.what());
  }
  Operation& op = *request.op;
  MemberPart& part = op.parts[group.me];
  part.message = &m;
  part.slot = request.slot;
  if (part.slot) part.slot->user = &op;
  part.started = true;
  ++op.started;
  if (m.verb == Verb::all_reduce) op.slices = (m.blocks * m.n + kSlice - 1) / kSlice;
  if (eager && part.slot)
    captured(op, group.me, group);
  else if (op.complete())
    wake_movable(group);
}

// The slot that this rank is to fill holds what it gave to an operation that is over for this rank, and not
// for a late one, whose output is therefore written here. Nobody has to get anywhere for that, so it can't
// deadlock: the operation is complete, or this rank's wait for it would not be over.
void LocalWorld::State::make_room(Lock& lock, Rank& rank, Request& request) {
  const Slot& slot = *request.slot;
  Operation& old = *slot.user;
  const int size = request.exchange->group().size();
  for (int i = 0; i < size && slot.user; ++i) {
    Rank& late = ranks[request.exchange->group().ranks[i]];
    if (!old.parts[i].started || late.left || old.parts[i].claimed.exchange(true)) continue;
    ++late.writers;
    lock.unlock();
    write_output(old, i, size);
    lock.lock();
    --late.writers;
    delivered(*request.exchange, old, i);
  }
  while (slot.user) block(lock, rank, Awaits::room, request);
}

void LocalWorld::State::capture(Operation& op, int member, const Group& group) const {
  const Message& m = *op.parts[member].message;
  copy_bytes(op.parts[member].slot->data, m.in, in_bytes(m, member, group.size()));
}

void LocalWorld::State::captured(Operation& op, int member, const Group& group) {
  op.parts[member].captured = true;
  ++op.captured;
  if (op.complete()) wake_movable(group);
}

void LocalWorld::State::delivered(Exchange& exchange, Operation& op, int member) {
  exchange.deliver(op, member);
  wake_movable(exchange.group());
}

void LocalWorld::State::wait(Rank& rank, int id) {
  const int index = id % static_cast<int>(rank.requests.size());
  Request* request = id < 0 ? nullptr : &rank.requests[index];
  if (!request || request->id != id) {
    Lock lock(mutex);
    raise(fmt::format("{} waits for a request that it did not start, or for one a second time",
                      place(mesh, rank.rank)));
  }
  const Message& m = request->stated.message;
  if (request->exchange)
    finish_shared(rank, *request);
  else if (timing == Timing::lazy)
    copy_bytes(m.out, m.in, in_elements(m, 0, 1) * type_bytes(m.type));
  --rank.outstanding[static_cast<int>(m.axis)];
  request->id = -1;
  rank.free_requests.push_back(index);
}

// A rank that fails takes its memory with it, but not from under one that is writing an output there.
void LocalWorld::State::leave(Rank& rank) noexcept {
  Lock lock(mutex);
  rank.left = true;
  while (rank.writers > 0) {
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
}

void LocalWorld::State::finish_shared(Rank& rank, Request& request) {
  Operation& op = *request.op;
  const Message& m = request.stated.message;
  const Group& group = rank.groups[static_cast<int>(m.axis)];
  MemberPart& part = op.parts[group.me];
  Lock lock(mutex);
  go_on_only_if_sound();
  if (part.slot && !part.captured) {
    lock.unlock();
    capture(op, group.me, group);
    lock.lock();
    captured(op, group.me, group);
  }
  while (!op.complete()) block(lock, rank, Awaits::peers, request);
  lock.unlock();
  if (m.verb == Verb::all_reduce) combine_slices(rank, request);
  const bool mine = !part.claimed.exchange(true);
  if (mine) write_output(op, group.me, group.size());
  rank.wires[static_cast<int>(m.axis)].received +=
      out_elements(m, group.me, group.size()) * type_bytes(m.type);
  lock.lock();
  if (mine) delivered(*request.exchange, op, group.me);
  while (!part.delivered) block(lock, rank, Awaits::delivery, request);
  request.exchange->finish(op, group.me);
}

// Whoever is in its wait takes the next slice, so all members together combine once. No member waits for one
// that is not there: a slice is either free to take or in the hands of a rank that is running.
void LocalWorld::State::combine_slices(Rank& rank, Request& request) {
  Operation& op = *request.op;
  const Message& m = request.stated.message;
  const Group& group = request.exchange->group();
  for (i64 slice; (slice = op.next_slice.fetch_add(1)) < op.slices;) {
    const i64 begin = slice * kSlice, end = std::min(begin + kSlice, m.blocks * m.n);
    const void* parts[kMaxRanks];
    for (int i = 0; i < group.size(); ++i) parts[i] = op.parts[i].slot->data + begin * type_bytes(m.type);
    combine_tree(m.type, m.reduce, parts, group.size(), end - begin, const_cast<void*>(parts[0]));
    if (op.slices_done.fetch_add(1) + 1 == op.slices) {
      Lock lock(mutex);
      wake_movable(group);
    }
  }
  if (op.slices_done == op.slices) return;
  Lock lock(mutex);
  while (op.slices_done != op.slices) block(lock, rank, Awaits::slices, request);
}

}  // namespace lockstep
