// A user's mistake ends in one sentence that begins with `lockstep: `, and in exit status 2.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "suites/tests/program_runner.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {

inline const std::string show_tiny = "show " + tiny_model;

struct Mistake {
  std::string name, arguments;
  std::vector<std::string> said;
};

inline std::string name_of(const testing::TestParamInfo<Mistake>& test) { return test.param.name; }

inline Ended expect_one_sentence(const std::string& arguments, const std::vector<std::string>& said) {
  const Ended ended = lockstep_program(arguments);
  EXPECT_EQ(ended.status, 2) << arguments << "\n" << ended.out;
  EXPECT_TRUE(ended.err.starts_with("lockstep: ")) << ended.err;
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  for (const std::string& part : said) EXPECT_TRUE(says(ended.err, part));
  return ended;
}

}  // namespace lockstep
