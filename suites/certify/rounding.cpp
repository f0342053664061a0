#include "suites/certify/rounding.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/random.hpp"
#include "ref/trainer.hpp"

namespace lockstep {
namespace {

// "model.layers.3.mlp.up_proj.weight" as of any layer.
std::string kind_of(const std::string& name) {
  std::string kind;
  for (const char c : name) kind += '0' <= c && c <= '9' ? '*' : c;
  while (kind.find("**") != std::string::npos) kind.erase(kind.find("**"), 1);
  return kind;
}

}  // namespace

struct Rounding::Reference {
  virtual ~Reference() = default;
  virtual Whole::Step step(const Weights& before, const i32* tokens, const i32* labels) = 0;
  // Weights of about the last bit up or down: where a step is badly conditioned, that shows it, however well
  // the reference's own rounding came out.
  virtual Weights nudged(Weights weights, i64 way) const = 0;
};

// T: what weights and activations are stored as.
template <class T>
struct Rounding::ReferenceIn final : Reference {
  Lanes lanes;
  Trainer<T> trainer;

  ReferenceIn(const ModelConfig& model, const Settings& settings, int threads)
      : lanes(threads), trainer(model, settings, cpu_ops(), lanes) {}

  Whole::Step step(const Weights& before, const i32* tokens, const i32* labels) override {
    const std::vector<Param>& table = trainer.params();
    trainer.load(before);
    Whole::Step step;
    step.loss = trainer.step(tokens, labels).loss;
    for (std::size_t i = 0; i < table.size(); ++i)
      step.gradient.push_back(table[i].tied_to >= 0 ? std::vector<float>{}
                                                    : trainer.gradient(static_cast<int>(i)));
    return step;
  }

  Weights nudged(Weights weights, i64 way) const override {
    std::uint64_t at = 0;
    for (auto& tensor : weights)
      for (float& w : tensor) w = nudged(w, random_word(static_cast<std::uint64_t>(way), at++) % 16);
    return weights;
  }
  // In bf16, where to be stored is a rounding already, it is an eighth of the weights, to the next number.
  static float nudged(float w, std::uint64_t chance) {
    if constexpr (std::is_same_v<T, float>) return w * (chance % 2 ? 1 + 0x1p-23f : 1 - 0x1p-24f);
    return bf16(w) * (chance == 0 ? 1 + 0x1.04p-8f : chance == 1 ? 1 - 0x1.04p-8f : 1);
  }
};

Along::Along(const Param& p, const std::vector<float>& gradient, const std::vector<double>& float64s) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.count()); ++i)
    product += gradient[i] * float64s[i], square += float64s[i] * float64s[i];
}
Along& Along::operator+=(const Along& other) {
  product += other.product, square += other.square;
  return *this;
}

Rounding::Rounding(const ModelConfig& model, const Settings& settings, int threads)
    : settings_(settings),
      table_(parameter_table(model, settings.leaves)),
      float64_(model, settings, threads) {
  if (settings.activation_bytes == 2)
    reference_ = std::make_unique<ReferenceIn<bf16>>(model, settings, threads);
  else
    reference_ = std::make_unique<ReferenceIn<float>>(model, settings, threads);
  for (const Param& p : table_) kinds_.push_back(kind_of(p.name));
}
Rounding::~Rounding() = default;

const FastReference::Step& Rounding::step(i64 number, const Weights& before, const std::vector<i32>& tokens,
                                          const std::vector<i32>& labels) {
  const Whole::Step rounded = reference_->step(before, tokens.data(), labels.data());
  exact_ = float64_.step(before, tokens.data(), labels.data(), rounded);
  length_.clear();
  for (std::size_t i = 0; i < table_.size(); ++i) length_.push_back(norm(table_[i], exact_.gradient[i]));
  drowned_.assign(table_.size(), false), nothing_but_ = drowned_;
  least_.assign(table_.size(), INFINITY), most_.assign(table_.size(), 0);
  along_.clear();
  learn(rounded);
  for (const i64 way : {2 * number, 2 * number + 1})
    learn(reference_->step(reference_->nudged(before, way), tokens.data(), labels.data()));
  learn_scales();
  return exact_;
}

void Rounding::learn(const Whole::Step& rounded) {
  std::vector<Along>& along = along_.emplace_back(table_.size());
  if (const double off = std::abs(rounded.loss - exact_.loss); off > loss_off_) loss_off_ = off;
  for (std::size_t i = 0; i < table_.size(); ++i) {
    const std::vector<double>& g64 = exact_.gradient[i];
    if (g64.empty()) continue;
    along[i] = Along(table_[i], rounded.gradient[i], g64);
    const double off = distance(table_[i], rounded.gradient[i], g64) / length_[i];
    double& most = off_[kinds_[i]];
    const double length = norm(table_[i], rounded.gradient[i]);
    least_[i] = std::min(least_[i], length), most_[i] = std::max(most_[i], length);
    if (!(off <= 1)) nothing_but_[i] = true;
    if (off > reference_bound(settings_))
      drowned_[i] = true;
    else if (off > most)  // which NaN is not
      most = off;
  }
}

// To be called after the step's last learn(): only then is it known what is drowned.
void Rounding::learn_scales() {
  for (const std::vector<Along>& along : along_) {
    Along all;
    for (std::size_t i = 0; i < along.size(); ++i) {
      if (drowned_[i] || !(along[i].square > 0)) continue;
      const double off = std::abs(along[i].scale() - 1);
      double& most = scale_off_[kinds_[i]];
      most = std::max(most, off);
      scale_squares_ += off * off, ++scales_;
      all += along[i];
    }
    if (all.square > 0) common_off_ = std::max(common_off_, std::abs(all.scale() - 1));
  }
}

double Rounding::mean_scale_off() const { return scales_ > 0 ? std::sqrt(scale_squares_ / scales_) : 0; }

double Rounding::scale_allowed(std::size_t param) const {
  const auto off = scale_off_.find(kinds_[param]);
  return kFastMultiple * std::max(off == scale_off_.end() ? 0 : off->second, 2 * mean_scale_off()) +
         fast_floor(settings_);
}

double Rounding::common_scale_allowed() const {
  return std::max(kFastMultiple * common_off_, 2 * mean_scale_off()) + fast_floor(settings_);
}

double Rounding::loss_allowed() const {
  const double floor = settings_.activation_bytes == 2 ? 0x1p-8 : kFastFloor;
  return kFastMultiple * loss_off_ + floor * std::abs(exact_.loss);
}

std::pair<double, double> Rounding::lengths(std::size_t param) const {
  if (nothing_but_[param]) return {0, INFINITY};
  return {least_[param] / kFastMultiple, most_[param] * kFastMultiple};
}

double Rounding::allowed(std::size_t param) const { return part_allowed(param) * length_[param]; }

double Rounding::part_allowed(std::size_t param) const {
  const auto off = off_.find(kinds_[param]);
  return kFastMultiple * (off == off_.end() ? 0 : off->second) + fast_floor(settings_);
}

}  // namespace lockstep
