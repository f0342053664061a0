// Activation offload: between forward and backward, what the stash keeps of a layer waits in host memory or
// in a file (Rajbhandari et al. 2021, ZeRO-Infinity, section 5). It leaves while the next layer computes, and
// comes back while the layer above it computes backward:
//
//   forward    F0 | F1     | F2     |      .  backward   head   | B2     | B1     | B0
//   out           | a0 out | a1 out | a2   .  in         a2 in  | a1 in  | a0 in  |
//
// So the device holds two neighbouring layers of one microbatch at most, whatever is in flight, and the final
// hidden states, which the head needs at once.
#include <algorithm>

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

  // One buffer takes a whole layer's parts, one behind the other: buffers of one size pack without gaps.
  void put(int layer, int j, Saved& saved) override {
    settle();
    Away& away = at(layer, j);
    away.bytes = 0;
    for (int p = 0; p < kParts; ++p) {
      away.parts[p] = {saved.part[p] ? saved.part[p].elements() : 0, saved.part[p].view().type, away.bytes};
      away.bytes += away.parts[p].elements * type_bytes(away.parts[p].type);
    }
    away.all = device_.take("kept activations", rest_, away.bytes / kUnit, unit);
    for (int p = 0; p < kParts; ++p) {
      if (!away.parts[p].elements) continue;
      Buf& part = saved.part[p];
      leaving_[p] = device_.start_copy(away.all, away.view(p), part, part, part.elements(), "activation out");
      part.free();  // the copy holds it until it is done
    }
  }

  void settle() override { arrive(leaving_); }

  void prefetch(int layer, int j, Saved& saved) override {
    Away& away = at(layer, j);
    for (int p = 0; p < kParts; ++p) {
      const auto& [elements, type, first] = away.parts[p];
      if (!elements) continue;
      Buf& part = saved.part[p];
      part = device_.take(part_name(static_cast<Part>(p)), Kind::activations, elements, type);
      coming_[p] = device_.start_copy(part, part, away.all, away.view(p), elements, "activation in");
    }
    away.all.free();
  }

  void bring(int, int, Saved&) override { arrive(coming_); }

 private:
  static constexpr int kParts = static_cast<int>(Part::count);
  using Requests = std::array<Request, kParts>;
  // Parts differ in type, so what holds them is counted in the smallest.
  static constexpr Type unit = Type::bf16;
  static constexpr i64 kUnit = 2;
  struct Away {
    struct PartAway {
      i64 elements;  // 0: not kept
      Type type;
      i64 first;  // byte
    };
    Buf all;
    i64 bytes = 0;
    std::array<PartAway, kParts> parts{};
    View view(int p) const { return all.from(parts[p].first / kUnit).as(parts[p].type); }
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
i64 away(const Shape& s, const KeptElements& k) { return s.activation * k.held; }

// Of the microbatch in hand two layers, and the final hidden state before its head: what comes first is used
// up when the layers begin, unless weight gradients wait. Beside it what others keep.
i64 at_hand(const Shape& s, const KeptElements& k) {
  const i64 others = k.others * k.for_weights;
  const i64 layers = k.in_use + others + (k.split ? k.ends : std::max<i64>(0, k.ends - 1)) * k.end;
  const i64 head = k.ends > 0 ? k.last + others + k.ends * k.end : 0;
  return s.activation * std::max(layers, head);
}

// A chunk's top layer leaves when its forward is over: beside whatever the next one does first. Coming back,
// nothing but the head computes before it.
void work(const Shape& s, const KeptLayer& layer, StepWork& w) {
  const i64 out = layer.top ? layer.into_first : s.m, in = layer.top && !layer.under_head ? 0 : s.m;
  w.copy("activation out", s.m * layer.parts, s.m * layer.bytes, out * layer.parts);
  w.copy("activation in", s.m * layer.parts, s.m * layer.bytes, in * layer.parts);
}

const Word activations = {
    "activations", "device", {"device", "host", "disk"}, "where kept activations wait for backward"};

const Strategy<Shelf> strategy(
    "activation-offload", {activations}, [](const Plan& p) { return asks_for(p, activations); }, {},
    [](const Context& c) -> std::unique_ptr<Shelf> { return std::make_unique<ActivationOffload>(c); },
    {.device = at_hand,
     .host = [](const Shape& s, const KeptElements& k) { return on_disk(s) ? 0 : away(s, k); },
     .disk = [](const Shape& s, const KeptElements& k) { return on_disk(s) ? away(s, k) : 0; },
     .work = work});

}  // namespace
}  // namespace lockstep
