// A dump that another program wrote (reports/schema.md, "Of any trainer"), each array held to what the model
// makes of it.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "ref/config.hpp"
#include "ref/params.hpp"
#include "ref/settings.hpp"
#include "reports/h5.hpp"

namespace lockstep {

class OutsideDump {
 public:
  using Tensors = std::vector<std::vector<float>>;  // by parameter [rows, cols]; a tied head's is empty

  // UserError: not a dump, of another version or layout, a model of more layers, a step left out, an
  // attribute that no AdamW has, another dtype than these. dtype: "float32" or "bf16", instead of what it
  // says.
  explicit OutsideDump(const std::string& path, const std::string& dtype = "");

  const std::string& path() const { return file_.path(); }
  const ModelConfig& model() const { return model_; }
  // Batch, sequence length, type of numbers, AdamW's settings; the rate is each step's own.
  const Settings& settings() const { return settings_; }
  const std::vector<Param>& table() const { return table_; }
  i64 steps() const { return steps_; }
  bool clips() const { return clips_; }
  bool says_dtype() const { return file_.has_attribute("dtype"); }
  // Empty: AdamW can be followed. Else the attributes that do not say which, "beta2, eps".
  const std::string& untold() const { return untold_; }

  // UserError, each: an array of another shape or kind of number, or a tensor that is missing or none of the
  // model's.
  Tensors initial() const;                                            // also one that is not finite
  std::vector<i32> ids(i64 step, const char* name) const;             // [B, T]: "tokens", "labels"
  std::optional<double> scalar(i64 step, const char* name) const;     // "loss", "grad_norm", "lr"
  std::optional<Tensors> tensors(i64 step, const char* group) const;  // "grad", "weight"

 private:
  double number(const char* name, double otherwise, double least, double below) const;
  void check_layers() const;
  Tensors read_tensors(const std::string& group) const;

  h5::Reader file_;
  ModelConfig model_;
  Settings settings_;
  std::vector<Param> table_;
  i64 steps_ = 0;
  bool clips_ = false;
  std::string untold_;
};

}  // namespace lockstep
