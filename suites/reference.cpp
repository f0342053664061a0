#include "suites/reference.hpp"

#include "ref/trainer.hpp"

namespace lockstep {

Weights fresh_weights(const ModelConfig& model, const Settings& settings) {
  Weights weights;
  for (const Param& p : parameter_table(model, settings.leaves)) {
    weights.emplace_back();
    if (p.tied_to >= 0) continue;
    weights.back().reserve(static_cast<std::size_t>(p.count()));
    for (i64 row = 0; row < p.rows; ++row)
      for (i64 col = 0; col < p.cols; ++col)
        weights.back().push_back(initial_value(model, p, settings.seed, row, col));
  }
  return weights;
}

void initialise(const RankView& v, const Weights& weights) {
  v.executor.initialise([&](const Param& p) -> const float* {
    const std::size_t i = p.tied_to >= 0 ? p.tied_to : &p - v.executor.params().table.data();
    return i < weights.size() && !weights[i].empty() ? weights[i].data() : nullptr;
  });
}

struct Reference::Training {
  const Settings settings;
  const TokenFile& data;
  Lanes lanes;
  Trainer<float> trainer;
  std::vector<i32> tokens, labels;  // [B, T]

  Training(const ModelConfig& model, const Settings& s, const TokenFile& d, const std::string& isa,
           int threads)
      : settings(s),
        data(d),
        lanes(threads),
        trainer(model, s, cpu_ops(isa), lanes),
        tokens(static_cast<std::size_t>(s.batch * s.seq)),
        labels(tokens.size()) {}
};

Reference::Reference(const ModelConfig& model, const Settings& settings, const TokenFile& data,
                     const std::string& isa, int threads, const Weights& initial)
    : training_(new Training(model, settings, data, isa, threads)) {
  Trainer<float>& trainer = training_->trainer;
  trainer.initialise();
  for (std::size_t i = 0; i < initial.size(); ++i)
    if (!initial[i].empty()) trainer.load(table()[i].name, initial[i].data());
}
Reference::~Reference() = default;

const std::vector<Param>& Reference::table() const { return training_->trainer.params(); }

Whole::Step Reference::step() {
  Training& t = *training_;
  const i64 k = t.trainer.steps_done(), seq = t.settings.seq;
  for (i64 i = 0; i < t.settings.batch; ++i)
    sample(t.data, t.settings, k, i, &t.tokens[i * seq], &t.labels[i * seq]);
  const auto result = t.trainer.step(t.tokens.data(), t.labels.data());
  Whole::Step step;
  step.loss = result.loss, step.grad_norm = result.grad_norm;
  for (int i = 0; i < static_cast<int>(table().size()); ++i) {
    const bool tied = table()[i].tied_to >= 0;
    step.gradient.push_back(tied ? std::vector<float>{} : t.trainer.gradient(i));
    step.weight.push_back(tied ? std::vector<float>{} : t.trainer.weight(i));
  }
  return step;
}

Whole reference_run(const ModelConfig& model, const Settings& settings, const TokenFile& data,
                    const std::string& isa, int threads, const Weights& initial) {
  Reference reference(model, settings, data, isa, threads, initial);
  Whole whole;
  whole.table = reference.table();
  for (i64 k = 0; k < settings.steps; ++k) whole.steps.push_back(reference.step());
  return whole;
}

}  // namespace lockstep
