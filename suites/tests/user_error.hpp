// Looking at what a user would read.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "ref/error.hpp"

namespace lockstep {

// The sentence with which `action` was refused; "" if it was not.
template <class Error = UserError, class Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Whether a sentence has all of these parts.
template <class... Parts>
testing::AssertionResult says(const std::string& sentence, const Parts&... parts) {
  for (const std::string& part : {std::string(parts)...})
    if (sentence.find(part) == std::string::npos)
      return testing::AssertionFailure() << '"' << sentence << "\" does not say \"" << part << '"';
  return testing::AssertionSuccess();
}

}  // namespace lockstep
