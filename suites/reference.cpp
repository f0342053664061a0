#include "suites/reference.hpp"

#include "ref/trainer.hpp"

namespace lockstep {

Whole reference_run(const ModelConfig& model, const Settings& settings, const TokenFile& data, const std::string& isa,
                    int threads, const std::vector<std::vector<float>>& initial) {
  Lanes lanes(threads);
  Trainer<float> trainer(model, settings, cpu_ops(isa), lanes);
  const std::vector<Param>& table = trainer.params();
  trainer.initialise();
  for (std::size_t i = 0; i < initial.size(); ++i)
    if (!initial[i].empty()) trainer.load(table[i].name, initial[i].data());
  Whole whole;
  whole.table = table;
  std::vector<i32> tokens(settings.batch * settings.seq), labels(tokens.size());
  for (i64 k = 0; k < settings.steps; ++k) {
    for (i64 i = 0; i < settings.batch; ++i)
      sample(data, settings, k, i, &tokens[i * settings.seq], &labels[i * settings.seq]);
    const auto result = trainer.step(tokens.data(), labels.data());
    Whole::Step step;
    step.loss = result.loss, step.grad_norm = result.grad_norm;
    for (std::size_t i = 0; i < table.size(); ++i) {
      const bool tied = table[i].tied_to >= 0;
      step.gradient.push_back(tied ? std::vector<float>{} : trainer.gradient(static_cast<int>(i)));
      step.weight.push_back(tied ? std::vector<float>{} : trainer.weight(static_cast<int>(i)));
    }
    whole.steps.push_back(std::move(step));
  }
  return whole;
}

}  // namespace lockstep
