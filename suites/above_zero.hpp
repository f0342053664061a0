// The parser's own check names the largest number that there is, digit by digit.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

namespace lockstep {

inline CLI::Validator above_zero() {
  return {[](std::string& text) {
            char* end = nullptr;
            const double value = std::strtod(text.c_str(), &end);
            return *end == '\0' && value > 0 ? std::string() : text + " is not a number above 0";
          },
          "ABOVE 0"};
}

}  // namespace lockstep
