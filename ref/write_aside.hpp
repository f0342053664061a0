// Files that are never seen half written.
#pragma once
#include <filesystem>
#include <fstream>
#include <string>

namespace lockstep {

// Where a file of this name lies, or would: links stay, and what they name is written.
inline std::string place_of(const std::string& path) {
  std::error_code error;
  std::filesystem::path place = path;
  for (int links = 0; links < 40 && std::filesystem::is_symlink(place, error); ++links)
    place = place.parent_path() / std::filesystem::read_symlink(place, error);
  return place.string();
}

// A device or a pipe, to which links under /proc lead too.
inline bool is_no_file(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error);
}

// Whoever reads `path` finds the old file or the new one, which `write` puts into a stream. Returns whether
// the new one is there; if not, nothing is left of it. A device or a pipe is written to.
template <class Write>
bool write_aside(const std::string& named, const Write& write) {
  if (is_no_file(named)) {
    std::ofstream out(named, std::ios::binary);
    write(out);
    out.close();
    return static_cast<bool>(out);
  }
  const std::string path = place_of(named);
  const std::string aside = path + ".tmp";
  std::ofstream out(aside, std::ios::binary);
  write(out);
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(aside, path, error);
  if (out && !error) return true;
  std::filesystem::remove(aside, error);
  return false;
}

}  // namespace lockstep
