#include "suites/run/reference.hpp"

#include <algorithm>
#include <thread>

#include "kernels/cores.hpp"
#include "ref/trainer.hpp"

namespace lockstep {

Weights fresh_weights(const ModelConfig& model, const Settings& settings) {
  Lanes lanes(cores());
  Weights weights;
  for (const Param& p : parameter_table(model, settings.leaves)) {
    weights.emplace_back(p.tied_to >= 0 ? 0 : static_cast<std::size_t>(p.count()));
    if (p.tied_to >= 0) continue;
    lanes.split(p.rows, 1, [&](i64 begin, i64 end, int) {
      for (i64 row = begin; row < end; ++row)
        initial_values(model, p, settings.seed, row, 0, p.cols, weights.back().data() + row * p.cols);
    });
  }
  return as_stored(std::move(weights), settings);
}

Weights as_stored(Weights weights, const Settings& settings) {
  if (settings.weight_bytes == 2)
    for (auto& tensor : weights)
      for (float& x : tensor) x = bf16(x);
  return weights;
}

void initialise(const RankView& v, const Weights& weights, int threads) {
  const auto whole = [&](const Param& p) -> const float* {
    const std::size_t i = p.tied_to >= 0 ? p.tied_to : &p - v.executor.params().table.data();
    return i < weights.size() && !weights[i].empty() ? weights[i].data() : nullptr;
  };
  v.executor.initialise(whole, threads);
}

struct Reference::Training {
  virtual ~Training() = default;
  virtual const std::vector<Param>& table() const = 0;
  virtual Whole::Step step() = 0;
};

namespace {

// T: what weights and activations are stored as.
template <class T>
class TrainingIn final : public Reference::Training {
 public:
  TrainingIn(const ModelConfig& model, const Settings& s, const TokenFile& data, const std::string& isa,
             int threads, const Weights& initial)
      : settings_(s),
        data_(data),
        lanes_(threads),
        trainer_(model, s, cpu_ops(isa), lanes_),
        tokens_(static_cast<std::size_t>(s.batch * s.seq)),
        labels_(tokens_.size()) {
    if (initial.empty()) trainer_.initialise();
    trainer_.load(initial);
  }

  const std::vector<Param>& table() const override { return trainer_.params(); }

  Whole::Step step() override {
    const i64 k = trainer_.steps_done(), seq = settings_.seq;
    for (i64 i = 0; i < settings_.batch; ++i)
      sample(data_, settings_, k, i, &tokens_[i * seq], &labels_[i * seq]);
    const auto result = trainer_.step(tokens_.data(), labels_.data());
    Whole::Step step;
    step.loss = result.loss, step.grad_norm = result.grad_norm;
    for (int i = 0; i < static_cast<int>(table().size()); ++i) {
      step.gradient.emplace_back(), step.weight.emplace_back();
      if (table()[i].tied_to >= 0) continue;
      step.gradient.back() = trainer_.gradient(i);
      step.weight.back().assign(trainer_.weight(i).begin(), trainer_.weight(i).end());
    }
    return step;
  }

 private:
  const Settings settings_;
  const TokenFile& data_;
  Lanes lanes_;
  Trainer<T> trainer_;
  std::vector<i32> tokens_, labels_;  // [B, T]
};

}  // namespace

Reference::Reference(const ModelConfig& model, const Settings& settings, const TokenFile& data,
                     const std::string& isa, int threads, const Weights& initial) {
  if (settings.activation_bytes == 2)
    training_ = std::make_unique<TrainingIn<bf16>>(model, settings, data, isa, threads, initial);
  else
    training_ = std::make_unique<TrainingIn<float>>(model, settings, data, isa, threads, initial);
}
Reference::~Reference() = default;

const std::vector<Param>& Reference::table() const { return training_->table(); }
Whole::Step Reference::step() { return training_->step(); }

Whole reference_run(const ModelConfig& model, const Settings& settings, const TokenFile& data,
                    const std::string& isa, int threads, const Weights& initial,
                    const std::function<void(double)>& share) {
  Reference reference(model, settings, data, isa, threads, initial);
  Whole whole;
  whole.table = reference.table();
  for (i64 k = 0; k < settings.steps; ++k) {
    whole.steps.push_back(reference.step());
    if (share) share(static_cast<double>(k + 1) / static_cast<double>(settings.steps));
  }
  return whole;
}

}  // namespace lockstep
