// Numbers of a cluster's file: in which unit, and how much of it is plausible.
#pragma once
#include <cmath>

#include "suites/bytes.hpp"
#include "suites/planner/curve.hpp"
#include "suites/section.hpp"

namespace lockstep {

// Generous: a number beyond is in another unit.
struct Limit {
  double most;
  const char* in;
};
inline constexpr Limit kPart = {1, "a part, from 0 to 1, and no percentage"};
// Measured side by side and alone: what else the machine did may have slowed the one alone.
inline constexpr Limit kCrowdPart = {10, "a part, about 1 or less, and no percentage"};
inline constexpr Limit kMicroseconds = {1e8, "in microseconds"};
inline constexpr Limit kMilliseconds = {1e6, "in milliseconds"};
inline constexpr Limit kGibibytes = {3e4, "in GiB"};
inline constexpr Limit kGigabytes = {1e7, "in GB, 10^9 bytes"};
inline constexpr Limit kGigabytesPerSecond = {1e6, "in GB/s, 10^9 bytes a second"};
// Bytes over the time of a call that need not carry them: no bandwidth.
inline constexpr Limit kCarried = {1e12, "in GB/s, 10^9 bytes a second"};
inline constexpr Limit kGigaflops = {1e8, "in GFLOP/s, 10^9 operations a second"};
inline constexpr Limit kTeraflops = {1e5, "in TFLOP/s, 10^12 operations a second"};
inline constexpr Limit kBytes = {1e4, "in bytes"};
inline constexpr Limit kSizes = {1e9, "a size"};
inline constexpr Limit kKernels = {1e4, "a number of kernels"};

// Numbers are kept in bytes and seconds; files speak the units of data sheets.
class Units {
 public:
  Units(Section& section, const toml::table* table) : section_(section), table_(table) {}
  void read(const std::string& key, double unit, double& value, bool required, const Limit& limit) {
    const toml::node* node = table_ ? table_->get(key) : nullptr;
    double number = value / unit;
    section_.read(key, number);
    if (!node && required) section_.lacks(key);
    if (node && !(std::isfinite(number) && (required ? number > 0 : number >= 0)))
      section_.fail(*node, fmt::format("{} is {}; it must be {}", key, number,
                                       required ? "finite and greater than 0" : "finite and 0 or more"));
    if (node && number > limit.most)
      section_.fail(*node, fmt::format("{} is {:g}, which is beyond {:g}: it must be {}", key, number,
                                       limit.most, limit.in));
    value = number * unit;
  }
  void read(const std::string& key, Curve& curve, const Limit& limit) {
    const toml::node* node = section_.find(key);
    if (!node) return;
    const auto bad = [&](const toml::node& at) {
      section_.fail(at, fmt::format("{} must be a list of [size, part] with sizes that ascend and parts "
                                    "greater than 0, such as [[1e6, 0.2], [1e9, 0.8]]",
                                    key));
    };
    std::vector<std::pair<double, double>> points;
    if (!node->is_array() || node->as_array()->empty()) bad(*node);
    for (const toml::node& point : *node->as_array()) {
      const toml::array* pair = point.as_array();
      if (!pair || pair->size() != 2 || !(*pair)[0].is_number() || !(*pair)[1].is_number()) bad(point);
      const double x = *(*pair)[0].value<double>(), y = *(*pair)[1].value<double>();
      if (!(x > (points.empty() ? 0 : points.back().first) && y > 0)) bad(point);
      if (y > limit.most)
        section_.fail(point, fmt::format("{} is {:g} at {:g}, which is beyond {:g}: it must be {}", key, y, x,
                                         limit.most, limit.in));
      points.emplace_back(x, y);
    }
    curve = Curve(std::move(points));
  }

 private:
  Section& section_;
  const toml::table* table_;
};

inline constexpr double kGiga = 1e9, kTera = 1e12, kMicro = 1e-6;

}  // namespace lockstep
