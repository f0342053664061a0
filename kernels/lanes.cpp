#include "kernels/lanes.hpp"

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cores.hpp"

namespace lockstep {

namespace {

constexpr std::align_val_t kCacheLine{64};

struct FreeScratch {
  void operator()(std::byte* p) const { ::operator delete[](p, kCacheLine); }
};
using Scratch = std::unique_ptr<std::byte[], FreeScratch>;

// Waits until `value` differs from `old`, and returns what it became. Rounds of work follow each other within
// microseconds, and to sleep and be woken takes ten times that. Ranks may outnumber cores, so after about a
// microsecond whoever else wants the core gets it first.
unsigned wait_for_change(const std::atomic<unsigned>& value, unsigned old) {
  constexpr int kSpins = 50, kTurns = 200;
  for (int turn = 0; turn < kSpins + kTurns; ++turn) {
    const unsigned now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    turn < kSpins ? pause_core() : std::this_thread::yield();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

// The caller is lane 0; lanes 1, 2, ... are threads that wait for the next round of work.
struct Lanes::Crew {
  alignas(64) std::atomic<unsigned> round{0};  // a new value starts the workers
  alignas(64) std::atomic<unsigned> busy{0};   // workers not done with this round

  // The round's work, written before `round` changes.
  alignas(64) i64 n = 0;
  i64 grain = 1;
  Task task = nullptr;  // null: the crew ends
  void* self = nullptr;

  std::vector<Scratch> scratch;
  std::vector<std::thread> workers;

  explicit Crew(int threads) {
    for (int i = 0; i < threads; ++i)
      scratch.emplace_back(static_cast<std::byte*>(::operator new[](kScratchBytes, kCacheLine)));
    workers.reserve(static_cast<std::size_t>(threads) - 1);
    try {
      for (int lane = 1; lane < threads; ++lane) workers.emplace_back([this, lane] { work(lane); });
    } catch (...) {  // no more threads to be had: those that run must end before `this` goes
      end();
      throw;
    }
  }
  ~Crew() { end(); }

  void end() {
    task = nullptr;
    start();
    for (std::thread& worker : workers) worker.join();
  }

  void start() {
    busy.store(static_cast<unsigned>(workers.size()), std::memory_order_relaxed);
    round.fetch_add(1, std::memory_order_release);
    round.notify_all();
  }

  void finish() {
    for (unsigned left = busy.load(std::memory_order_acquire); left != 0;) left = wait_for_change(busy, left);
  }

  void work(int lane) {
    for (unsigned seen = 0;;) {
      seen = wait_for_change(round, seen);
      if (!task) return;
      do_part(lane);
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) busy.notify_one();
    }
  }

  // Lane l of L takes grains [ceil(l * grains / L), ceil((l + 1) * grains / L)).
  void do_part(int lane) const {
    const i64 lanes = static_cast<i64>(scratch.size());
    const i64 grains = (n + grain - 1) / grain;
    const auto bound = [&](i64 l) {
      const i64 at = (l * grains + lanes - 1) / lanes * grain;
      return at < n ? at : n;
    };
    const i64 lo = bound(lane), hi = bound(lane + 1);
    if (lo < hi) task(self, lo, hi, lane);
  }
};

Lanes::Lanes(int threads) : count_(threads) {
  if (threads < 1)
    throw std::invalid_argument("a rank needs at least 1 thread, not " + std::to_string(threads));
  crew_ = std::make_unique<Crew>(threads);
}

Lanes::~Lanes() = default;

void* Lanes::scratch(int lane) const { return crew_->scratch[static_cast<std::size_t>(lane)].get(); }

void Lanes::run(i64 n, i64 grain, Task task, void* self) {
  if (n <= 0) return;
  if (count_ == 1 || n <= grain) return task(self, 0, n, 0);  // not worth waking anyone
  Crew& crew = *crew_;
  crew.n = n;
  crew.grain = grain;
  crew.task = task;
  crew.self = self;
  crew.start();
  crew.do_part(0);
  crew.finish();
}

}  // namespace lockstep
