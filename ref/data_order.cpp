#include "ref/data_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/random.hpp"
#include "ref/error.hpp"

namespace lockstep {

// A sample is T + 1 neighbouring tokens: the first T are read, the last T are to be predicted. Two labels
// do not count: the one after an end of text (another document begins, nothing foretells it), and those
// of a prompt, a first part of random length. If that leaves none, the last label counts all the same.
void sample(const TokenFile& text, const Settings& s, i64 step, i64 index, i32* tokens, i32* labels) {
  const i64 T = s.seq;
  if (text.count() < T + 1)
    throw UserError(
        fmt::format("The text has {} tokens; a sequence of {} needs at least {}.", text.count(), T, T + 1));

  const std::uint64_t seed = mix(static_cast<std::uint64_t>(s.seed));
  const std::uint64_t key =
      random_word(random_word(seed, static_cast<std::uint64_t>(step)), static_cast<std::uint64_t>(index));
  auto below = [key](std::uint64_t draw, i64 n) {  // uniform in [0, n)
    return static_cast<i64>(random_word(key, draw) % static_cast<std::uint64_t>(n));
  };
  const i64 offset = below(0, text.count() - T);
  const i64 prompt = below(1, std::clamp<i64>(static_cast<i64>(s.ignore * static_cast<double>(T)), 0, T) + 1);

  bool any = false;
  for (i64 t = 0; t < T; ++t) {
    tokens[t] = text[offset + t];
    const bool counts = t >= prompt && tokens[t] != text.end_of_text();
    labels[t] = counts ? text[offset + t + 1] : kIgnored;
    any = any || counts;
  }
  if (!any) labels[T - 1] = text[offset + T];
}

i64 valid_labels(const TokenFile& text, const Settings& s, i64 step) {
  std::vector<i32> tokens(static_cast<std::size_t>(s.seq)), labels(static_cast<std::size_t>(s.seq));
  i64 valid = 0;
  for (i64 index = 0; index < s.batch; ++index) {
    sample(text, s, step, index, tokens.data(), labels.data());
    valid += std::count_if(labels.begin(), labels.end(), [](i32 label) { return label >= 0; });
  }
  return valid;
}

}  // namespace lockstep
