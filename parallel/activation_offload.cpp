// Activation offload: between forward and backward, what the stash keeps of a layer waits in host memory or
// in a file (Rajbhandari et al. 2021, ZeRO-Infinity, section 5; Ren et al. 2021, ZeRO-Offload, keeps the
// optimizer there). A layer's activations leave while the next one computes, and come back while the one
// after it computes backward:
//
//   forward    F0 | F1     | F2     |      .  backward   head   | B2     | B1     | B0
//   out           | a0 out | a1 out | a2   .  in         a2 in  | a1 in  | a0 in  |
//
// So the device holds two neighbouring layers of one microbatch at most, whatever is in flight, and the final
// hidden states, which the head needs at once.
#include "parallel/roles.hpp"

namespace lockstep {
namespace {

class ActivationOffload final : public Shelf {
 public:
  explicit ActivationOffload(const Context& c)
      : device_(c.device),
        rest_(c.plan.text("activations") == "disk" ? Kind::disk : Kind::host),
        layers_(c.model.layers),
        away_(layers_ * (c.settings.batch / c.mesh.dp / c.plan.number("micro"))) {}

  // One buffer takes a whole layer's parts, one behind the other: pieces of one size pack without gaps.
  void put(int layer, int j, Saved& saved) override {
    settle();
    Away& away = at(layer, j);
    i64 all = 0;
    for (int p = 0; p < kParts; ++p) all += away.elements[p] = saved.part[p] ? saved.part[p].elements() : 0;
    away.parts = device_.take("kept activations", rest_, all);
    i64 first = 0;
    for (int p = 0; p < kParts; ++p) {
      if (!away.elements[p]) continue;
      Buf& part = saved.part[p];
      leaving_[p] = device_.start_copy(away.parts, away.parts.from(first), part, part, away.elements[p],
                                       "activation out");
      part.free();  // the copy holds it until it is done
      first += away.elements[p];
    }
  }

  void settle() override { arrive(leaving_); }

  void prefetch(int layer, int j, Saved& saved) override {
    Away& away = at(layer, j);
    i64 first = 0;
    for (int p = 0; p < kParts; ++p) {
      if (!away.elements[p]) continue;
      Buf& part = saved.part[p];
      part = device_.take(part_name(static_cast<Part>(p)), Kind::activations, away.elements[p]);
      coming_[p] = device_.start_copy(part, part, away.parts, away.parts.from(first), away.elements[p],
                                      "activation in");
      first += away.elements[p];
    }
    away.parts.free();
  }

  void bring(int, int, Saved&) override { arrive(coming_); }

 private:
  static constexpr int kParts = static_cast<int>(Part::count);
  using Requests = std::array<Request, kParts>;
  struct Away {
    Buf parts;
    std::array<i64, kParts> elements{};  // of each part; 0: not kept
  };

  Away& at(int layer, int j) { return away_[j * layers_ + layer]; }
  void arrive(Requests& requests) {
    for (Request& r : requests)
      if (r) device_.wait_copy(r);
  }

  Device& device_;
  const Kind rest_;
  const i64 layers_;
  std::vector<Away> away_;     // by microbatch and layer
  Requests leaving_, coming_;  // of one layer each
};

// ---- price
bool on_disk(const Shape& s) { return s.plan->text("activations") == "disk"; }
i64 away(const Waiting& w) { return 4 * w.in_flight * w.chunk; }

const Strategy<Shelf> strategy(
    "activation-offload",
    {{"activations", "device", {"device", "host", "disk"}, "where kept activations wait for backward"}},
    [](const Plan& p) { return p.text("activations") != "device"; }, {},
    [](const Context& c) -> std::unique_ptr<Shelf> { return std::make_unique<ActivationOffload>(c); },
    {.device =
         [](const Shape&, const Waiting& w) {
           // Between two layers one final hidden state is used up or not yet made; at the head it is there.
           const i64 between = w.pair + std::max<i64>(0, w.ends - 1) * w.end;
           return 4 * std::max(between, w.ends > 0 ? w.ends * w.end + w.last : 0);
         },
     .host = [](const Shape& s, const Waiting& w) { return on_disk(s) ? 0 : away(w); },
     .disk = [](const Shape& s, const Waiting& w) { return on_disk(s) ? away(w) : 0; }});

}  // namespace
}  // namespace lockstep
