#include "suites/sweep/shard.hpp"

#include <fmt/format.h>

#include <charconv>

#include "ref/error.hpp"

namespace lockstep {
namespace {

// Digits alone, as from_chars would also take a sign.
bool read(std::string_view text, int& number) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return false;
  return std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc();
}

// Back and forth: 1 2 3 4 4 3 2 1 1 2. Plans that stand together are alike, so that each part gets its share
// of each kind. What a plan takes could only be guessed, and the number of its ranks, which is known, was no
// better guide (suites/README.md). In one direction only, the values of an axis that alternate would each go
// to parts of their own.
int part_of(std::size_t plan, int parts) {
  const auto n = static_cast<std::size_t>(parts);
  const std::size_t at = plan % n;
  return static_cast<int>((plan / n) % 2 == 0 ? at : n - 1 - at) + 1;
}

}  // namespace

std::optional<Shard> shard_of(const std::string& text) {
  const std::size_t slash = text.find('/');
  Shard shard;
  if (slash == std::string::npos || !read(std::string_view(text).substr(0, slash), shard.part) ||
      !read(std::string_view(text).substr(slash + 1), shard.parts) || shard.part < 1 ||
      shard.part > shard.parts)
    return std::nullopt;
  return shard;
}

void deal(Enumeration& all, const Shard& shard) {
  if (static_cast<std::size_t>(shard.parts) > all.plans.size())
    throw UserError(fmt::format("--shard {}/{}: there are {} plans to deal out, so at most {} parts",
                                shard.part, shard.parts, all.plans.size(), all.plans.size()));
  std::size_t i = 0;
  std::erase_if(all.plans, [&](const Plan&) { return part_of(i++, shard.parts) != shard.part; });
  if (shard.part > 1) all.refused.clear();
}

}  // namespace lockstep
