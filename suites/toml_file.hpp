// A TOML file of any kind that can be read: a pipe, too.
#pragma once
#include <string>

#include "suites/toml.hpp"

namespace lockstep {

// UserError: it cannot be read, and why; or it is no TOML, with file and line. `hint`: what is said of a file
// that is not there.
toml::table read_toml(const std::string& path, const std::string& hint = "");

// UserError: what is to be kept is read once more, which a pipe cannot be.
void check_can_be_kept(const std::string& path);

}  // namespace lockstep
