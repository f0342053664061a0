// Offload: AdamW's moments, float32 master weights where the weights are bf16, and with offload=weights the
// weights too, rest in host memory (Ren et al. 2021,
// ZeRO-Offload, section 3) or in a file (Rajbhandari et al. 2021, ZeRO-Infinity, section 5), and the step
// runs on the host. It sits below the store and sees pieces only. What does not rest on the host goes there
// in blocks, three at a time on their way:
//
//   to host   b0 | b1 | b2 | b3 |           gradient; weight that is its own master; with to=disk the state
//   AdamW        | b0 | b1 | b2 | b3
//   back              | b0 | b1 | b2 | b3   weight; with to=disk the state
#include <algorithm>
#include <array>

#include "parallel/roles.hpp"
#include "ref/optimizer.hpp"

namespace lockstep {
namespace {

constexpr i64 kBlock = 64 * 1024;  // elements copied at once
constexpr int kSides = 3;          // blocks on their way

class Offload final : public Home {
 public:
  explicit Offload(const Context& c)
      : device_(c.device),
        settings_(c.settings),
        on_disk_(c.plan.text("to") == "disk"),
        weights_too_(c.plan.text("offload") == "weights"),
        masters_(c.settings.weight_bytes < 4) {}

  Kind rest() const override { return weights_too_ ? below() : Kind::weights; }

  void prepare(const std::vector<Piece>& pieces, const LocalParams&) override {
    i64 all = 0;
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      for (i64 at = 0; at < pieces[p].n; at += kBlock)
        blocks_.push_back({static_cast<int>(p), at, std::min(kBlock, pieces[p].n - at), all + at});
      all += pieces[p].n;
    }
    if (masters_) master_ = device_.take("master weights", below(), all);
    first_ = device_.take("first moments", below(), all);
    second_ = device_.take("second moments", below(), all);
    for (Side& s : sides_) {
      s.gradient = device_.take("gradient block", Kind::host, kBlock);
      if (!weight_on_host())
        s.weight = device_.take("weight block", Kind::host, kBlock, device_.type_of(Kind::weights));
      if (!on_disk_) continue;
      if (masters_) s.master = device_.take("master block", Kind::host, kBlock);
      s.first = device_.take("first moment block", Kind::host, kBlock);
      s.second = device_.take("second moment block", Kind::host, kBlock);
    }
    clear(all);
  }

  void begin(const std::vector<Piece>& pieces) override {
    if (!masters_) return;
    Side& s = sides_[0];
    for (const Block& b : blocks_) {
      const View from = pieces[b.piece].weight.from(b.first);
      if (!weight_on_host()) {
        s.in[0] = device_.start_copy(s.weight, s.weight, {}, from, b.n, "weight to its master");
        arrive(s.in);
      }
      const View master = on_disk_ ? s.master.view() : master_.from(b.state);
      device_.run(device_.ops().copy, master, weight_on_host() ? from : s.weight.view(), b.n);
      if (!on_disk_) continue;
      s.out[0] = device_.start_copy(master_, master_.from(b.state), s.master, s.master, b.n, "first master");
      arrive(s.out);
    }
  }

  void step(const std::vector<Piece>& pieces, const LocalParams& params, i64 step, double clip) override {
    for (std::size_t k = 0; k <= blocks_.size(); ++k) {
      if (k < blocks_.size()) bring(pieces[blocks_[k].piece], blocks_[k], sides_[k % kSides]);
      if (k == 0) continue;
      const Block& b = blocks_[k - 1];
      Side& s = sides_[(k - 1) % kSides];
      const Piece& piece = pieces[b.piece];
      const View weight = weight_on_host() ? piece.weight.from(b.first) : s.weight.view();
      const View master = !masters_ ? weight : on_disk_ ? s.master.view() : master_.from(b.state);
      const View first = on_disk_ ? s.first.view() : first_.from(b.state);
      const View second = on_disk_ ? s.second.view() : second_.from(b.state);
      arrive(s.in);
      device_.run(device_.ops().adamw, master, first, second, s.gradient, b.n, static_cast<float>(clip),
                  adamw_step<float>(settings_, step, params.all[piece.local].decayed));
      if (masters_) device_.run(device_.ops().copy, weight, master, b.n);  // rounds
      send_back(piece, b, s);
    }
    for (Side& s : sides_) arrive(s.out);
  }

  State state(i64 at) const override {
    return {masters_ ? master_.from(at) : View{}, first_.from(at), second_.from(at)};
  }

 private:
  struct Block {
    int piece;
    i64 first, n, state;  // in the piece; elements; in the moments
  };
  struct Side {
    Buf gradient, weight, master, first, second;
    std::array<Request, 5> in;
    std::array<Request, 4> out;
  };

  Kind below() const { return on_disk_ ? Kind::disk : Kind::host; }
  bool weight_on_host() const { return weights_too_ && !on_disk_; }

  void bring(const Piece& piece, const Block& b, Side& s) {
    arrive(s.out);  // of the block that was here before
    s.in[0] =
        device_.start_copy(s.gradient, s.gradient, {}, piece.gradient.from(b.first), b.n, "gradient to host");
    if (!weight_on_host() && !masters_)
      s.in[1] = device_.start_copy(s.weight, s.weight, {}, piece.weight.from(b.first), b.n, "weight to host");
    if (!on_disk_) return;
    if (masters_)
      s.in[4] = device_.start_copy(s.master, s.master, master_, master_.from(b.state), b.n,
                                   "master weight from disk");
    s.in[2] =
        device_.start_copy(s.first, s.first, first_, first_.from(b.state), b.n, "first moment from disk");
    s.in[3] = device_.start_copy(s.second, s.second, second_, second_.from(b.state), b.n,
                                 "second moment from disk");
  }

  void send_back(const Piece& piece, const Block& b, Side& s) {
    if (!weight_on_host())
      s.out[0] = device_.start_copy({}, piece.weight.from(b.first), s.weight, s.weight, b.n, "weight back");
    if (!on_disk_) return;
    if (masters_)
      s.out[3] = device_.start_copy(master_, master_.from(b.state), s.master, s.master, b.n,
                                    "master weight to disk");
    s.out[1] =
        device_.start_copy(first_, first_.from(b.state), s.first, s.first, b.n, "first moment to disk");
    s.out[2] =
        device_.start_copy(second_, second_.from(b.state), s.second, s.second, b.n, "second moment to disk");
  }

  template <std::size_t n>
  void arrive(std::array<Request, n>& requests) {
    for (Request& r : requests)
      if (r) device_.wait_copy(r);
  }

  // The moments of the first step.
  void clear(i64 all) {
    if (!on_disk_) {
      device_.run(device_.ops().zero, first_, all);
      device_.run(device_.ops().zero, second_, all);
      return;
    }
    Side& s = sides_[0];
    device_.run(device_.ops().zero, s.first, kBlock);
    for (const Block& b : blocks_) {
      s.out[1] =
          device_.start_copy(first_, first_.from(b.state), s.first, s.first, b.n, "no first moment yet");
      s.out[2] =
          device_.start_copy(second_, second_.from(b.state), s.first, s.first, b.n, "no second moment yet");
      arrive(s.out);
    }
  }

  Device& device_;
  const Settings& settings_;
  const bool on_disk_, weights_too_, masters_;
  std::vector<Block> blocks_;
  Buf master_, first_, second_;
  std::array<Side, kSides> sides_;
};

// ---- price: two moments and masters at rest, and the blocks on their way; nothing on the device.
bool on_disk(const Shape& s) { return s.plan->text("to") == "disk"; }
bool weights_too(const Shape& s) { return s.plan->text("offload") == "weights"; }
bool masters(const Shape& s) { return s.weight < 4; }
i64 state(const Shape& s) { return masters(s) ? 12 : 8; }  // bytes of an element
// Of an element on its way, in what does not rest on the host: gradient, weight, state.
i64 under_way(const Shape& s) {
  return 4 + (on_disk(s) || !weights_too(s) ? s.weight : 0) + (on_disk(s) ? state(s) : 0);
}

// Of the blocks on their way only the first comes before any step, and only the last goes after all of them.
void work(const Shape& s, const std::vector<i64>& pieces, StepWork& w) {
  i64 n = 0, elements = 0;
  for (const i64 piece : pieces) n += (piece + kBlock - 1) / kBlock, elements += piece;
  w.set_up(StepWork::kZero, on_disk(s) ? 1 : 2, on_disk(s) ? kBlock : 2 * elements);
  w.run("adamw", n, 7 * elements);
  if (masters(s)) w.run("copy", n, 2 * elements);
  const auto move = [&](const char* name, i64 bytes = 4) {
    w.copy(name, n, bytes * elements, std::max<i64>(0, n - 1));
  };
  move("gradient to host");
  for (const char* name : {"no first moment yet", "no second moment yet"})
    if (on_disk(s)) w.copy(name, n, 4 * elements, 0);
  if (on_disk(s) || !weights_too(s)) {
    if (!masters(s)) move("weight to host");
    move("weight back", s.weight);
  }
  if (!on_disk(s)) return;
  if (masters(s)) move("master weight from disk"), move("master weight to disk");
  for (const char* name :
       {"first moment from disk", "second moment from disk", "first moment to disk", "second moment to disk"})
    move(name);
}

const Word offload = {
    "offload",
    "none",
    {"none", "optimizer", "weights"},
    "what rests off the device: optimizer state, updated there, or also weights between their uses"};

const Strategy<Home> strategy(
    "offload", {offload, {"to", "host", {"host", "disk"}, "where offloaded data rests"}},
    [](const Plan& p) { return asks_for(p, offload); }, {},
    [](const Context& c) -> std::unique_ptr<Home> { return std::make_unique<Offload>(c); },
    {.optimizer = [](const Shape&, i64) { return i64{0}; },
     .host =
         [](const Shape& s, i64 updated) {
           return (on_disk(s) ? 0 : state(s) * updated) + under_way(s) * kSides * kBlock;
         },
     .disk = [](const Shape& s, i64 updated) { return on_disk(s) ? state(s) * updated : 0; },
     .rest =
         [](const Shape& s) {
           return !weights_too(s) ? Kind::weights : on_disk(s) ? Kind::disk : Kind::host;
         },
     .work = work});

}  // namespace
}  // namespace lockstep
