// One rank's device: the same calls compute, or only note what would be computed.
#pragma once
#include <array>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/ops.hpp"
#include "parallel/comm/comm.hpp"
#include "parallel/device/copies.hpp"
#include "parallel/device/engine.hpp"
#include "parallel/device/graphs.hpp"
#include "parallel/device/memory.hpp"
#include "parallel/trace/trace.hpp"
#include "ref/settings.hpp"

namespace lockstep {

// What went over the wire, as the messages gate compares it.
struct Posted {
  Axis axis;
  Verb verb;
  Type type;
  Reduce reduce;
  int peer;
  const char* what;
  int microbatch;
  i64 elements;  // blocks * n
};

// A message under way. Holds its buffers until it is waited for.
struct Request {
  int id = -1;
  Buf in, out;
  const char* stream = "copies";  // or the axis of a message
  int number = -1;                // of all that the device started
  explicit operator bool() const { return id >= 0; }
};

// Looks on while a rank computes; nothing is computed for it.
class Onlooker {
 public:
  virtual ~Onlooker() = default;
  virtual void begins(const char* /*action*/, int /*chunk*/, int /*microbatch*/) {}
  virtual void waits(const char* /*stream*/) {}  // for a message of this axis, or "copies"
  virtual void goes_on() {}
  // Around each kernel, and each start and wait of a message or copy: in the order of the rank's trace.
  virtual void does() {}
  virtual void did() {}
  // x: the residual stream [b, Ts, D] of samples from `first` on. Place 0 is behind the embedding, 2l + 1
  // behind layer l's attention, 2l + 2 behind its MLP.
  virtual void shows(int /*place*/, i64 /*first*/, i64 /*b*/, View /*x*/, i64 /*elements*/) {}
};

class PlainDevice {
 public:
  // comm == nullptr: trace only, nothing is computed, sent or copied. engine: whose memory the device's
  // buffers lie in, and whose kernels work there; null: this program's own, and `ops`.
  PlainDevice(int rank, Placer& device, Placer& host, Disk& disk, const Ops<float>& ops, Lanes& lanes,
              Comm* comm, Trace* trace, Timing timing = Timing::eager, Engine* engine = nullptr)
      : rank_(rank),
        memory_(device, host, disk, trace, done_),
        disk_(disk),
        copies_(disk, timing, engine),
        engine_(engine),
        ops_(engine ? engine->ops() : ops),
        lanes_(engine ? engine->lanes() : lanes),
        host_lanes_(lanes),
        comm_(comm),
        trace_(trace) {
    posted_.reserve(1 << 15);
  }
  ~PlainDevice() { end_action(); }
  PlainDevice(const PlainDevice&) = delete;
  void operator=(const PlainDevice&) = delete;

  int rank() const { return rank_; }
  bool computes() const { return comm_ != nullptr; }
  const Ops<float>& ops() const { return ops_; }
  const std::vector<Posted>& posted() const { return posted_; }  // this step's messages
  i64 kernels() const { return kernels_; }                       // and how many kernels ran, copies were
  i64 copies() const { return started_copies_; }                 // started in it
  // Of all kernels with their sizes, messages, copies, waits and buffers of this step, in their order; and
  // the bytes that the program itself brought to the device and took from it.
  std::uint64_t fingerprint() const { return done_.value(); }
  i64 host_bytes() const { return host_bytes_; }

  // Of the type that numbers of this kind have; float32 unless set_types() said otherwise.
  Buf take(const char* name, Kind kind, i64 elements) {
    return memory_.take(name, kind, elements, types_[static_cast<int>(kind)]);
  }
  Buf take(const char* name, Kind kind, i64 elements, Type type) {
    return memory_.take(name, kind, elements, type);
  }
  Type type_of(Kind kind) const { return types_[static_cast<int>(kind)]; }
  // Of activations that are this rank's part of a sum: in exact mode float32, rounded once, behind the sum.
  Type partial() const { return partial_; }
  void set_types(const Settings&);  // UserError: this device has no kernels for them

  void begin_step();
  // Between the two, kernels are the same in every step, but for those that next_varies() is said before.
  void begin_same() {
    if (graphs_) graphs_->begin();
  }
  void end_same() {
    if (graphs_) graphs_->end();
  }
  void next_varies() {
    if (graphs_) graphs_->leave_out_next();
  }
  void keep_graphs() { graphs_.emplace(*engine_); }  // those that are the same run from graphs
  void note_action(const char* name, int chunk, int microbatch);

  void set_onlooker(Onlooker* onlooker) { onlooker_ = onlooker; }
  void show(int place, i64 first, i64 b, const Buf& x) const {
    if (onlooker_) onlooker_->shows(place, first, b, x.view(), x.elements());
  }

  // Runs one kernel. Views become the pointers the kernel asks for; numbers pass through.
  template <class... P, class... A>
  void run(const Op<P...>& op, const A&... args) {
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
    ++kernels_;
    done_.add(op.name), (add_size(args), ...);
    if (trace_) note_run(op, args...);
    if (!comm_) return;
    if (onlooker_) onlooker_->does();
    const NamedRange range(engine_, op.name);
    const unsigned halves = halves_of(args...);
    if (op.on_host && (on_host(args) || ...))
      halves ? op.mixed_on_host(host_lanes_, halves, convert<P>(args)...)
             : op.on_host(host_lanes_, convert<P>(args)...);
    else if (!graphs_ || graphs_->calls(op.name, halves, convert<P>(args)...))
      halves ? op.mixed(lanes_, halves, convert<P>(args)...) : op.call(lanes_, convert<P>(args)...);
    if (onlooker_) onlooker_->did();
  }

  // Starts a message on the given buffers; fields `in` and `out` are filled in here.
  Request start(Message, const Buf& in, View from, const Buf& out, View to);
  Request start(const Message& m, const Buf& in, const Buf& out) {
    return start(m, in, in.view(), out, out.view());
  }
  void wait(Request&);
  // Start and wait at once, in place.
  void all_reduce(Axis, Reduce, const Buf&, View, i64 n, const char* what, int microbatch);

  // A copy under way between device, host and disk: like a message, a pair. Both ends store elements alike.
  Request start_copy(const Buf& to, View to_at, const Buf& from, View from_at, i64 elements,
                     const char* what);
  void wait_copy(Request&);

  // Between buffers, in memory or on disk, and the program's own memory, at once.
  void upload(View to, const void* from, i64 elements);
  void download(void* to, View from, i64 elements);
  // The same, as part of no step: for those who look on.
  void look(void* to, View from, i64 elements);

 protected:
  void end_action();
  void cut_graph() {
    if (graphs_) graphs_->cut();
  }
  template <class P, class A>
  static P convert(const A& a) {
    if constexpr (std::is_convertible_v<A, View>)
      return static_cast<P>(in_memory(a).at);
    else if constexpr (std::is_null_pointer_v<A>)
      return nullptr;
    else
      return static_cast<P>(a);
  }
  // Bit i: the i-th argument is stored as bf16.
  template <class... A>
  static unsigned halves_of(const A&... args) {
    unsigned halves = 0, bit = 1;
    ((halves |= is_half(args) ? bit : 0, bit <<= 1), ...);
    return halves;
  }
  // Bit i: the kernel writes to the i-th argument that is a view.
  template <class... P, class... A>
  static unsigned writes_of(const A&...) {
    unsigned writes = 0, bit = 1;
    const auto see = [&]<class To, class From>(const To*, const From*) {
      if constexpr (std::is_convertible_v<From, View>) {
        writes |= std::is_pointer_v<To> && !std::is_const_v<std::remove_pointer_t<To>> ? bit : 0;
        bit <<= 1;
      }
    };
    (see(static_cast<const P*>(nullptr), static_cast<const A*>(nullptr)), ...);
    return writes;
  }
  template <class A>
  static bool is_half(const A& a) {
    if constexpr (std::is_convertible_v<A, View>) return View(a).type == Type::bf16;
    return false;
  }
  template <class A>
  static bool on_host(const A& a) {
    if constexpr (std::is_convertible_v<A, View>) return View(a).medium == Medium::host;
    return false;
  }
  static View in_memory(const View& v) {
    if (v.medium == Medium::disk) throw std::logic_error("a buffer on disk can only be copied");
    return v;
  }
  // Where a kernel's operands begin, and of its numbers those that no value decides: a scale is another one
  // in every step.
  template <class A>
  void add_size(const A& a) {
    if constexpr (std::is_integral_v<A>) done_.add(static_cast<i64>(a));
    if constexpr (std::is_convertible_v<A, View>) done_.add(View(a).first);
  }
  template <class... P, class... A>
  void note_run(const Op<P...>& op, const A&... args) {
    Trace::Event e{Trace::Event::run};
    e.name = op.name;
    e.halves = halves_of(args...);
    e.writes = writes_of<P...>(args...);
    (note_arg(e, args), ...);
    trace_->events.push_back(std::move(e));
  }
  template <class A>
  static void note_arg(Trace::Event& e, const A& a) {
    if constexpr (std::is_convertible_v<A, View>) {
      e.views.push_back(in_memory(a));
    } else if constexpr (std::is_arithmetic_v<A>) {
      e.numbers.push_back(static_cast<double>(a));
    }
  }

  const int rank_;
  Fingerprint done_;
  Memory memory_;
  const Disk& disk_;
  std::array<Type, static_cast<int>(Kind::count)> types_{};
  Type partial_ = Type::f32;
  Copies copies_;
  Engine* engine_;
  std::optional<Graphs> graphs_;
  bool acts_ = false;  // within an action's range
  const Ops<float>& ops_;
  Lanes &lanes_, &host_lanes_;
  Comm* comm_;
  Trace* trace_;
  std::vector<Posted> posted_;
  i64 kernels_ = 0, started_copies_ = 0, host_bytes_ = 0;
  int requests_ = 0, requests_before_ = 0;  // the latter: before the step
  Onlooker* onlooker_ = nullptr;
};

}  // namespace lockstep

// What strategies and the executor hold. A test build has another one, which does single calls wrongly.
#ifdef LOCKSTEP_MUTANTS
namespace lockstep {
class MutantDevice;
using Device = MutantDevice;
}  // namespace lockstep
#include "suites/mutants/device.hpp"
#else
namespace lockstep {
using Device = PlainDevice;
}
#endif

namespace lockstep {

// Upload and download of float32 numbers that the view stores as its type says: rounded, and widened exactly.
// Not in a step: they allocate.
void put(Device&, View to, const float* from, i64 n);
void get(Device&, float* to, View from, i64 n);

}  // namespace lockstep
