// Two independent uniforms become one normal number (Box and Muller, "A Note on the Generation of Random
// Normal Deviates", 1958).
#include "kernels/plain/plain.hpp"
#include "kernels/random.hpp"

namespace lockstep::plain {

void normal_numbers(std::uint64_t key, std::uint64_t first, i64 n, double deviation, float* values) {
  for (i64 i = 0; i < n; ++i) {
    const std::uint64_t word = 2 * (first + static_cast<std::uint64_t>(i));
    const double u = 1.0 - unit_interval(random_word(key, word));  // (0, 1]: its log is finite
    const double v = unit_interval(random_word(key, word + 1));
    const double z = std::sqrt(-2.0 * exact_log(u)) * exact_cos(2.0 * 3.14159265358979323846 * v);
    values[i] = static_cast<float>(deviation * z);
  }
}

}  // namespace lockstep::plain
