// LocalWorld: every rank is a thread, the network is memory between them (exchange.hpp). One mutex guards all
// bookkeeping; copies and sums are done outside it.
//
// Deadlocks are found exactly, without time-outs: a rank that must wait says so under the mutex, and whoever
// makes its condition true marks it as running again before letting the mutex go. So when the count of
// running ranks falls to zero, nothing can move any more.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "parallel/comm/comm.hpp"
#include "parallel/comm/contract.hpp"
#include "parallel/comm/exchange.hpp"
#include "parallel/comm/tree.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

constexpr int kAxes = static_cast<int>(Axis::count);
constexpr i64 kSlice = 16384;  // elements of an all_reduce that one rank combines at a time
using Lock = std::unique_lock<std::mutex>;

enum class Awaits {
  nothing,
  peers,   // that all members have started and contributed
  slices,  // slices of an all_reduce that other ranks are combining right now
};

struct Request {
  int id = -1;  // -1: free
  Stated stated;
  Exchange* exchange = nullptr;
  Operation* op = nullptr;  // null in a group of one
};

bool gives(const Message& m, int me) {
  return m.verb != Verb::recv && (m.verb != Verb::broadcast || m.peer == me);
}

void capture(const Part& part) { copy_bytes(part.slot, part.in, part.in_bytes); }

}  // namespace

struct LocalWorld::State {
  class Rank : public Comm {
   public:
    int start(const Message& m) override { return world->start(*this, m); }
    void wait(int id) override { world->wait(*this, id); }

    State* world = nullptr;
    int rank = 0;
    Group groups[kAxes];              // mine, on every axis
    Exchange* exchanges[kAxes] = {};  // null for a group of one
    int outstanding[kAxes] = {};
    Wire wires[kAxes];
    std::vector<Request> requests;
    std::vector<int> free_requests;
    int serial = 0;  // makes ids of reused requests differ

    std::atomic<int> blocked{0};  // an int is a futex
    bool ended = false;
    Awaits awaits = Awaits::nothing;
    Request* request = nullptr;  // what it is blocked for
  };

  State(const Mesh&, const CommNeeds&, Timing);
  void run(const std::function<void(int, Comm&)>& body);
  void live(Rank&, const std::function<void(int, Comm&)>& body);

  int start(Rank&, const Message&);
  void wait(Rank&, int id);
  void begin_alone(const Message&, const Group&);
  void begin_shared(Rank&, Request&);
  void finish_shared(Rank&, Request&);
  void captured(Operation&, int member, const Group&);
  void write_output(Rank&, const Request&);
  void combine_slices(Rank&, Request&);

  bool can_move(const Rank&) const;
  void block(Lock&, Rank&, Awaits, Request&);
  void wake(Rank&);
  void wake_movable(const Group&);
  void nobody_runs();
  bool capture_at_last();
  std::string deadlock_report() const;
  std::string awaited(const Rank&) const;
  void fail(std::exception_ptr, const std::string& text);
  [[noreturn]] void raise(const std::string& text);
  void go_on_only_if_sound() const;

  const Mesh mesh;
  const CommNeeds needs;
  const Timing timing;
  std::vector<std::unique_ptr<Exchange>> exchanges;
  std::vector<Rank> ranks;

  std::mutex mutex;
  int running = 0;
  std::exception_ptr failure;  // the first one, for the caller of run
  std::string failure_text;    // the same, for the other ranks
};

// ---- the world and its threads

LocalWorld::State::State(const Mesh& m, const CommNeeds& n, Timing t)
    : mesh(m), needs(n), timing(t), ranks(static_cast<std::size_t>(m.size())) {
  if (mesh.size() < 1 || mesh.size() > kMaxRanks)
    throw CommError(
        fmt::format("the local communicator takes 1 to {} ranks, not {}", kMaxRanks, mesh.size()));
  if (needs.outstanding < 1) throw CommError("the local communicator needs room for one request at least");
  for (int r = 0; r < mesh.size(); ++r) {
    Rank& rank = ranks[r];
    rank.world = this;
    rank.rank = r;
    for (int a = 0; a < kAxes; ++a) {
      rank.groups[a] = mesh.group(static_cast<Axis>(a), r);
      if (rank.groups[a].size() == 1) continue;
      const int first = rank.groups[a].ranks[0];
      if (first == r) exchanges.push_back(std::make_unique<Exchange>(rank.groups[a], needs));
      rank.exchanges[a] = first == r ? exchanges.back().get() : ranks[first].exchanges[a];
    }
    rank.requests.resize(static_cast<std::size_t>(kAxes) * needs.outstanding);
    rank.free_requests.reserve(rank.requests.size());
  }
}

void LocalWorld::State::run(const std::function<void(int, Comm&)>& body) {
  failure = nullptr;
  running = mesh.size();
  for (auto& exchange : exchanges) exchange->reset();
  for (Rank& rank : ranks) {
    std::fill(std::begin(rank.outstanding), std::end(rank.outstanding), 0);
    std::fill(std::begin(rank.wires), std::end(rank.wires), Wire{});
    rank.free_requests.clear();
    for (int i = static_cast<int>(rank.requests.size()); i-- > 0;) {
      rank.requests[i].id = -1;
      rank.free_requests.push_back(i);
    }
    rank.blocked = 0;
    rank.ended = false;
    rank.awaits = Awaits::nothing;
  }
  std::vector<std::thread> threads;
  threads.reserve(ranks.size());
  for (Rank& rank : ranks) threads.emplace_back([&] { live(rank, body); });
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

// One rank's whole life.
void LocalWorld::State::live(Rank& rank, const std::function<void(int, Comm&)>& body) {
  try {
    body(rank.rank, rank);
    Lock lock(mutex);
    std::string left;
    int count = 0;
    for (const Request& request : rank.requests)
      if (request.id >= 0 && ++count)
        left += (left.empty() ? "" : "; ") +
                describe(request.stated.message, rank.groups[static_cast<int>(request.stated.message.axis)]);
    if (count > 0)
      raise(fmt::format("{} ended with {} request{} never waited for: {}", place(mesh, rank.rank), count,
                        count == 1 ? "" : "s", left));
  } catch (const UserError& e) {
    const std::string text = fmt::format("rank {}: {}", rank.rank, e.what());
    Lock lock(mutex);
    fail(std::make_exception_ptr(UserError(text)), text);
  } catch (const std::exception& e) {
    const std::string text = fmt::format("rank {} failed: {}", rank.rank, e.what());
    Lock lock(mutex);
    fail(std::make_exception_ptr(CommError(text)), text);
  } catch (...) {
    const std::string text = fmt::format("rank {} failed: unknown exception", rank.rank);
    Lock lock(mutex);
    fail(std::make_exception_ptr(CommError(text)), text);
  }
  Lock lock(mutex);
  rank.ended = true;
  if (--running == 0) nobody_runs();
}

// ---- start

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
  const bool giving = gives(m, group.me);
  {
    Lock lock(mutex);
    go_on_only_if_sound();
    try {
      request.op = &exchange.match(group.me, m, mesh);
    } catch (const CommError& e) {
      raise(e.what());
    }
    Operation& op = *request.op;
    Part& part = op.parts[group.me];
    part.in = m.in;
    part.in_bytes = in_elements(m, group.me, group.size()) * type_bytes(m.type);
    part.started = true;
    part.gives = giving;
    ++op.started;
    if (m.verb == Verb::all_reduce) op.slices = (m.blocks * m.n + kSlice - 1) / kSlice;
    if (op.complete()) wake_movable(group);
  }
  ++rank.wires[static_cast<int>(m.axis)].messages;
  rank.wires[static_cast<int>(m.axis)].sent += in_elements(m, group.me, group.size()) * type_bytes(m.type);
  if (giving && timing == Timing::eager) {
    capture(request.op->parts[group.me]);
    Lock lock(mutex);
    captured(*request.op, group.me, group);
  }
  poison_output(m, group);
}

// ---- contributions

void LocalWorld::State::captured(Operation& op, int member, const Group& group) {
  op.parts[member].captured = true;
  ++op.captured;
  if (op.complete()) wake_movable(group);
}

// ---- wait

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

void LocalWorld::State::finish_shared(Rank& rank, Request& request) {
  Operation& op = *request.op;
  const Group& group = rank.groups[static_cast<int>(request.stated.message.axis)];
  const Part& part = op.parts[group.me];
  Lock lock(mutex);
  go_on_only_if_sound();
  if (part.gives && !part.captured) {
    lock.unlock();
    capture(part);
    lock.lock();
    captured(op, group.me, group);
  }
  while (!op.complete()) block(lock, rank, Awaits::peers, request);
  lock.unlock();
  if (request.stated.message.verb == Verb::all_reduce) combine_slices(rank, request);
  write_output(rank, request);
  lock.lock();
  request.exchange->finish(op);
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
    for (int i = 0; i < group.size(); ++i) parts[i] = op.parts[i].slot + begin * type_bytes(m.type);
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

void LocalWorld::State::write_output(Rank& rank, const Request& request) {
  const Message& m = request.stated.message;
  const Group& group = rank.groups[static_cast<int>(m.axis)];
  const Operation& op = *request.op;
  const int size = group.size();
  const i64 bytes = m.n * type_bytes(m.type);  // of one block
  const auto slot = [&](int member) { return op.parts[member].slot; };
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
          copy_bytes(out + (block * size + i) * bytes, slot(i) + (block * size + group.me) * bytes, bytes);
      break;
    case Verb::reduce_scatter:
      for (i64 block = 0; block < m.blocks; ++block) {
        const void* parts[kMaxRanks];
        for (int i = 0; i < size; ++i) parts[i] = slot(i) + (block * size + group.me) * bytes;
        combine_tree(m.type, m.reduce, parts, size, m.n, out + block * bytes);
      }
      break;
  }
  rank.wires[static_cast<int>(m.axis)].received += out_elements(m, group.me, size) * type_bytes(m.type);
}

// ---- who can move. The mutex is held in all that follows.

bool LocalWorld::State::can_move(const Rank& rank) const {
  switch (rank.awaits) {
    case Awaits::peers:
      return rank.request->op->complete();
    case Awaits::slices:
      return rank.request->op->slices_done == rank.request->op->slices;
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
      if (op.parts[i].gives && !op.parts[i].captured) {
        capture(op.parts[i]);
        captured(op, i, group);
      }
    return true;  // this rank runs now; the inputs of its other requests are no longer ours to read
  }
  return false;
}

// ---- failures

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

// ---- the public face

LocalWorld::LocalWorld(const Mesh& mesh, const CommNeeds& needs, Timing timing)
    : state_(std::make_unique<State>(mesh, needs, timing)) {}
LocalWorld::~LocalWorld() = default;
void LocalWorld::run(const std::function<void(int, Comm&)>& body) { state_->run(body); }
Wire LocalWorld::wire(int rank, Axis axis) const { return state_->ranks[rank].wires[static_cast<int>(axis)]; }

}  // namespace lockstep
