// An accelerator that is not there: its memory lies at addresses that fault when touched, and its kernels,
// which know where it really is, run here.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <functional>

#include "kernels/cuda/table.hpp"
#include "parallel/device/engine.hpp"

namespace lockstep::far {

// Device memory is handed out this far from where it is: nothing lies there.
constexpr std::uintptr_t kAway = std::uintptr_t{1} << 62;

template <class A>
A real(A a) {
  if constexpr (std::is_pointer_v<A>)
    return reinterpret_cast<A>(reinterpret_cast<std::uintptr_t>(a) ^ (a ? kAway : 0));
  return a;
}
inline const Ops<float>& kernels() {
  static const Ops<float> ops = cpu_ops("auto");
  return ops;
}
// What an engine was seen to do.
struct Seen {
  std::vector<std::string> ranges;
  int graphs = 0, graph_runs = 0;
  int mixed = 0;  // kernels called with operands in bf16
  int downloads = 0;
};

// What is called while a graph is kept runs when that graph does.
struct FarLanes final : Lanes {
  explicit FarLanes(Seen* seen_) : Lanes(1), seen(seen_) {}
  using Graph = std::vector<std::function<void()>>;
  Graph* keeping = nullptr;
  Seen* const seen;
};
inline void run_or_keep(Lanes& lanes, const std::function<void()>& run) {
  if (FarLanes::Graph* graph = static_cast<FarLanes&>(lanes).keeping)
    graph->push_back(run);
  else
    run();
}
template <auto entry, class... A>
void set(Op<A...>& op) {
  op.on_host = op.call, op.mixed_on_host = op.mixed;
  op.call = [](Lanes& lanes, A... a) {
    run_or_keep(lanes, [&lanes, a...] { (kernels().*entry)(lanes, real(a)...); });
  };
  op.mixed = [](Lanes& lanes, unsigned halves, A... a) {
    if (Seen* seen = static_cast<FarLanes&>(lanes).seen) ++seen->mixed;
    run_or_keep(lanes, [&lanes, halves, a...] { (kernels().*entry).mixed(lanes, halves, real(a)...); });
  };
}

class FarEngine : public Engine {
 public:
  FarEngine(const Ops<float>& host, Seen* seen, bool repeats = true)
      : ops_(host), seen_(seen), repeats_(repeats), lanes_(seen) {
    using T = Ops<float>;
    set<&T::matmul>(ops_.matmul), set<&T::matmul_dx>(ops_.matmul_dx), set<&T::matmul_dw>(ops_.matmul_dw);
    set<&T::embed>(ops_.embed), set<&T::embed_dw>(ops_.embed_dw), set<&T::rms_norm>(ops_.rms_norm);
    set<&T::rms_norm_dx>(ops_.rms_norm_dx), set<&T::rms_norm_dw>(ops_.rms_norm_dw), set<&T::rope>(ops_.rope);
    set<&T::attention>(ops_.attention), set<&T::attention_dx>(ops_.attention_dx);
    set<&T::swiglu>(ops_.swiglu), set<&T::swiglu_dx>(ops_.swiglu_dx), set<&T::ce_max>(ops_.ce_max);
    set<&T::ce_sum>(ops_.ce_sum), set<&T::ce_loss>(ops_.ce_loss), set<&T::ce_dx>(ops_.ce_dx);
    set<&T::add>(ops_.add), set<&T::copy>(ops_.copy), set<&T::zero>(ops_.zero);
    set<&T::add_squares>(ops_.add_squares), set<&T::adamw>(ops_.adamw), set<&T::swap_axes>(ops_.swap_axes);
    set<&T::repeat_rows>(ops_.repeat_rows), set<&T::sum_rows>(ops_.sum_rows);
  }
  const Ops<float>& ops() const override { return ops_; }
  Lanes& lanes() override { return lanes_; }
  bool repeats() const override { return repeats_; }
  void* allocate(Medium medium, i64 bytes) override {
    blocks_.emplace_back(static_cast<std::size_t>(bytes / 8 + 1), std::nan(""));
    return medium == Medium::device ? real(static_cast<void*>(blocks_.back().data())) : blocks_.back().data();
  }
  bool holds(const void* at) const override { return reinterpret_cast<std::uintptr_t>(at) & kAway; }
  void upload(void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    std::memcpy(real(to), from, static_cast<std::size_t>(bytes));
  }
  void download(void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    if (seen_) ++seen_->downloads;
    std::memcpy(to, real(from), static_cast<std::size_t>(bytes));
  }
  // As late as it may be.
  void begin_copy(int slot, void* to, const void* from, i64 bytes) override {
    EXPECT_FALSE(lanes_.keeping);
    under_way_[slot] = {near(to), near(const_cast<void*>(from)), static_cast<std::size_t>(bytes)};
    std::memset(near(to), 0xff, static_cast<std::size_t>(bytes));
  }
  void end_copy(int slot) override {
    EXPECT_FALSE(lanes_.keeping);
    std::memcpy(under_way_[slot].to, under_way_[slot].from, under_way_[slot].bytes);
  }
  void begin_graph() override { lanes_.keeping = &kept_; }
  void end_graph() override {
    lanes_.keeping = nullptr;
    EXPECT_FALSE(kept_.empty());
    if (seen_) ++seen_->graphs;
    graphs_.push_back(std::move(kept_));
    kept_.clear();
  }
  void run_graph(int graph) override {
    if (seen_) ++seen_->graph_runs;
    for (const auto& kernel : graphs_.at(static_cast<std::size_t>(graph))) kernel();
  }

  void enter(const char* name) override {
    if (seen_) seen_->ranges.push_back(std::string(2 * depth_++, ' ') + name);
  }
  void leave() override {
    if (!seen_) return;
    ASSERT_GT(depth_, 0u);
    --depth_;
  }

 private:
  struct Copy {
    void *to, *from;
    std::size_t bytes;
  };
  void* near(void* at) const { return holds(at) ? real(at) : at; }
  Ops<float> ops_;
  Seen* const seen_;
  const bool repeats_;
  std::size_t depth_ = 0;
  FarLanes lanes_;
  FarLanes::Graph kept_;
  std::vector<FarLanes::Graph> graphs_;
  std::deque<std::vector<double>> blocks_;
  std::array<Copy, kCopies> under_way_;
};

class Far : public Accelerator {
 public:
  std::string name() const override { return "far"; }
  int devices() const override { return 2; }
  i64 free_bytes() const override { return free; }
  std::unique_ptr<Engine> engine(int rank, const Ops<float>& host, bool) override {
    return std::make_unique<FarEngine>(host, rank == 0 ? &seen : nullptr, repeats);
  }
  Seen seen;  // of rank 0
  bool repeats = true;
  i64 free = i64{1} << 30;
};

}  // namespace lockstep::far
