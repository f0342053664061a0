#include "suites/toml_file.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ref/error.hpp"

namespace lockstep {

toml::table read_toml(const std::string& path, const std::string& hint) {
  const std::string more = hint.empty() ? "" : "; " + hint;
  if (std::error_code error; std::filesystem::is_directory(path, error))
    throw UserError(fmt::format("{}: this is a folder, and no file{}", path, more));
  errno = 0;
  std::ifstream in(path);
  if (!in && errno == ENOENT) throw UserError(fmt::format("{}: no such file{}", path, more));
  std::ostringstream text;
  if (in && in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  if (!in.is_open() || in.bad())
    throw UserError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  try {
    return toml::parse(text.str(), path);
  } catch (const BrokenToml&) {
    throw UserError(path + ": not TOML: a table's name, in [brackets], is broken");
  } catch (const toml::parse_error& e) {
    throw UserError(fmt::format("{}:{}: not TOML: {}", path, e.source().begin.line, e.description()));
  }
}

void check_can_be_kept(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    throw UserError(
        fmt::format("{}: its text is to be kept, and a pipe can be read once only; name a file", path));
}

}  // namespace lockstep
