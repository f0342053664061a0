// The TOML library. It asserts that a table's name begins as a name may, instead of checking it; what it
// asserts is thrown here, so that no broken file ends the program.
#pragma once

namespace lockstep {
struct BrokenToml {};
[[noreturn]] inline void not_toml() { throw BrokenToml(); }
}  // namespace lockstep

#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : lockstep::not_toml())
#include <toml++/toml.h>
