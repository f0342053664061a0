#include "kernels/extents.hpp"

#include <map>
#include <stdexcept>
#include <string>

#include "kernels/ops.hpp"

namespace lockstep {
namespace {

using Sizes = std::vector<i64>;
using Extents = std::vector<i64>;

Extents all_of(std::size_t operands, i64 n) { return Extents(operands, n); }

Extents matmul_dx(const Sizes& x) {  // ld and N of three pieces, M, K
  const i64 M = x[6], K = x[7];
  Extents e{M * K};
  for (std::size_t i = 0; i < 6; i += 2) {
    const i64 ld = x[i], N = x[i + 1];
    e.push_back(N ? (M - 1) * ld + N : 0);
    e.push_back(N * K);
  }
  return e;
}

Extents attention(const Sizes& x, bool backward) {  // B, T, H, K, hd
  const i64 q = x[0] * x[1] * x[2] * x[4], kv = x[0] * x[1] * x[3] * x[4], rows = x[0] * x[1] * x[2];
  return backward ? Extents{q, kv, kv, q, q, kv, kv, q, rows} : Extents{q, rows, q, kv, kv};
}

const std::map<std::string, Extents (*)(const Sizes&)> formulas = {
    {"matmul",
     [](const Sizes& x) {
       return Extents{x[0] * x[1], x[0] * x[2], x[1] * x[2]};
     }},
    {"matmul_dx", matmul_dx},
    {"matmul_dw",
     [](const Sizes& x) {
       return Extents{x[1] * x[2], x[0] * x[1], x[0] * x[2]};
     }},
    {"embed",
     [](const Sizes& x) {
       return Extents{x[0] * x[1], x[3] * x[1], x[0]};
     }},
    {"embed_dw",
     [](const Sizes& x) {
       return Extents{x[3] * x[1], x[0] * x[1], x[0]};
     }},
    {"rms_norm",
     [](const Sizes& x) {
       return Extents{x[0] * x[1], x[0], x[0] * x[1], x[1]};
     }},
    {"rms_norm_dx",
     [](const Sizes& x) {
       return Extents{x[0] * x[1], x[0] * x[1], x[0] * x[1], x[0], x[1]};
     }},
    {"rms_norm_dw",
     [](const Sizes& x) {
       return Extents{x[1], x[0] * x[1], x[0] * x[1], x[0]};
     }},
    {"rope",
     [](const Sizes& x) {
       return Extents{x[0] * x[2] * x[3], x[1] * x[3] / 2, x[1] * x[3] / 2};
     }},
    {"attention", [](const Sizes& x) { return attention(x, false); }},
    {"attention_dx", [](const Sizes& x) { return attention(x, true); }},
    {"swiglu", [](const Sizes& x) { return all_of(3, x[0]); }},
    {"swiglu_dx", [](const Sizes& x) { return all_of(5, x[0]); }},
    {"ce_max",
     [](const Sizes& x) {
       return Extents{x[0], x[0] * x[1]};
     }},
    {"ce_sum",
     [](const Sizes& x) {
       return Extents{x[0], x[0], x[0] * x[1], x[0], x[0]};
     }},
    {"ce_loss",
     [](const Sizes& x) {
       return Extents{x[0], x[0] * x[1], x[0] * x[1], x[0] * x[1], x[0] * x[1]};
     }},
    {"ce_dx",
     [](const Sizes& x) {
       return Extents{x[0] * x[1], x[0], x[0], x[0]};
     }},
    {"add", [](const Sizes& x) { return all_of(3, x[0]); }},
    {"copy", [](const Sizes& x) { return all_of(2, x[0]); }},
    {"zero", [](const Sizes& x) { return all_of(1, x[0]); }},
    {"swap_axes", [](const Sizes& x) { return all_of(2, x[0] * x[1] * x[2] * x[3]); }},
    {"repeat_rows",
     [](const Sizes& x) {
       return Extents{x[0] * x[1] * x[2], x[0] * x[2]};
     }},
    {"sum_rows",
     [](const Sizes& x) {
       return Extents{x[0] * x[2], x[0] * x[1] * x[2]};
     }},
    {"add_squares",
     [](const Sizes& x) {
       return Extents{kSquareWords, x[0]};
     }},
    {"adamw", [](const Sizes& x) { return all_of(4, x[0]); }},
};

}  // namespace

std::vector<i64> extents_of(const char* kernel, const std::vector<double>& sizes) {
  const auto it = formulas.find(kernel);
  if (it == formulas.end()) throw std::logic_error(std::string("no formula for the extents of ") + kernel);
  return it->second(Sizes(sizes.begin(), sizes.end()));
}

}  // namespace lockstep
