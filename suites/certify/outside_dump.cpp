#include "suites/certify/outside_dump.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "ref/error.hpp"
#include "reports/dump.hpp"

namespace lockstep {
namespace {

template <class T>
std::vector<T> shaped(const h5::Reader& file, const std::string& name, const h5::Shape& shape) {
  h5::Array<T> array = file.numbers<T>(name);
  if (array.shape != shape)
    throw UserError(fmt::format("'{}': {} has shape [{}]; the model and /step0/tokens want [{}]", file.path(),
                                name, fmt::join(array.shape, ", "), fmt::join(shape, ", ")));
  return std::move(array.values);
}

}  // namespace

OutsideDump::OutsideDump(const std::string& path, const std::string& asked) : file_(path) {
  require_dump(file_);
  model_ = parse_model_config(file_.attribute("model"), path + ", attribute model");
  const std::vector<i64> held = steps_of(file_);
  if (held.empty()) throw UserError(fmt::format("'{}' holds no step: no /step0/tokens", path));
  for (const i64 k : held) {  // each begins with the weights after the one before it
    if (k != steps_)
      throw UserError(
          fmt::format("'{}' holds a step {} and no step {}; write all of them, from 0", path, k, steps_));
    ++steps_;
  }
  const h5::Shape shape = file_.numbers<i32>("/step0/tokens").shape;
  if (shape.size() != 2) throw UserError(fmt::format("'{}': /step0/tokens must be [batch, seq]", path));
  Settings& s = settings_;
  s.batch = static_cast<i64>(shape[0]), s.seq = static_cast<i64>(shape[1]);
  s.warmup = 0, s.min_ratio = 1;  // the rate is the dump's, step by step
  const double smallest = std::nextafter(0, 1);
  clips_ = file_.has_attribute("clip");
  s.clip = number("clip", 1e30, smallest, INFINITY);
  s.beta1 = number("beta1", s.beta1, 0, 1), s.beta2 = number("beta2", s.beta2, 0, 1);
  s.eps = number("eps", s.eps, std::numeric_limits<float>::min(), INFINITY);
  s.weight_decay = number("weight_decay", s.weight_decay, 0, INFINITY);
  const std::string dtype = !asked.empty() ? asked : says_dtype() ? file_.attribute("dtype") : "float32";
  if (dtype != "float32" && dtype != "bf16" && dtype != "bfloat16")
    throw UserError(
        fmt::format("'{}': attribute dtype is {}; it must be float32, bf16 or bfloat16", path, dtype));
  s.activation_bytes = dtype == "float32" ? 4 : 2;
  std::vector<const char*> untold;
  for (const char* name : {"beta1", "beta2", "eps", "weight_decay"})
    if (!file_.has_attribute(name)) untold.push_back(name);
  untold_ = fmt::format("{}", fmt::join(untold, ", "));
  check_layers();
  table_ = parameter_table(model_, s.leaves);
}

OutsideDump::Tensors OutsideDump::initial() const {
  Tensors all = read_tensors("/initial");
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const float w : all[i])
      if (!std::isfinite(w))
        throw UserError(fmt::format("'{}': /initial/{} holds a {}", path(), table_[i].name, w));
  return all;
}

// An attribute from `least` on and below `below`.
double OutsideDump::number(const char* name, double otherwise, double least, double below) const {
  if (!file_.has_attribute(name)) return otherwise;
  const std::string text = file_.attribute(name);
  double value = NAN;
  try {
    std::size_t read = 0;
    value = std::stod(text, &read);
    if (read != text.size()) value = NAN;
  } catch (const std::exception&) {
  }
  if (value >= least && value < below) return value;
  throw UserError(fmt::format(
      "'{}': attribute {} is {}; it must be {}{}{}", path(), name, text,
      least > 0 && least < 1e-300 ? "a number above 0" : fmt::format("a number from {:.3g} on", least),
      std::isinf(below) ? "" : fmt::format(", below {}", below),
      std::string(name) == "clip" ? ", or left out where nothing is clipped" : ""));
}

// Before anything is made as large as the model says.
void OutsideDump::check_layers() const {
  const auto norm = [](i64 layer) {
    return fmt::format("/initial/model.layers.{}.input_layernorm.weight", layer);
  };
  i64 held = 0;
  while (held < model_.layers && file_.has(norm(held))) ++held;
  if (held < model_.layers)
    throw UserError(
        fmt::format("'{}': the model has {} layers, and there is no {}", path(), model_.layers, norm(held)));
}

OutsideDump::Tensors OutsideDump::read_tensors(const std::string& group) const {
  std::set<std::string> names;
  Tensors all;
  for (const Param& p : table_) {
    if (p.tied_to < 0) names.insert(p.name);
    all.push_back(p.tied_to >= 0 ? std::vector<float>{}
                                 : shaped<float>(file_, group + "/" + p.name, shape_in_dump(p)));
  }
  for (const std::string& name : file_.list(group))
    if (!names.count(name))
      throw UserError(fmt::format("'{}': {} holds {}, which is no parameter of the model{}", path(), group,
                                  name,
                                  model_.tied && name == "lm_head.weight"
                                      ? ": its head is tied to the embedding, and not written twice"
                                      : ""));
  return all;
}

std::vector<i32> OutsideDump::ids(i64 step, const char* name) const {
  const std::string at = fmt::format("/step{}/{}", step, name);
  const std::vector<i32> all =
      shaped<i32>(file_, at, {static_cast<hsize_t>(settings_.batch), static_cast<hsize_t>(settings_.seq)});
  const bool labels = std::string(name) == "labels";
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i] >= model_.vocab || (all[i] < 0 && !labels))
      throw UserError(fmt::format("'{}': {}[{}, {}] is {}, outside the model's vocabulary of {}", path(), at,
                                  static_cast<i64>(i) / settings_.seq, static_cast<i64>(i) % settings_.seq,
                                  all[i], model_.vocab));
  if (labels && std::all_of(all.begin(), all.end(), [](i32 id) { return id < 0; }))
    throw UserError(fmt::format("'{}': every label of {} is ignored; at least one must count", path(), at));
  return all;
}

std::optional<double> OutsideDump::scalar(i64 step, const char* name) const {
  const std::string at = fmt::format("/step{}/{}", step, name);
  if (!file_.has(at)) return {};
  const h5::Array<double> array = file_.numbers<double>(at);
  if (array.values.size() != 1) throw UserError(fmt::format("'{}': {} is not one number", path(), at));
  return array.values[0];
}

std::optional<OutsideDump::Tensors> OutsideDump::tensors(i64 step, const char* group) const {
  const std::string at = fmt::format("/step{}/{}", step, group);
  if (!file_.has(at)) return {};
  return read_tensors(at);
}

}  // namespace lockstep
