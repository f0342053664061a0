// LocalWorld and the threads of its ranks.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>

#include "kernels/cores.hpp"
#include "parallel/comm/local_world.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

// To wake a sleeping thread takes tens of microseconds, which is what most waits take. But where ranks
// outnumber the cores, one that is awake keeps off the one that it waits for.
int spins_of(int ranks) { return ranks <= cores() ? 1000 : 0; }

}  // namespace

LocalWorld::State::State(const Mesh& m, const CommNeeds& n, Timing t)

    : mesh(m), needs(n), timing(t), spins(spins_of(m.size())), ranks(static_cast<std::size_t>(m.size())) {
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
      if (first == r)
        exchanges.push_back(
            std::make_unique<Exchange>(rank.groups[a], needs.of(static_cast<Axis>(a)), timing));
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
    rank.ended = rank.left = false;
    rank.writers = 0;
    rank.awaits = Awaits::nothing;
  }
  std::vector<std::thread> threads;
  threads.reserve(ranks.size());
  // None begins before all are there: a body may wait for the others by means of its own.
  enum Begin { not_yet, now, never };
  std::atomic<Begin> begin{not_yet};
  try {
    for (Rank& rank : ranks)
      threads.emplace_back([&] {
        begin.wait(not_yet);
        if (begin == now) live(rank, body);
      });
    begin = now;
  } catch (const std::system_error& e) {
    failure = std::make_exception_ptr(
        OutOfMemory(fmt::format("no memory for a thread of rank {}: {}", threads.size(), e.what())));
    begin = never;
  }
  begin.notify_all();
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
  } catch (const std::bad_alloc& e) {
    const std::string text = fmt::format("rank {}: {}", rank.rank, e.what());
    Lock lock(mutex);
    fail(std::make_exception_ptr(OutOfMemory(text)), text);
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

LocalWorld::LocalWorld(const Mesh& mesh, const CommNeeds& needs, Timing timing)
    : state_(std::make_unique<State>(mesh, needs, timing)) {}
LocalWorld::~LocalWorld() = default;
void LocalWorld::run(const std::function<void(int, Comm&)>& body) { state_->run(body); }
Wire LocalWorld::wire(int rank, Axis axis) const { return state_->ranks[rank].wires[static_cast<int>(axis)]; }

}  // namespace lockstep
