#include "suites/run/whole.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>

namespace lockstep {
bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0); }
bool same(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0); }

struct RunHash::State {
  XXH3_state_t* hash = XXH3_createState();
  std::vector<float> plain;
  ~State() { XXH3_freeState(hash); }

  static constexpr std::size_t kBlock = 512;  // a constant count: the compiler vectorises it
  [[gnu::always_inline]] static void without_sign_of_zero(float* to, const float* from, std::size_t n) {
#pragma GCC ivdep  // they are apart
    for (std::size_t i = 0; i < n; ++i) to[i] = from[i] == 0 ? 0.f : from[i];
  }
  void tensor(const Param& p, const std::vector<float>& values) {
    plain.resize(std::min<std::size_t>(values.size(), p.count()));
    std::size_t i = 0;
    for (; i + kBlock <= plain.size(); i += kBlock) without_sign_of_zero(&plain[i], &values[i], kBlock);
    without_sign_of_zero(plain.data() + i, values.data() + i, plain.size() - i);
    XXH3_128bits_update(hash, plain.data(), plain.size() * sizeof(float));
  }
};

RunHash::RunHash() : state_(new State) { XXH3_128bits_reset(state_->hash); }
RunHash::~RunHash() = default;

void RunHash::add(const std::vector<Param>& table, const Whole::Step& s) {
  const double scalars[] = {s.loss == 0 ? 0.0 : s.loss, s.grad_norm == 0 ? 0.0 : s.grad_norm};
  XXH3_128bits_update(state_->hash, scalars, sizeof scalars);
  for (std::size_t i = 0; i < table.size(); ++i)
    state_->tensor(table[i], s.gradient[i]), state_->tensor(table[i], s.weight[i]);
}

std::string RunHash::text() const {
  const XXH128_hash_t h = XXH3_128bits_digest(state_->hash);
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

std::string Whole::hash() const {
  RunHash hash;
  for (const Step& s : steps) hash.add(table, s);
  return hash.text();
}

std::string Difference::text() const {
  std::string at = row < 0 ? "" : fmt::format(" at [{}, {}]", row, col);
  return fmt::format("step {}: {}{}: {:.9g} instead of {:.9g}", step, what, at, found, expected);
}

namespace {

std::optional<Difference> first_difference(const Param& p, const std::string& what, i64 step,
                                           const std::vector<float>& expected,
                                           const std::vector<float>& found) {
  // Nearly always they have the same bits.
  if (expected.size() != found.size()) throw std::logic_error("tensors of two sizes are compared: " + p.name);
  if (expected.empty() || std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float)) == 0)
    return {};
  for (std::size_t e = 0; e < expected.size(); ++e)
    if (!same(expected[e], found[e]))
      return Difference{
          step,        what + p.name, static_cast<i64>(e) / p.cols, static_cast<i64>(e) % p.cols,
          expected[e], found[e]};
  return {};
}

}  // namespace

std::optional<Difference> first_difference(const Whole& a, const Whole& b) {
  if (b.steps.empty() || b.steps.size() > a.steps.size())
    throw std::logic_error("a run of no steps, or of more than there are, is compared");
  for (std::size_t k = 0; k < b.steps.size(); ++k) {
    const Whole::Step &x = a.steps[k], &y = b.steps[k];
    const i64 step = static_cast<i64>(k);
    if (!same(x.loss, y.loss)) return Difference{step, "loss", -1, -1, x.loss, y.loss};
    for (std::size_t i = a.table.size(); i-- > 0;)  // backward
      if (auto d = first_difference(a.table[i], "gradient of ", step, x.gradient[i], y.gradient[i])) return d;
    if (!same(x.grad_norm, y.grad_norm))
      return Difference{step, "gradient norm", -1, -1, x.grad_norm, y.grad_norm};
    for (std::size_t i = 0; i < a.table.size(); ++i)
      if (auto d = first_difference(a.table[i], "weight of ", step, x.weight[i], y.weight[i])) return d;
  }
  return {};
}

std::string vacuous(const Whole::Step& s, i64 k) {
  if (std::isfinite(s.loss) && std::isfinite(s.grad_norm)) return {};
  return fmt::format("step {} has the loss {} and the gradient norm {}", k, s.loss, s.grad_norm);
}

std::string vacuous(const Whole& w, const Settings& settings) {
  bool clipped = false;
  for (std::size_t k = 0; k < w.steps.size(); ++k) {
    const Whole::Step& s = w.steps[k];
    if (std::string why = vacuous(s, static_cast<i64>(k)); !why.empty()) return why;
    clipped |= s.grad_norm > settings.clip;
    for (std::size_t i = 0; i < w.table.size(); ++i) {
      bool any = s.gradient[i].empty();
      for (const float g : s.gradient[i]) any |= g != 0;
      if (!any) return fmt::format("step {}: the gradient of {} is all zero", k, w.table[i].name);
    }
  }
  for (std::size_t i = 0; w.steps.size() > 1 && i < w.table.size(); ++i)
    if (!w.steps[0].weight[i].empty() && w.steps.front().weight[i] == w.steps.back().weight[i])
      return fmt::format("the weights of {} do not change", w.table[i].name);
  if (w.steps.size() > 1 && !(w.steps.back().loss < w.steps.front().loss))
    return fmt::format(
        "the loss does not fall: {} to {}; more steps, a larger lr or a shorter warmup make it fall",
        w.steps.front().loss, w.steps.back().loss);
  if (!clipped) return fmt::format("clipping at {} never acted", settings.clip);
  return {};
}

}  // namespace lockstep
