// The kernels of a step's passes, handed to the device in few launches: those between two messages or copies
// are kept as one graph and run again from it, step after step (CUDA C++ Programming Guide, "CUDA Graphs").
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "parallel/device/engine.hpp"

namespace lockstep {

// In the first step kernels run as they are called, which also loads them; in the second they are kept as
// graphs; from the third on calls are only compared with what was kept.
class Graphs {
 public:
  explicit Graphs(Engine& engine) : engine_(engine) {}

  // Around calls that are the same in every step. std::logic_error: a call is not what it was in the step
  // before.
  void begin();
  void end();
  // Before anything that is not a kernel of the device: what was called before it is on its way then.
  void cut() {
    if (open_) close();
  }

  // The next kernel is another one in every step, by its numbers: it is in no graph.
  void leave_out_next() { left_out_ = within_; }

  // A kernel is about to be called. False: it is not to be, for a graph does it.
  template <class... A>
  bool calls(const char* kernel, unsigned halves, A... args) {
    if (!within_) return true;
    if (left_out_) {
      left_out_ = false;
      cut();
      return true;
    }
    if (!open_) open();
    mix(std::hash<std::string_view>{}(kernel));
    mix(halves);
    (mix(bits(args)), ...);
    return mode_ != Mode::replay;
  }

 private:
  enum class Mode { look, keep, replay };
  void open();
  void close();
  void mix(std::uint64_t x) { calls_ = (std::rotl(calls_, 23) ^ x) * 0x9e3779b97f4a7c15u; }
  template <class A>
  static std::uint64_t bits(const A& a);

  Engine& engine_;
  Mode mode_ = Mode::look;
  bool within_ = false, open_ = false, left_out_ = false;
  std::vector<std::uint64_t> kept_;  // of each graph: a hash of its kernels and their arguments
  std::size_t next_ = 0;             // the graph that comes, or is open
  std::uint64_t calls_ = 0;          // of the open graph
};

template <class A>
std::uint64_t Graphs::bits(const A& a) {
  if constexpr (std::is_pointer_v<A>)
    return reinterpret_cast<std::uintptr_t>(a);
  else if constexpr (std::is_floating_point_v<A>)
    return std::bit_cast<std::uint64_t>(static_cast<double>(a));
  else if constexpr (std::is_integral_v<A>)
    return static_cast<std::uint64_t>(a);
  else  // a struct of numbers
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&a), sizeof a});
}

}  // namespace lockstep
