#pragma once
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace lockstep {

// What a user did wrong, in one sentence. The program prints it and exits with code 2.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What this machine has not, which is no fault of the user's or of a plan's.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

}  // namespace lockstep
