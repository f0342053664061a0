// What a user did wrong, in one sentence. The program prints it and exits with code 2.
#pragma once
#include <stdexcept>

namespace lockstep {

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace lockstep
