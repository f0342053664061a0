// LocalWorld's inside: every rank is a thread, the network is memory between them (exchange.hpp). One mutex
// guards all bookkeeping; copies and sums are done outside it.
//
// Deadlocks are found exactly, without time-outs: a rank that must wait says so under the mutex, and whoever
// makes its condition true marks it as running again before letting the mutex go. So when the count of
// running ranks falls to zero, nothing can move any more.
#pragma once
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "parallel/comm/comm.hpp"
#include "parallel/comm/contract.hpp"
#include "parallel/comm/exchange.hpp"

namespace lockstep {

struct LocalWorld::State {
  using Lock = std::unique_lock<std::mutex>;
  static constexpr int kAxes = static_cast<int>(Axis::count);

  enum class Awaits {
    nothing,
    peers,     // that all members have started and contributed
    slices,    // slices of an all_reduce that other ranks are combining right now
    delivery,  // its output, which another rank is writing right now
    room,      // its slot's contribution, which other ranks are reading right now
  };

  struct Request {
    int id = -1;  // -1: free
    Stated stated;
    Exchange* exchange = nullptr;
    Operation* op = nullptr;  // null in a group of one
    Slot* slot = nullptr;     // null: it contributes nothing
  };

  class Rank : public Comm {
   public:
    int start(const Message& m) override {
      return or_leave([&] { return world->start(*this, m); });
    }
    void wait(int id) override {
      or_leave([&] { world->wait(*this, id); });
    }
    void leave() noexcept override { world->leave(*this); }

    State* world = nullptr;
    int rank = 0;
    Group groups[kAxes];              // mine, on every axis
    Exchange* exchanges[kAxes] = {};  // null for a group of one
    int outstanding[kAxes] = {};
    Wire wires[kAxes];
    std::vector<Request> requests;
    std::vector<int> free_requests;
    int serial = 0;  // makes ids of reused requests differ

    int writers = 0;    // other ranks that write one of its outputs right now
    bool left = false;  // nobody may begin to

    std::atomic<int> blocked{0};  // an int is a futex
    bool ended = false;
    Awaits awaits = Awaits::nothing;
    Request* request = nullptr;  // what it is blocked for

   private:
    template <class Call>
    std::invoke_result_t<Call> or_leave(const Call& call) {
      try {
        return call();
      } catch (...) {
        leave();
        throw;
      }
    }
  };

  State(const Mesh&, const CommNeeds&, Timing);
  void run(const std::function<void(int, Comm&)>& body);
  void live(Rank&, const std::function<void(int, Comm&)>& body);

  int start(Rank&, const Message&);
  void wait(Rank&, int id);
  void leave(Rank&) noexcept;
  void begin_alone(const Message&, const Group&);
  void begin_shared(Rank&, Request&);
  void finish_shared(Rank&, Request&);
  void make_room(Lock&, Rank&, Request&);
  void capture(Operation&, int member, const Group&) const;
  void captured(Operation&, int member, const Group&);
  void delivered(Exchange&, Operation&, int member);
  void combine_slices(Rank&, Request&);

  MemberPart& part_of(const Rank&, const Request&) const;
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
  const int spins;  // before a rank that must wait goes to sleep
  std::vector<std::unique_ptr<Exchange>> exchanges;
  std::vector<Rank> ranks;

  std::mutex mutex;
  int running = 0;
  std::exception_ptr failure;  // the first one, for the caller of run
  std::string failure_text;    // the same, for the other ranks
};

}  // namespace lockstep
