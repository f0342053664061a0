// Which tokens a sample holds: a function of (seed, step, index) alone.
#pragma once
#include <memory>
#include <string>

#include "ref/settings.hpp"

namespace lockstep {

// A token file, mapped into memory. Format: datasets/format.md.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path);  // UserError: unreadable, wrong magic, truncated
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;
  i64 count() const;
  i64 vocab() const;
  i64 end_of_text() const;
  i32 operator[](i64 i) const;
  std::string hash() const;  // of the tokens, hexadecimal

 private:
  struct Map;
  std::unique_ptr<Map> map_;
};

inline constexpr i32 kIgnored = -100;

// tokens[T] and labels[T] (the next token; kIgnored in the prompt part and after an end of text).
// UserError if the file holds fewer than T + 1 tokens.
void sample(const TokenFile&, const Settings&, i64 step, i64 index, i32* tokens, i32* labels);

// Labels that count in all of a step's samples.
i64 valid_labels(const TokenFile&, const Settings&, i64 step);

}  // namespace lockstep
