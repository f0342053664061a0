#include "suites/planner/measure/measure_messages.hpp"

#include <atomic>
#include <thread>

namespace lockstep {
namespace {

// Where ranks meet without going to sleep: what comes next begins on all of them at once.
class Meeting {
 public:
  explicit Meeting(int ranks) : ranks_(ranks) {}
  void come() {
    const int round = round_.load();
    if (came_.fetch_add(1) + 1 == ranks_) {
      came_ = 0;
      ++round_;
    } else {
      for (int spins = 0; round_.load() == round; ++spins)
        if (spins > kSpins) std::this_thread::yield();  // somebody else wants the other's core
    }
  }

 private:
  static constexpr int kSpins = 10000;
  const int ranks_;
  std::atomic<int> came_{0}, round_{0};
};

}  // namespace

MessageSample message_sample(Verb verb, int ranks, i64 elements, double far) {
  using Clock = std::chrono::steady_clock;
  const bool parts = verb == Verb::reduce_scatter || verb == Verb::all_gather || verb == Verb::all_to_all;
  const bool pair = verb == Verb::send || verb == Verb::recv;
  const i64 whole = parts ? elements * ranks : elements;
  MessageSample found;
  found.bytes = 4.0 * static_cast<double>(whole);
  constexpr int kBatches = 5;
  const int times = static_cast<int>(std::clamp<i64>((i64{1} << 20) / (whole + 1), 3, 300));
  LocalWorld world({ranks, 1, 1, 1}, CommNeeds{.largest_bytes = whole * 4}, Timing::eager);
  Meeting meeting(ranks);
  std::vector<double> starts, waits;
  const i64 room = std::max(whole, static_cast<i64>(far / 8));
  world.run([&](int rank, Comm& comm) {
    std::vector<float> in(static_cast<std::size_t>(room + whole), 0.25f), out(in.size());
    const int looked_at = verb == Verb::recv ? 1 : 0;
    i64 at = 0;
    for (int batch = -1; batch < kBatches; ++batch) {
      double starting = 0, waiting = 0;
      for (int i = 0; i < times; ++i) {
        Message m;
        m.verb = verb, m.axis = Axis::dp, m.n = elements, m.what = "a measurement";
        if (pair) m.verb = rank == 0 ? Verb::send : Verb::recv, m.peer = 1 - rank;
        if (verb == Verb::broadcast) m.peer = 0;
        if (verb == Verb::all_reduce || verb == Verb::reduce_scatter) m.reduce = Reduce::sum;
        if (m.verb != Verb::recv) m.in = in.data() + at;
        if (m.verb != Verb::send) m.out = verb == Verb::all_reduce ? in.data() + at : out.data() + at;
        at = at + whole > room ? 0 : at + whole;
        meeting.come();
        const Clock::time_point from = Clock::now();
        const int request = comm.start(m);
        const Clock::time_point started = Clock::now();
        meeting.come();
        const Clock::time_point before = Clock::now();
        comm.wait(request);
        waiting += std::chrono::duration<double>(Clock::now() - before).count();
        starting += std::chrono::duration<double>(started - from).count();
      }
      if (rank == looked_at && batch >= 0)
        starts.push_back(starting / times), waits.push_back(waiting / times);
    }
  });
  found.start = sample_of(starts, kBatches * times), found.wait = sample_of(waits, kBatches * times);
  return found;
}

}  // namespace lockstep
