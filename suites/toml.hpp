// The TOML library. It asserts that a table's name begins as a name may, instead of checking it; what it
// asserts is thrown here, so that no broken file ends the program.
#pragma once
#include <fmt/format.h>

#include <string>

#include "ref/error.hpp"

namespace lockstep {
struct BrokenToml {};
[[noreturn]] inline void not_toml() { throw BrokenToml(); }
}  // namespace lockstep

#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : lockstep::not_toml())
#include <toml++/toml.h>

namespace lockstep {

// UserError: with file and line, what is no TOML.
inline toml::table parse_toml(const std::string& path) {
  try {
    return toml::parse_file(path);
  } catch (const BrokenToml&) {
    throw UserError(path + ": not TOML: a table's name, in [brackets], is broken");
  } catch (const toml::parse_error& e) {
    throw UserError(fmt::format("{}:{}: not TOML: {}", path, e.source().begin.line, e.description()));
  }
}

}  // namespace lockstep
