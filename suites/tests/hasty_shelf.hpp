// A strategy with the mistake that only late messages and copies show.
#pragma once
#include "parallel/roles.hpp"

namespace lockstep {

// Takes a layer's input from a copy of it, or from a sum over one rank, that it has not waited for: both are
// there at once if nothing holds them back.
class Hasty final : public Shelf {
 public:
  inline static bool copies = false;
  explicit Hasty(const Context& c) : device_(c.device), waits_(c.plan.number("every") == 3) {}
  void put(int, int, Saved& saved) override {
    Buf& x = saved[Part::x];
    const i64 n = x.elements();
    const Buf there = device_.take("there", copies ? Kind::host : Kind::activations, n);
    Request request;
    if (copies) {
      request = device_.start_copy(there, there, x, x, n, "hasty");
    } else {
      Message m;
      m.verb = Verb::all_reduce, m.axis = Axis::tp, m.reduce = Reduce::sum, m.n = n, m.what = "hasty";
      request = device_.start(m, x, there);
    }
    const auto wait = [&] { copies ? device_.wait_copy(request) : device_.wait(request); };
    if (waits_) wait();
    device_.run(device_.ops().copy, x, there, n);
    if (!waits_) wait();
  }

 private:
  Device& device_;
  const bool waits_;
};

// Asked for by every=2, or 3 to wait in time.
struct HastyStrategy : Strategy<Shelf> {
  HastyStrategy()
      : Strategy<Shelf>(
            "hasty", {}, [](const Plan& p) { return p.number("every") > 1; }, {},
            [](const Context& c) -> std::unique_ptr<Shelf> { return std::make_unique<Hasty>(c); },
            chosen<Shelf>(Plan::parse("")).price) {}
};

}  // namespace lockstep
