#include "kernels/work.hpp"

#include <functional>
#include <map>
#include <stdexcept>
#include <string>

namespace lockstep {
namespace {

using Numbers = std::vector<double>;  // sizes and scalars, in the order of kernels/ops.hpp

Work matmul(double m, double n, double k) { return {Work::matmul, 2 * m * n * k, m * k + n * k + m * n}; }
Work rows(double flops, double moved) { return {Work::rows, flops, moved}; }

// Bytes here are counts of numbers; work_of() knows how long a number is.
const std::map<std::string, std::function<Work(const Numbers&)>> formulas = {
    {"matmul", [](const Numbers& x) { return matmul(x[0], x[1], x[2]); }},
    {"matmul_dx",
     [](const Numbers& x) {  // ld and N of three terms, M, K
       const double n = x[1] + x[3] + x[5];
       return matmul(x[6], n, x[7]);
     }},
    {"matmul_dw", [](const Numbers& x) { return matmul(x[1], x[2], x[0]); }},
    {"attention",
     [](const Numbers& x) {  // B, T, H, K, hd
       const double q = x[0] * x[1] * x[2] * x[4], kv = x[0] * x[1] * x[3] * x[4];
       return Work{Work::attention, 2 * q * x[1], 2 * q + 2 * kv};
     }},
    {"attention_dx",
     [](const Numbers& x) {  // scores again, and two products each for probabilities' and inputs' gradients
       const double q = x[0] * x[1] * x[2] * x[4], kv = x[0] * x[1] * x[3] * x[4];
       return Work{Work::attention, 5 * q * x[1], 4 * q + 4 * kv};
     }},
    {"embed", [](const Numbers& x) { return rows(0, 2 * x[0] * x[1]); }},
    {"embed_dw", [](const Numbers& x) { return rows(x[0] * x[1], x[0] * x[1] + x[3] * x[1]); }},
    {"rms_norm", [](const Numbers& x) { return rows(4 * x[0] * x[1], 2 * x[0] * x[1]); }},
    {"rms_norm_dx", [](const Numbers& x) { return rows(6 * x[0] * x[1], 3 * x[0] * x[1]); }},
    {"rms_norm_dw", [](const Numbers& x) { return rows(3 * x[0] * x[1], 2 * x[0] * x[1]); }},
    {"rope", [](const Numbers& x) { return rows(3 * x[0] * x[2] * x[3], 2 * x[0] * x[2] * x[3]); }},
    {"swiglu", [](const Numbers& x) { return rows(6 * x[0], 3 * x[0]); }},
    {"swiglu_dx", [](const Numbers& x) { return rows(12 * x[0], 5 * x[0]); }},
    {"ce_max", [](const Numbers& x) { return rows(x[0] * x[1], x[0] * x[1]); }},
    {"ce_sum", [](const Numbers& x) { return rows(3 * x[0] * x[1], x[0] * x[1]); }},
    {"ce_loss", [](const Numbers& x) { return rows(4 * x[0] * x[1], 3 * x[0] * x[1]); }},
    {"ce_dx", [](const Numbers& x) { return rows(4 * x[0] * x[1], 2 * x[0] * x[1]); }},
    {"add", [](const Numbers& x) { return rows(x[0], 3 * x[0]); }},
    {"copy", [](const Numbers& x) { return rows(0, 2 * x[0]); }},
    {"zero", [](const Numbers& x) { return rows(0, x[0]); }},
    {"swap_axes", [](const Numbers& x) { return rows(0, 2 * x[0] * x[1] * x[2] * x[3]); }},
    {"repeat_rows", [](const Numbers& x) { return rows(0, (x[1] + 1) * x[0] * x[2]); }},
    {"sum_rows", [](const Numbers& x) { return rows((x[1] - 1) * x[0] * x[2], (x[1] + 1) * x[0] * x[2]); }},
    {"add_squares", [](const Numbers& x) { return rows(2 * x[0], x[0]); }},
    {"adamw", [](const Numbers& x) { return rows(13 * x[0], 7 * x[0]); }},
};

}  // namespace

Work work_of(const char* kernel, const std::vector<double>& sizes, int number_bytes) {
  const auto it = formulas.find(kernel);
  if (it == formulas.end()) throw std::logic_error(std::string("no formula for the work of ") + kernel);
  Work work = it->second(sizes);
  work.bytes *= number_bytes;
  return work;
}

const char* class_name(Work::Class kind) {
  static constexpr const char* names[] = {"matmul", "attention", "rows"};
  return names[kind];
}

std::vector<std::string> kernel_names_and_classes() {
  std::vector<std::string> names;
  for (const auto& [name, formula] : formulas) names.push_back(name);
  names.push_back("rows");  // the other classes have the names of their kernels
  return names;
}

}  // namespace lockstep
