// Files that are never seen half written.
#pragma once
#include <filesystem>
#include <fstream>
#include <string>

namespace lockstep {

// Whoever reads `path` finds the old file or the new one, which `write` puts into a stream. Returns whether
// the new one is there; if not, nothing is left of it.
template <class Write>
bool write_aside(const std::string& path, const Write& write) {
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
