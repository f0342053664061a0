#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "ref/data_order.hpp"
#include "ref/error.hpp"

namespace lockstep {
namespace {

struct Header {
  char magic[8];
  std::uint32_t version, width;
  std::uint64_t count;
  std::uint32_t vocab, end_of_text;
  std::uint64_t hash;
  char reserved[24];
};
static_assert(sizeof(Header) == 64);

template <class Id>
bool all_below(const void* tokens, std::uint64_t count, std::uint32_t vocab) {
  const Id* id = static_cast<const Id*>(tokens);
  return std::all_of(id, id + count, [vocab](Id t) { return t < vocab; });
}

}  // namespace

struct TokenFile::Map {
  void* address = MAP_FAILED;
  std::size_t bytes = 0;
  Header header{};
  const unsigned char* tokens = nullptr;

  ~Map() {
    if (address != MAP_FAILED) munmap(address, bytes);
  }

  void open(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      if (file >= 0) ::close(file);
      throw UserError(path + ": this token file cannot be read; it must be an existing, readable file.");
    }
    bytes = static_cast<std::size_t>(status.st_size);
    if (bytes >= sizeof(Header)) address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    ::close(file);
    if (bytes >= sizeof(Header) && address == MAP_FAILED)
      throw UserError(path + ": this token file cannot be mapped into memory.");
  }

  // Everything datasets/format.md says a reader refuses.
  void check(const std::string& path) {
    auto require = [&](bool right, const std::string& wrong) {
      if (!right) throw UserError(path + ": " + wrong + ".");
    };
    require(bytes >= sizeof(Header),
            fmt::format("this is not a token file: it has {} bytes, and the header alone has 64", bytes));
    std::memcpy(&header, address, sizeof header);
    require(std::memcmp(header.magic, "LOCKTOK1", 8) == 0,
            "this is not a token file: it does not begin with LOCKTOK1");
    require(header.version == 1, fmt::format("its version is {}; only 1 is known", header.version));
    require(header.width == 2 || header.width == 4,
            fmt::format("its tokens have {} bytes each; it must be 2 or 4", header.width));
    require(std::all_of(header.reserved, header.reserved + 24, [](char c) { return c == 0; }),
            "its header's reserved bytes are not zero, as version 1 wants them");
    const std::uint64_t room = bytes - sizeof(Header);
    require(header.count <= room / header.width && header.count * header.width == room,
            fmt::format(
                "its header promises {} tokens of {} bytes, but {} bytes follow; it was cut off or added to",
                header.count, header.width, room));
    require(header.count >= 1, "it holds no tokens; it must hold at least 1");
    require(header.vocab >= 2 && header.vocab <= std::numeric_limits<i32>::max(),
            fmt::format("its vocabulary is {}; it must be from 2 to 2147483647", header.vocab));
    require(header.end_of_text < header.vocab,
            fmt::format("its end of text is {}; it must be below the vocabulary, {}", header.end_of_text,
                        header.vocab));
    tokens = static_cast<const unsigned char*>(address) + sizeof(Header);
    require(XXH3_64bits(tokens, room) == header.hash,
            "its tokens do not have the hash that its header gives; make or fetch it again");
    require(header.width == 2 ? all_below<std::uint16_t>(tokens, header.count, header.vocab)
                              : all_below<std::uint32_t>(tokens, header.count, header.vocab),
            fmt::format("it holds a token that is not below its vocabulary, {}", header.vocab));
  }
};

TokenFile::TokenFile(const std::string& path) : map_(std::make_unique<Map>()) {
  map_->open(path);
  map_->check(path);
}
TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

i64 TokenFile::count() const { return static_cast<i64>(map_->header.count); }
i64 TokenFile::vocab() const { return map_->header.vocab; }
i64 TokenFile::end_of_text() const { return map_->header.end_of_text; }
std::string TokenFile::hash() const { return fmt::format("{:016x}", map_->header.hash); }

i32 TokenFile::operator[](i64 i) const {
  if (map_->header.width == 2) return reinterpret_cast<const std::uint16_t*>(map_->tokens)[i];
  return static_cast<i32>(reinterpret_cast<const std::uint32_t*>(map_->tokens)[i]);
}

}  // namespace lockstep
