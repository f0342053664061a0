// Two dumps side by side, in the order of the training itself, until the first difference.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>

#include "ref/error.hpp"
#include "reports/dump.hpp"
#include "reports/h5.hpp"

namespace lockstep {
namespace {

using Difference = std::optional<std::string>;  // a sentence; nothing where the two are equal

// -0 and +0 count as equal (kernels/EXACT.md); every other pair must agree to the bit, NaNs too.
bool same(float a, float b) { return std::bit_cast<i32>(a) == std::bit_cast<i32>(b) || (a == 0 && b == 0); }
bool same(double a, double b) { return std::bit_cast<i64>(a) == std::bit_cast<i64>(b) || (a == 0 && b == 0); }
bool same(i32 a, i32 b) { return a == b; }

std::string text(float v) { return fmt::format("{} (0x{:08x})", v, std::bit_cast<std::uint32_t>(v)); }
std::string text(double v) { return fmt::format("{} (0x{:016x})", v, std::bit_cast<std::uint64_t>(v)); }
std::string text(i32 v) { return fmt::format("{}", v); }

std::string shape_text(const h5::Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Where element `flat` of an array of this shape lies: " [row, col]"; empty for a scalar.
std::string coordinate(const h5::Shape& shape, hsize_t flat) {
  if (shape.empty()) return {};
  h5::Shape place(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0; flat /= shape[axis]) place[axis] = flat % shape[axis];
  return " " + shape_text(place);
}

struct Pair {
  h5::Reader a, b;

  // `what` names the array to a person: "step 1, weight of model.norm.weight".
  template <class T>
  Difference compare(const std::string& name, const std::string& what) const {
    const h5::Array<T> left = a.read<T>(name), right = b.read<T>(name);
    if (left.shape != right.shape)
      return fmt::format("{}: shape {} in {}, {} in {}", what, shape_text(left.shape), a.path(),
                         shape_text(right.shape), b.path());
    hsize_t first = 0, different = 0;
    for (hsize_t i = left.values.size(); i-- > 0;)
      if (!same(left.values[i], right.values[i])) first = i, ++different;
    if (different == 0) return {};
    std::string sentence =
        fmt::format("{}{}: {} in {}, {} in {}", what, coordinate(left.shape, first), text(left.values[first]),
                    a.path(), text(right.values[first]), b.path());
    if (left.values.size() > 1)
      sentence += fmt::format("; {} of its {} values differ", different, left.values.size());
    return sentence;
  }

  // Every tensor of a group, in the order it was written; a tensor that only one file has is a difference.
  Difference compare_tensors(const std::string& group, const std::string& what) const {
    const std::vector<std::string> left = a.list(group), right = b.list(group);
    for (const auto& [mine, theirs, reader] : {std::tuple(&left, &right, &a), std::tuple(&right, &left, &b)})
      for (const std::string& name : *mine)
        if (std::find(theirs->begin(), theirs->end(), name) == theirs->end())
          return fmt::format("{} {}: only in {}", what, name, reader->path());
    for (const std::string& name : left)
      if (Difference d = compare<float>(group + "/" + name, what + " " + name)) return d;
    return {};
  }

  // A part that a run may leave out, as long as both do.
  Difference compare_optional(const std::string& group, const std::string& what) const {
    if (a.has(group) != b.has(group))
      return fmt::format("{} any tensor: only in {}", what, (a.has(group) ? a : b).path());
    return a.has(group) ? compare_tensors(group, what) : Difference{};
  }

  Difference compare_step(i64 step) const {
    const std::string group = fmt::format("/step{}/", step), what = fmt::format("step {}, ", step);
    if (Difference d = compare<i32>(group + "tokens", what + "tokens")) return d;
    if (Difference d = compare<i32>(group + "labels", what + "labels")) return d;
    if (Difference d = compare<double>(group + "lr", what + "lr")) return d;
    if (Difference d = compare<double>(group + "loss", what + "loss")) return d;
    if (Difference d = compare_optional(group + "grad", what + "gradient of")) return d;
    if (Difference d = compare<double>(group + "grad_norm", what + "grad_norm")) return d;
    return compare_optional(group + "weight", what + "weight of");
  }
};

// Every attribute but the plan decides numbers. `model` itself is compared through its fields.
Difference compare_settings(const Pair& files) {
  std::set<std::string> names;
  for (const h5::Reader* file : {&files.a, &files.b})
    for (const std::string& name : file->attributes()) names.insert(name);
  for (const std::string& name : names) {
    if (name == "plan") continue;
    const auto value = [&](const h5::Reader& file) {
      return file.has_attribute(name) ? file.attribute(name) : std::string("missing");
    };
    if (value(files.a) != value(files.b))
      return fmt::format("settings: {} is {} in {}, {} in {}", name, value(files.a), files.a.path(),
                         value(files.b), files.b.path());
  }
  return {};
}

// What is equal and shows nothing; empty: all losses and norms are numbers.
std::string vacuous(const h5::Reader& file) {
  for (const i64 step : steps_of(file))
    for (const char* name : {"loss", "grad_norm"})
      if (const std::string at = fmt::format("/step{}/{}", step, name);
          file.has(at) && !std::isfinite(file.scalar<double>(at)))
        return fmt::format("step {}, {} is {}", step, name, file.scalar<double>(at));
  return {};
}

Difference first_difference(const Pair& files, std::size_t* steps_compared) {
  if (Difference d = compare_settings(files)) return d;
  if (Difference d = files.compare_tensors("/initial", "initial weight of")) return d;
  const std::vector<i64> left = steps_of(files.a), right = steps_of(files.b);
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (left[i] != right[i]) break;
    if (Difference d = files.compare_step(left[i])) return d;
  }
  *steps_compared = left.size();
  if (left != right)
    return fmt::format("steps: {} in {}, {} in {}, equal as far as both go", left.size(), files.a.path(),
                       right.size(), files.b.path());
  return {};
}

}  // namespace

void require_dump(const h5::Reader& file) {
  if (!file.has_attribute("format") || file.attribute("format") != "lockstep dump")
    throw UserError(fmt::format("'{}' is not a dump of a training run (reports/schema.md says what one is)",
                                file.path()));
  if (const std::string version = file.attribute("version"); version != "1")
    throw UserError(
        fmt::format("'{}' is a dump of version {}; this program reads version 1", file.path(), version));
}

std::vector<i64> steps_of(const h5::Reader& file) {
  std::vector<i64> steps;
  for (const std::string& name : file.list("/"))
    if (name.starts_with("step") && name.size() > 4 &&
        std::all_of(name.begin() + 4, name.end(), [](char c) { return '0' <= c && c <= '9'; }))
      steps.push_back(std::stoll(name.substr(4)));
  std::sort(steps.begin(), steps.end());
  return steps;
}

Comparison compare_dumps(const std::string& a, const std::string& b) {
  const Pair files{h5::Reader(a), h5::Reader(b)};
  require_dump(files.a);
  require_dump(files.b);
  if (files.a.attribute("model") != files.b.attribute("model"))
    throw UserError(
        fmt::format("'{}' and '{}' are of different models; compare two runs of one model", a, b));
  std::size_t steps = 0;
  if (const Difference d = first_difference(files, &steps)) return {false, "differ: " + *d};
  if (const std::string why = vacuous(files.a); !why.empty())
    return {false, "equal, which proves nothing: " + why};
  const std::size_t tensors = files.a.list("/initial").size();
  return {true, fmt::format("equal: {} step{}, {} tensor{}", steps, steps == 1 ? "" : "s", tensors,
                            tensors == 1 ? "" : "s")};
}

}  // namespace lockstep
