#include "reports/seal.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep {
namespace {

constexpr std::array<char, 8> kMark = {'l', 'o', 'c', 'k', 's', 'e', 'a', 'l'};
struct Trailer {
  std::array<char, 8> mark;
  XXH128_canonical_t hash;  // the same bytes on every machine
};
constexpr i64 kTrailer = sizeof(Trailer);

// Of a file's first bytes.
std::optional<XXH128_canonical_t> hash_of(std::ifstream& file, i64 bytes) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::vector<char> buffer(1 << 20);
  file.seekg(0);
  while (bytes > 0) {
    const i64 n = std::min(bytes, static_cast<i64>(buffer.size()));
    if (!file.read(buffer.data(), n)) return {};
    XXH3_128bits_update(state.get(), buffer.data(), static_cast<std::size_t>(n));
    bytes -= n;
  }
  XXH128_canonical_t hash;
  XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(state.get()));
  return hash;
}

i64 size_of(std::ifstream& file) {
  file.seekg(0, std::ios::end);
  return file ? static_cast<i64>(file.tellg()) : -1;
}

// What a file ends with, and as what it looks without its hash.
std::pair<Seal, Trailer> mark_of(std::ifstream& in) {
  const i64 bytes = size_of(in) - kTrailer;
  Trailer trailer{};
  if (bytes < 0) return {Seal::none, trailer};
  in.seekg(bytes);
  if (!in.read(reinterpret_cast<char*>(&trailer), kTrailer)) return {Seal::none, trailer};
  if (trailer.mark == kMark) return {Seal::whole, trailer};
  const std::string_view last(reinterpret_cast<const char*>(&trailer), kTrailer);
  const bool cut = last.find(std::string_view(kMark.data(), kMark.size())) != last.npos;
  return {cut ? Seal::broken : Seal::none, trailer};
}

}  // namespace

bool seal(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const auto hash = hash_of(in, size_of(in));
  if (!hash) return false;
  in.close();
  std::ofstream out(path, std::ios::binary | std::ios::app);
  const Trailer trailer{kMark, *hash};
  out.write(reinterpret_cast<const char*>(&trailer), kTrailer);
  out.close();
  return static_cast<bool>(out);
}

bool has_seal(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return mark_of(in).first != Seal::none;
}

Seal seal_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const auto [mark, trailer] = mark_of(in);
  if (mark != Seal::whole) return mark;
  const auto hash = hash_of(in, size_of(in) - kTrailer);
  return hash && std::memcmp(&*hash, &trailer.hash, sizeof *hash) == 0 ? Seal::whole : Seal::broken;
}

}  // namespace lockstep
