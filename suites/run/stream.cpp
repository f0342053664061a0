#include "suites/run/stream.hpp"

#include <fmt/format.h>

#include <mutex>
#include <set>

#include "ref/data_order.hpp"
#include "ref/model.hpp"
#include "suites/run/locate.hpp"

namespace lockstep {
namespace {

// The single device's stream in one step, by place: [B, T, D]. Number: what activations are stored as.
template <class Number>
std::vector<std::vector<float>> stream_in(const Run& run, const Whole& reference, const Weights& initial,
                                          i64 step, const std::string& isa) {
  const Settings& s = run.settings;
  const std::vector<Param> table = parameter_table(run.model, s.leaves);
  const Weights before = step > 0          ? reference.steps[step - 1].weight
                         : initial.empty() ? fresh_weights(run.model, s)
                                           : initial;
  Tensors<Number> weights(table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    for (const float w : before[i]) weights[i].push_back(static_cast<Number>(w));
    if (table[i].tied_to < 0) weights[i].resize(table[i].stored());
  }
  Lanes lanes(1);
  const Ops<float> ops = cpu_ops(isa);
  const Model<Number> model(run.model, s.seq, s.leaves, s.segments, table, weights, ops, lanes);
  std::vector<std::vector<float>> stream(2 * run.model.layers + 1);
  const auto append = [](std::vector<float>& to, const Tensor<Number>& x) {
    to.insert(to.end(), x.begin(), x.end());
  };
  std::vector<i32> tokens(s.seq), labels(s.seq);
  for (i64 b = 0; b < s.batch; ++b) {
    sample(*run.data, s, step, b, tokens.data(), labels.data());
    const Kept<Number> kept = model.forward(tokens.data());
    for (i64 l = 0; l < run.model.layers; ++l) {
      append(stream[2 * l], kept.layers[l].norm1.x);
      append(stream[2 * l + 1], kept.layers[l].norm2.x);
    }
    append(stream.back(), kept.norm.x);
  }
  return stream;
}

std::vector<std::vector<float>> stream_of(const Run& run, const Whole& reference, const Weights& initial,
                                          i64 step, const std::string& isa) {
  return run.settings.activation_bytes == 2 ? stream_in<bf16>(run, reference, initial, step, isa)
                                            : stream_in<float>(run, reference, initial, step, isa);
}

class Follower {
 public:
  Follower(const Prepared& p, std::vector<std::vector<float>> expected)
      : p_(p), expected_(std::move(expected)), seen_(expected_.size()) {}

  // x: [b, Ts, D] of samples from `first` on; Ts < T: the rank's part of the tokens.
  void see(int rank, int place, i64 first, i64 b, const std::vector<float>& found) {
    const i64 elements = static_cast<i64>(found.size());
    const Settings seen = in_segments(p_.run.settings, p_.run.plan);
    const i64 D = p_.run.model.hidden, T = seen.seq, B = p_.run.settings.batch;
    const i64 Ts = elements / (b * D), within = Ts < T ? p_.mesh.tp_of(rank) * Ts : 0;
    const i64 from = first / B * T + within;  // in the sequence
    first %= B;
    const std::lock_guard lock(mutex_);
    bool equal = true;
    for (i64 i = 0; i < b && equal; ++i)
      for (i64 e = 0; e < Ts * D && equal; ++e) {
        const float y = found[i * Ts * D + e];
        const float wanted = expected_[place][((first + i) * p_.run.settings.seq + from) * D + e];
        equal = same(y, wanted);
        if (!equal && seen_[place].differ.empty())
          seen_[place].first = fmt::format("sequence {}, token {}, [{}]: {:.9g} instead of {:.9g}", first + i,
                                           from + e / D, e % D, y, wanted);
      }
    (equal ? seen_[place].agree : seen_[place].differ).insert(rank);
  }

  std::string text() const {
    for (std::size_t place = 0; place < seen_.size(); ++place) {
      const Seen& s = seen_[place];
      if (s.differ.empty()) continue;
      std::string text = fmt::format("the residual stream is wrong from {} on ({})", name(place), s.first);
      const std::vector<int> differ(s.differ.begin(), s.differ.end());
      std::vector<int> agree;
      for (const int rank : s.agree)
        if (!s.differ.count(rank)) agree.push_back(rank);
      if (!agree.empty()) text += which_axis_parts(p_.mesh, agree, differ);
      return text;
    }
    return "the residual stream is right to its end: suspect the final norm, the head or the loss";
  }

 private:
  struct Seen {
    std::set<int> agree, differ;  // ranks, in some microbatch
    std::string first;
  };
  static std::string name(std::size_t place) {
    if (place == 0) return "model.embed_tokens";
    return fmt::format("model.layers.{}.{}", (place - 1) / 2, place % 2 ? "self_attn" : "mlp");
  }

  const Prepared& p_;
  const std::vector<std::vector<float>> expected_;
  std::vector<Seen> seen_;
  std::mutex mutex_;
};

// A rank's.
class Eye final : public Onlooker {
 public:
  Eye(Follower& follower, const RankView& rank) : follower_(follower), rank_(rank) {}
  void shows(int place, i64 first, i64 b, View x, i64 elements) override {
    std::vector<float> found(static_cast<std::size_t>(elements));
    get(rank_.device, found.data(), x, elements);
    follower_.see(rank_.rank, place, first, b, found);
  }

 private:
  Follower& follower_;
  const RankView& rank_;
};

}  // namespace

std::string follow_stream(const Prepared& p, const Launch& how, const Weights& initial,
                          const Whole& reference, i64 step) {
  Follower follower(p, stream_of(p.run, reference, initial, step, how.isa));
  launch(p, how, [&](RankView v) {
    initialise(v, initial);
    for (i64 k = 0; k < step; ++k) v.executor.step(k);
    Eye eye(follower, v);
    v.device.set_onlooker(&eye);
    v.executor.step(step);
  });
  return follower.text();
}

}  // namespace lockstep
