#include "suites/certify/adamw_variants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "suites/gates/fast.hpp"

namespace lockstep {
namespace {

// Two roundings of a weight to the next one: what a trainer may add to this program's own, where that happens
// to come out even, as a norm's weights do, which are all 1 at first.
constexpr double kWeightFloor = 0x1p-23;

double part_of(double error, double allowed) {
  return error == 0 ? 0 : std::isnan(error) ? INFINITY : error / allowed;
}

}  // namespace

AdamWVariants::AdamWVariants(const std::vector<Param>& table, const Settings& settings, bool clips)
    : table_(table),
      settings_(settings),
      first64_(table.size()),
      second64_(table.size()),
      first32_(table.size()),
      second32_(table.size()) {
  const auto add = [&](const std::string& name) -> Variant& {
    Variant v;
    v.name = name, v.settings = settings;
    variants_.push_back(std::move(v));
    return variants_.back();
  };
  if (settings.weight_decay > 0) {
    add("no weight decay").decay = Decay::none;
    add("decay of norms too").decay = Decay::all;
    add("no decay of the embedding").decay = Decay::but_embedding;
    Variant& coupled = add("decay added to the gradient (Adam, not AdamW)");
    coupled.decay = Decay::in_gradient, coupled.own_moments = true;
  }
  if (clips) {
    Variant& whole = add("no clipping");
    whole.settings.clip = 1e30, whole.own_moments = true;
  }
  const double beta1 = settings.beta1 < 0.93 ? 0.95 : 0.9, beta2 = settings.beta2 < 0.98 ? 0.999 : 0.95;
  Variant& slower = add(fmt::format("beta1 = {}", beta1));
  slower.settings.beta1 = beta1, slower.own_moments = true;
  Variant& longer = add(fmt::format("beta2 = {}", beta2));
  longer.settings.beta2 = beta2, longer.own_moments = true;
  add("no bias correction").corrects_bias = false;
  add("eps added before the bias is corrected").corrects_eps = true;
  Variant& rounded = add("moments in bf16");
  rounded.bf16_moments = true, rounded.own_moments = true;
  add("the learning rate of the step before").rate = -1;
  add("the learning rate of the step after").rate = 1;
  for (Variant& v : variants_) v.first.resize(table.size()), v.second.resize(table.size());
}

void AdamWVariants::begin(i64 step, const Rates& rates, double norm, double loose) {
  step_ = step, rates_ = rates, norm_ = norm;
  loose_ = std::max(loose_, clip_scale(settings_, norm) < 1 ? loose : 0);  // moments remember it
  settings_.lr = rates.here;
  for (Variant& v : variants_) {
    const std::optional<double> rate = v.rate == 0 ? rates.here : v.rate < 0 ? rates.before : rates.after;
    v.settings.lr = rate.value_or(rates.here);
    v.applies = v.rate == 0 || (rate && *rate != rates.here);
    v.off = 0;
  }
}

// first, second: AdamW's own moments after this step.
std::vector<double> AdamWVariants::weights_by(Variant& v, int param, const std::vector<float>& before,
                                              const std::vector<float>& gradient,
                                              const std::vector<double>& first,
                                              const std::vector<double>& second) {
  const Param& p = table_[param];
  const bool decays =
      v.decay == Decay::all || (p.decayed && v.decay != Decay::none && v.decay != Decay::in_gradient &&
                                !(v.decay == Decay::but_embedding && p.unit == 0));
  AdamWStep<double> s = adamw_step<double>(v.settings, step_, decays);
  if (!v.corrects_bias) s.root_bias2 = 1, s.rate = v.settings.lr;
  if (v.corrects_eps) s.eps /= s.root_bias2;
  const double clip = clip_scale(v.settings, norm_);
  const double coupled = v.decay == Decay::in_gradient && p.decayed ? v.settings.weight_decay : 0;
  std::vector<float>&m = v.first[param], &n = v.second[param];
  if (v.own_moments) m.resize(before.size()), n.resize(before.size());
  std::vector<double> w(before.begin(), before.end());
  for (std::size_t i = 0; i < w.size(); ++i) {
    double mean = first[i], square = second[i];
    if (v.own_moments) {
      const double g = clip * gradient[i] + coupled * before[i];
      mean = s.b1 * m[i] + s.c1 * g, square = s.b2 * n[i] + s.c2 * g * g;
      m[i] = static_cast<float>(mean), n[i] = static_cast<float>(square);
      if (v.bf16_moments) mean = m[i] = bf16(m[i]), square = n[i] = bf16(n[i]);
    }
    w[i] = w[i] * s.keep - s.rate * (mean / (std::sqrt(square) / s.root_bias2 + s.eps));
  }
  return w;
}

AdamWVariants::After AdamWVariants::follow(int param, const std::vector<float>& before,
                                           const std::vector<float>& gradient,
                                           const std::vector<float>& after) {
  const Param& p = table_[param];
  const i64 n = static_cast<i64>(before.size());
  After result{{before.begin(), before.end()}, 0};
  std::vector<double>& w64 = result.weight;
  std::vector<float> w32 = before;
  const std::vector<double> g64(gradient.begin(), gradient.end()), w(before.begin(), before.end());
  for (auto* moments : {&first64_, &second64_}) (*moments)[param].resize(before.size());
  for (auto* moments : {&first32_, &second32_}) (*moments)[param].resize(before.size());
  const double clip = clip_scale(settings_, norm_);
  ops64_.adamw(lanes_, w64.data(), first64_[param].data(), second64_[param].data(), g64.data(), n, clip,
               adamw_step<double>(settings_, step_, p.decayed));
  ops32_.adamw(lanes_, w32.data(), first32_[param].data(), second32_[param].data(), gradient.data(), n,
               static_cast<float>(clip), adamw_step<float>(settings_, step_, p.decayed));
  result.allowed = kFastMultiple * distance(p, w32, w64) + (kFastFloor + 2 * loose_) * distance(p, w, w64) +
                   kWeightFloor * norm(p, w64);
  for (Variant& v : variants_) {
    if (!v.applies) continue;
    const std::vector<double> other =
        weights_by(v, param, before, gradient, first64_[param], second64_[param]);
    v.told = std::max(v.told, part_of(distance(p, other, w64), result.allowed));
    v.off = std::max(v.off, part_of(distance(p, after, other), result.allowed));
  }
  return result;
}

std::string AdamWVariants::made_by() const {
  const Variant* nearest = nullptr;
  for (const Variant& v : variants_)
    if (v.applies && v.off <= 1 && (!nearest || v.off < nearest->off)) nearest = &v;
  return nearest ? nearest->name : "";
}

std::vector<std::string> AdamWVariants::untold() const {
  std::vector<std::string> names;
  for (const Variant& v : variants_)
    if (v.told < 2 && (v.rate == 0 || v.told > 0)) names.push_back(v.name);
  return names;
}

}  // namespace lockstep
