// A run's settings as a user names them: the keys of a suite's [run], and the options of the command line.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "ref/config.hpp"
#include "ref/data_order.hpp"

namespace lockstep {

struct Setting {
  const char* name;  // "weight_decay"; on the command line --weight-decay
  std::variant<i64 Settings::*, double Settings::*> field;
  double least, most;
  const char* help;
};
const std::vector<Setting>& settings_list();

// What weights and activations are stored as: "float32", or "bf16" beside float32 master weights, gradients
// and statistics. UserError: another.
void set_dtype(Settings&, const std::string&);
std::string dtype_of(const Settings&);

// UserError: a setting out of its range, or a text that does not fit the model or the sequence length.
void check_settings(const Settings&);
void check_data(const TokenFile&, const std::string& path, const ModelConfig&, const Settings&);

}  // namespace lockstep
