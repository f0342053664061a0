#include "ref/rope.hpp"

#include "kernels/exact_math.hpp"

namespace lockstep {
namespace {

constexpr double kTwoPi = 2.0 * 3.14159265358979323846;

// Llama 3's change of one frequency: long waves are stretched by `factor`, short ones stay, and between
// the two there is a linear blend.
double llama3_frequency(const RopeScaling& s, double frequency) {
  const double context = static_cast<double>(s.original_max_position);
  const double wavelength = kTwoPi / frequency;
  if (wavelength > context / s.low_freq_factor) return frequency / s.factor;
  if (wavelength < context / s.high_freq_factor) return frequency;
  const double blend = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1.0 - blend) * frequency / s.factor + blend * frequency;
}

// Radians per position of pair j: theta^(-2j / head_dim), then the model's scaling.
double frequency_of(const ModelConfig& config, i64 j) {
  const double exponent = static_cast<double>(2 * j) / static_cast<double>(config.head_dim);
  const double frequency = 1.0 / exact_pow(config.rope_theta, exponent);
  switch (config.rope_scaling.kind) {
    case RopeScaling::Kind::none:
      return frequency;
    case RopeScaling::Kind::linear:
      return frequency / config.rope_scaling.factor;
    case RopeScaling::Kind::llama3:
      return llama3_frequency(config.rope_scaling, frequency);
  }
  return frequency;
}

}  // namespace

template <class T>
RopeTable<T> rope_table(const ModelConfig& config, i64 seq) {
  const i64 pairs = config.head_dim / 2;
  std::vector<double> frequency;  // [head_dim/2]
  for (i64 j = 0; j < pairs; ++j) frequency.push_back(frequency_of(config, j));

  RopeTable<T> table;
  for (i64 t = 0; t < seq; ++t)
    for (const double radians : frequency) {
      const double angle = static_cast<double>(t) * radians;
      table.cos.push_back(static_cast<T>(exact_cos(angle)));
      table.sin.push_back(static_cast<T>(exact_sin(angle)));
    }
  return table;
}

template RopeTable<float> rope_table<float>(const ModelConfig&, i64);
template RopeTable<double> rope_table<double>(const ModelConfig&, i64);

}  // namespace lockstep
