#include "reports/dump.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "reports/h5.hpp"

namespace lockstep {
namespace {

constexpr i64 kVersion = 1;

// Each field of the model as an attribute of its own too; rope_scaling's as "rope_scaling.factor" and so on.
void write_fields(h5::Writer& file, const nlohmann::ordered_json& json, const std::string& prefix) {
  for (const auto& [key, value] : json.items()) {
    const std::string name = prefix + key;
    if (value.is_object())
      write_fields(file, value, name + ".");
    else if (value.is_string())
      file.attribute(name, value.get<std::string>());
    else if (value.is_boolean())
      file.attribute(name, value.get<bool>() ? i64{1} : i64{0});
    else if (value.is_number_integer())
      file.attribute(name, value.get<i64>());
    else if (value.is_number())
      file.attribute(name, value.get<double>());
  }
}

void write_settings(h5::Writer& file, const Settings& s) {
  const std::pair<const char*, i64> whole[] = {{"batch", s.batch}, {"seq", s.seq},       {"steps", s.steps},
                                               {"seed", s.seed},   {"leaves", s.leaves}, {"warmup", s.warmup},
                                               {"total", s.total}};
  const std::pair<const char*, double> real[] = {
      {"lr", s.lr},   {"min_ratio", s.min_ratio},       {"beta1", s.beta1}, {"beta2", s.beta2},
      {"eps", s.eps}, {"weight_decay", s.weight_decay}, {"clip", s.clip},   {"ignore", s.ignore}};
  for (const auto& [name, value] : whole) file.attribute(name, value);
  for (const auto& [name, value] : real) file.attribute(name, value);
  if (s.activation_bytes == 2) file.attribute("dtype", std::string("bf16"));
}

}  // namespace

h5::Shape shape_in_dump(const Param& p) {
  const auto rows = static_cast<hsize_t>(p.rows), cols = static_cast<hsize_t>(p.cols);
  return p.row_dim == Dim::one ? h5::Shape{cols} : h5::Shape{rows, cols};
}

struct DumpWriter::File {
  h5::Writer out;
  h5::Shape batch;  // [B, T]
  std::set<std::string> groups;

  void group(const std::string& name) {
    if (groups.insert(name).second) out.group(name);
  }
  // /step<k>/<what>, made when first needed: gradients may come before the step's scalars or after.
  std::string step_group(i64 step, const char* what) {
    const std::string name = fmt::format("/step{}", step);
    group(name);
    if (!*what) return name;
    group(name + "/" + what);
    return name + "/" + what;
  }
  // A tied head is its embedding: nothing of its own to write.
  void tensor(const std::string& group_name, const Param& p, const float* values) {
    if (p.tied_to < 0) out.write(group_name + "/" + p.name, shape_in_dump(p), values);
  }
};

DumpWriter::DumpWriter(const std::string& path, const ModelConfig& model, const Settings& settings,
                       const std::string& plan)
    : file_(new File{
          h5::Writer(path), {static_cast<hsize_t>(settings.batch), static_cast<hsize_t>(settings.seq)}, {}}) {
  h5::Writer& out = file_->out;
  out.attribute("format", std::string("lockstep dump"));
  out.attribute("version", kVersion);
  out.attribute("plan", plan);
  const auto json = nlohmann::ordered_json::parse(model_config_text(model));
  out.attribute("model", json.dump());
  write_fields(out, json, "");
  write_settings(out, settings);
  file_->group("/initial");
}

DumpWriter::~DumpWriter() = default;

void DumpWriter::initial_weight(const Param& p, const float* values) { file_->tensor("/initial", p, values); }

void DumpWriter::step(i64 step, const StepDump& s) {
  const hsize_t samples = h5::count(file_->batch);
  if (s.tokens.size() != samples || s.labels.size() != samples)
    throw std::logic_error("a step's dump must hold batch x seq tokens and labels");
  const std::string group = file_->step_group(step, "");
  h5::Writer& out = file_->out;
  out.write(group + "/tokens", file_->batch, s.tokens.data());
  out.write(group + "/labels", file_->batch, s.labels.data());
  out.write(group + "/lr", {}, &s.lr);
  out.write(group + "/loss", {}, &s.loss);
  out.write(group + "/grad_norm", {}, &s.grad_norm);
}

void DumpWriter::gradient(i64 step, const Param& p, const float* values) {
  file_->tensor(file_->step_group(step, "grad"), p, values);
}

void DumpWriter::weight(i64 step, const Param& p, const float* values) {
  file_->tensor(file_->step_group(step, "weight"), p, values);
}

void DumpWriter::close() { file_->out.close(); }

}  // namespace lockstep
