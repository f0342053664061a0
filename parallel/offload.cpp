// Optimizer offload (Ren et al. 2021, ZeRO-Offload, section 3): AdamW's moments live in host memory and the
// step runs there. Blocks of gradient and weight are copied to the host, updated, and the weights copied
// back; the next block's copy is under way while this one is updated. It sits below the store and sees pieces
// only.
#include <algorithm>

#include "parallel/roles.hpp"
#include "ref/optimizer.hpp"

namespace lockstep {
namespace {

constexpr i64 kBlock = 64 * 1024;  // elements copied at once

class Offload final : public Home {
 public:
  explicit Offload(const Context& c) : device_(c.device), settings_(c.settings) {}

  void prepare(const std::vector<Piece>& pieces, const LocalParams&) override {
    i64 all = 0;
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      for (i64 at = 0; at < pieces[p].n; at += kBlock)
        blocks_.push_back({static_cast<int>(p), at, std::min(kBlock, pieces[p].n - at), all + at});
      all += pieces[p].n;
    }
    first_ = device_.take("first moments", Kind::host, all);
    second_ = device_.take("second moments", Kind::host, all);
    device_.run(device_.ops().zero, first_, all);
    device_.run(device_.ops().zero, second_, all);
    for (Side& s : sides_) {
      s.gradient = device_.take("gradient block", Kind::host, kBlock);
      s.weight = device_.take("weight block", Kind::host, kBlock);
    }
  }

  void step(const std::vector<Piece>& pieces, const LocalParams& params, i64 step, double scale) override {
    for (std::size_t k = 0; k <= blocks_.size(); ++k) {
      if (k < blocks_.size()) bring(pieces, k);
      if (k == 0) continue;
      const Block& b = blocks_[k - 1];
      const Piece& piece = pieces[b.piece];
      Side& s = sides_[(k - 1) % 2];
      device_.wait_copy(s.gradient_in), device_.wait_copy(s.weight_in);
      device_.run(device_.ops().scale, s.gradient, static_cast<float>(scale), b.n);
      device_.run(device_.ops().adamw, s.weight, first_.from(b.state), second_.from(b.state), s.gradient, b.n,
                  adamw_step<float>(settings_, step, params.all[piece.local].decayed));
      s.weight_out = device_.start_copy({}, piece.weight.from(b.first), s.weight, s.weight, b.n,
                                        "copy weights to device");
    }
    for (Side& s : sides_)
      if (s.weight_out) device_.wait_copy(s.weight_out);
  }

 private:
  struct Block {
    int piece;
    i64 first, n, state;  // in the piece; elements; in the moments
  };
  struct Side {  // two, used in turn
    Buf gradient, weight;
    Request gradient_in, weight_in, weight_out;
  };
  void bring(const std::vector<Piece>& pieces, std::size_t k) {
    const Block& b = blocks_[k];
    const Piece& piece = pieces[b.piece];
    Side& s = sides_[k % 2];
    if (s.weight_out) device_.wait_copy(s.weight_out);
    s.gradient_in = device_.start_copy(s.gradient, s.gradient, {}, piece.gradient.from(b.first), b.n,
                                       "copy gradient to host");
    s.weight_in =
        device_.start_copy(s.weight, s.weight, {}, piece.weight.from(b.first), b.n, "copy weights to host");
  }

  Device& device_;
  const Settings& settings_;
  std::vector<Block> blocks_;
  Buf first_, second_;
  Side sides_[2];
};

// ---- price: two moments on the host and four blocks; nothing on the device.
const Strategy<Home> strategy(
    "offload", {{"offload", "none", {"none", "optimizer"}, "optimizer state and step on the host"}},
    [](const Plan& p) { return p.text("offload") == "optimizer"; }, {},
    [](const Context& c) -> std::unique_ptr<Home> { return std::make_unique<Offload>(c); },
    {.optimizer = [](const Shape&, i64) { return i64{0}; },
     .host = [](const Shape&, i64 updated) { return 8 * updated + 4 * 4 * kBlock; }});

}  // namespace
}  // namespace lockstep
