// A training run written down whole, so that any other program can replay or judge it.
// Layout: reports/schema.md, section "dump".
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ref/config.hpp"
#include "ref/params.hpp"
#include "ref/settings.hpp"
#include "reports/h5.hpp"

namespace lockstep {

h5::Shape shape_in_dump(const Param&);  // [rows, cols], of a norm [cols]

struct StepDump {
  double loss = 0, grad_norm = 0, lr = 0;
  std::vector<i32> tokens, labels;  // [B, T] in sample order
};

class DumpWriter {
 public:
  // Written aside (path.tmp) and renamed by close(); UserError if it cannot be written.
  DumpWriter(const std::string& path, const ModelConfig&, const Settings&, const std::string& plan);
  ~DumpWriter();
  void initial_weight(const Param&, const float* values);  // [rows, cols], unpadded
  void step(i64 step, const StepDump&);
  void gradient(i64 step, const Param&, const float* values);  // raw, whole
  void weight(i64 step, const Param&, const float* values);    // after the step, whole
  void close();

 private:
  struct File;
  std::unique_ptr<File> file_;
};

// UserError: another kind of file, or a dump of another version.
void require_dump(const h5::Reader&);
// The steps that a dump says something of, ascending.
std::vector<i64> steps_of(const h5::Reader&);

struct Comparison {
  bool equal = false;
  std::string
      text;  // "equal: 3 steps, 38 tensors" or the first difference: step, parameter, coordinate, both values
};
// Bit for bit (-0 equals +0). UserError: not a dump, damaged, or of different models.
Comparison compare_dumps(const std::string& a, const std::string& b);

}  // namespace lockstep
