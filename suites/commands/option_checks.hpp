// Checks of options' values that say in words what would be right: the parser's own name the largest number
// that there is, digit by digit.
#pragma once
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>
#include <string>

namespace lockstep {

namespace option_checks {

// "12" is 12; "12x" and "" are no number, and pass no check.
inline double number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return *end == '\0' && end != text.c_str() ? value : std::nan("");
}

}  // namespace option_checks

inline CLI::Validator above_zero() {
  return {[](std::string& text) {
            return option_checks::number(text) > 0 ? std::string() : text + " is not a number above 0";
          },
          "ABOVE 0"};
}

inline CLI::Validator zero_or_more() {
  return {[](std::string& text) {
            return option_checks::number(text) >= 0 ? std::string() : text + " is not a number from 0 up";
          },
          "FROM 0"};
}

inline CLI::Validator from_to(long long least, long long most) {
  return {[=](std::string& text) {
            const double value = option_checks::number(text);
            const bool within = static_cast<double>(least) <= value && value <= static_cast<double>(most);
            return within ? std::string() : fmt::format("{} is not from {} to {}", text, least, most);
          },
          fmt::format("{} TO {}", least, most)};
}

}  // namespace lockstep
