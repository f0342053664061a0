// Messages of an accelerator's memory over a communicator that knows host memory only: inputs are copied to
// the host at the start, outputs to the device at the wait. Sums are the inner communicator's.
#pragma once
#include <vector>

#include "parallel/device/engine.hpp"

namespace lockstep {

class Staging final : public Comm {
 public:
  // needs.in_flight have room; more is a std::logic_error.
  Staging(Comm& inner, Engine&, const Mesh&, int rank, const CommNeeds&);
  int start(const Message&) override;
  void wait(int request) override;

 private:
  struct Slot {
    i64 room = 0;        // bytes, of each of the two
    int id = -1;         // of the inner communicator; -1: free
    void *in, *out;      // on the host
    void* to = nullptr;  // on the device; null: nothing to bring
    i64 bytes = 0;
  };
  Comm& inner_;
  Engine& engine_;
  std::vector<Group> groups_;  // by axis
  std::vector<Slot> slots_;
};

}  // namespace lockstep
