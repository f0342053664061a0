#include "suites/settings_list.hpp"

#include <fmt/format.h>

#include "ref/error.hpp"

namespace lockstep {

const std::vector<Setting>& settings_list() {
  using S = Settings;
  static const std::vector<Setting> list = {
      {"batch", &S::batch, 1, 1 << 20, "sequences per optimizer step, over all ranks"},
      {"seq", &S::seq, 1, 1 << 20, "tokens of a sequence"},
      {"steps", &S::steps, 1, 1e9, "optimizer steps"},
      {"seed", &S::seed, 0, 1e15, "seed of the initial weights and of the data's order"},
      {"leaves", &S::leaves, 1, 64, "parts of every sum that tensor parallelism may split (a power of two)"},
      {"segments", &S::segments, 1, 1024,
       "parts of every sequence, over which gradients are summed: exact mode's cp (a power of two)"},
      {"lr", &S::lr, 0, 1e3, "learning rate after warm-up"},
      {"min_ratio", &S::min_ratio, 0, 1, "learning rate at the end, as a part of lr"},
      {"warmup", &S::warmup, 0, 1e9, "steps until the learning rate is reached"},
      {"total", &S::total, 0, 1e9, "steps of the learning-rate schedule; 0: as many as are run"},
      {"beta1", &S::beta1, 0, 0.999999, "AdamW: decay of the first moment"},
      {"beta2", &S::beta2, 0, 0.999999, "AdamW: decay of the second moment"},
      {"eps", &S::eps, 1e-30, 1, "AdamW: added to the root of the second moment"},
      {"weight_decay", &S::weight_decay, 0, 1e3, "AdamW: decoupled decay of the matrices"},
      {"clip", &S::clip, 1e-30, 1e30, "largest norm of a gradient"},
      {"ignore", &S::ignore, 0, 1, "up to this part of a sequence's labels is ignored, as a prompt"},
  };
  return list;
}

void set_dtype(Settings& s, const std::string& dtype) {
  if (dtype != "float32" && dtype != "bf16")
    throw UserError(fmt::format("dtype is \"{}\"; it can be \"float32\" or \"bf16\"", dtype));
  s.weight_bytes = s.activation_bytes = dtype == "bf16" ? 2 : 4;
  s.gradient_bytes = 4;
}

std::string dtype_of(const Settings& s) { return s.activation_bytes == 2 ? "bf16" : "float32"; }

void check_settings(const Settings& settings) {
  for (const Setting& s : settings_list()) {
    const double value =
        std::visit([&](auto field) { return static_cast<double>(settings.*field); }, s.field);
    if (!(s.least <= value && value <= s.most))
      throw UserError(fmt::format("{} is {}; it must be from {} to {}", s.name, value, s.least, s.most));
  }
  if ((settings.segments & (settings.segments - 1)) != 0 || settings.seq % settings.segments != 0)
    throw UserError(fmt::format("segments is {}; it must be a power of two that divides seq, {}",
                                settings.segments, settings.seq));
  if ((settings.leaves & (settings.leaves - 1)) != 0)
    throw UserError(fmt::format("leaves is {}; it must be a power of two", settings.leaves));
}

void check_data(const TokenFile& data, const std::string& path, const ModelConfig& model,
                const Settings& settings) {
  if (data.vocab() > model.vocab)
    throw UserError(
        fmt::format("{}: its vocabulary has {} tokens, but the model's has {}; tokenize the text with "
                    "the model's tokenizer, or choose a model with vocab_size {} or more",
                    path, data.vocab(), model.vocab, data.vocab()));
  if (data.count() < settings.seq + 1)
    throw UserError(fmt::format("{}: it has {} tokens; a sequence of {} needs at least {}", path,
                                data.count(), settings.seq, settings.seq + 1));
}

}  // namespace lockstep
