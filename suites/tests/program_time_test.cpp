// lockstep time: a step of one plan, and its kernels one by one.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>
#include <vector>

#include "suites/tests/program_runner.hpp"

namespace lockstep {
namespace {

struct Row {
  std::string kernel, sizes, dtype;
  int calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
};

std::vector<Row> rows_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::vector<Row> rows;
  std::getline(file, line);
  EXPECT_EQ(line, "kernel,sizes,dtype,calls,seconds,flops,bytes");
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    Row r;
    std::getline(fields, r.kernel, ','), std::getline(fields, r.sizes, ','),
        std::getline(fields, r.dtype, ',');
    char comma;
    fields >> r.calls >> comma >> r.seconds >> comma >> r.flops >> comma >> r.bytes;
    EXPECT_TRUE(fields) << line;
    rows.push_back(r);
  }
  return rows;
}

// The table's figures are those of the file: microseconds a call, percent of the median step that all calls
// take, 10^9 operations and bytes a second; what takes longest first.
void check_table(const std::string& out, const std::vector<Row>& rows) {
  double step = 0, last = INFINITY;
  ASSERT_EQ(std::sscanf(out.c_str() + out.find("median step "), "median step %lf s", &step), 1) << out;
  std::istringstream lines(out.substr(out.find("\nkernel ")));
  std::string line;
  std::getline(lines, line), std::getline(lines, line);  // up to the names of the columns
  for (const Row& r : rows) {
    if (r.calls == 0) {  // the copy: 4 bytes of each number are read and 4 written
      EXPECT_EQ(r.bytes, 8 * std::stod(r.sizes));
      continue;
    }
    ASSERT_TRUE(std::getline(lines, line));
    ASSERT_TRUE(line.starts_with(r.kernel + " ")) << line;
    double calls = 0, each = 0, part = 0, flops = 0, bytes = 0;
    ASSERT_EQ(std::sscanf(line.c_str() + line.find(r.dtype) + r.dtype.size(), "%lf %lf %lf %lf %lf", &calls,
                          &each, &part, &flops, &bytes),
              5)
        << line;
    EXPECT_EQ(calls, r.calls);
    EXPECT_NEAR(each, 1e6 * r.seconds, 0.006) << line;
    EXPECT_NEAR(part, 100 * r.calls * r.seconds / step, 0.006 + 1e-3 * part) << line;
    EXPECT_NEAR(flops, r.flops / r.seconds / 1e9, 0.051) << line;
    EXPECT_NEAR(bytes, r.bytes / r.seconds / 1e9, 0.051) << line;
    EXPECT_LE(r.calls * r.seconds, last) << line;
    last = r.calls * r.seconds;
  }
}

std::vector<Row> timed(const std::string& more) {
  const TemporaryFolder folder;
  const std::string csv = folder.path() + "/kernels.csv";
  const Ended ended = lockstep_program("time " + tiny_run + "--steps 2 --kernels --csv " + csv + " " + more);
  EXPECT_EQ(ended.status, 0) << ended.err;
  const std::vector<Row> rows = rows_of(csv);
  for (const Row& r : rows) {
    if (r.calls == 0) continue;
    EXPECT_NE(ended.out.find("\n" + r.kernel + " "), std::string::npos) << r.kernel << "\n" << ended.out;
  }
  EXPECT_NE(ended.out.find("% of the median step; copy of 67 MB"), std::string::npos) << ended.out;
  check_table(ended.out, rows);
  return rows;
}

// The model's shapes, and 128 tokens: weights of a layer's matmuls, and the head's 512 stored rows.
constexpr double kLayer = 64 * 64 * 2 + 2 * 64 * 16 + 3 * 64 * 172, kHead = 64 * 512, kTokens = 8 * 16;

TEST(Time, KernelsAreThoseOfAStep) {
  std::map<std::string, int> calls;
  double flops = 0;
  for (const Row& r : timed("")) {
    EXPECT_GT(r.seconds, 0) << r.kernel;
    EXPECT_EQ(r.dtype, "float32");
    calls[r.kernel] += r.calls;
    if (r.kernel.starts_with("matmul")) flops += r.calls * r.flops;
    if (r.kernel == "swiglu") {
      EXPECT_EQ(r.bytes, 4 * 3 * std::stod(r.sizes));
    }
  }
  // Forward, and backward to inputs and to weights, of 2 operations each.
  EXPECT_EQ(flops, 6 * kTokens * (8 * kLayer + kHead));
  EXPECT_EQ(calls["attention"], calls["attention_dx"]);
  EXPECT_EQ(calls["attention"], 8 * 8) << "a call for each sample and layer";
  for (const char* kernel : {"embed", "embed_dw", "rms_norm", "rms_norm_dx", "rms_norm_dw", "rope", "swiglu",
                             "swiglu_dx", "ce_max", "ce_sum", "ce_loss", "ce_dx", "add_squares", "adamw"})
    EXPECT_GT(calls[kernel], 0) << kernel;
}

// Of 8 layers and 8 microbatches, q, k, v, the output and the gradients of all four: 8 tokens of a segment, 8
// heads of 8, of which 2 are of keys and values.
TEST(Time, KernelsOfASegmentExchangeItsHeads) {
  for (const char* dtype : {"float32", "bf16"}) {
    int calls = 0;
    double bytes = 0;
    for (const Row& r : timed(std::string("--plan cp=2 --dtype ") + dtype)) {
      if (r.kernel != "swap_axes") continue;
      EXPECT_GT(r.seconds, 0);
      EXPECT_EQ(r.dtype, dtype);
      calls += r.calls, bytes += r.calls * r.bytes;
    }
    EXPECT_EQ(calls, 8 * 8 * 8);
    const double each = std::string(dtype) == "bf16" ? 2 : 4;
    EXPECT_EQ(bytes, each * 2 * 8 * 8 * 8 * 8 * 4 * (8 + 2));
  }
}

// Of 2 heads of keys and values 4 ranks have two each: of k and v, and of the gradients of both.
TEST(Time, KernelsOfASegmentRepeatTheHeadsThatRanksShare) {
  std::map<std::string, int> calls;
  for (const Row& r : timed("--plan cp=4")) {
    EXPECT_GT(r.seconds, 0);
    calls[r.kernel] += r.calls;
  }
  EXPECT_EQ(calls["repeat_rows"], 8 * 8 * 2);
  EXPECT_EQ(calls["sum_rows"], 8 * 8 * 2);
}

TEST(Time, KernelsOfBf16MoveHalfTheBytes) {
  int swiglu = 0, moments = 0;
  for (const Row& r : timed("--dtype bf16")) {
    if (r.kernel == "swiglu") {
      EXPECT_EQ(r.dtype, "bf16");
      EXPECT_EQ(r.bytes, 2 * 3 * std::stod(r.sizes));
      ++swiglu;
    }
    if (r.kernel == "adamw") {
      EXPECT_EQ(r.dtype, "float32");
      EXPECT_EQ(r.bytes, 4 * 7 * std::stod(r.sizes));
      ++moments;
    }
  }
  EXPECT_GT(swiglu, 0);
  EXPECT_GT(moments, 0);
}

// Eight samples in a microbatch: fast mode makes the gradients of the 7 matrices of a layer and of the head
// at once, exact mode sample by sample (kernels/EXACT.md).
TEST(Time, ExactModeIsTimedWhereItIsAskedFor) {
  const auto products = [](const std::string& more) {
    int calls = 0;
    for (const Row& r : timed("--plan micro=8 " + more))
      if (r.kernel == "matmul_dw") calls += r.calls;
    return calls;
  };
  EXPECT_EQ(products(""), 7 * 8 + 1);
  EXPECT_EQ(products("--exact"), 8 * (7 * 8 + 1));
}

TEST(Time, AFileThatCannotBeWrittenIsNamed) {
  const Ended ended = lockstep_program("time " + tiny_run + "--steps 1 --csv /no/such/file");
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.err.find("/no/such/file"), std::string::npos) << ended.err;
}

}  // namespace
}  // namespace lockstep
