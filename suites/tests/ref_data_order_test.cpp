// The token file, and samples as a function of (seed, step, index).
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "ref/data_order.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

template <class Value>
void put(std::string& bytes, std::size_t place, Value value) {
  std::memcpy(bytes.data() + place, &value, sizeof value);
}

// A token file as datasets/format.md lays it out.
std::string token_bytes(const std::vector<std::uint32_t>& tokens, std::uint32_t vocab, std::uint32_t end,
                        std::uint32_t width = 2) {
  std::string body(tokens.size() * width, '\0');
  for (std::size_t i = 0; i < tokens.size(); ++i) std::memcpy(body.data() + i * width, &tokens[i], width);
  std::string bytes(64, '\0');
  std::memcpy(bytes.data(), "LOCKTOK1", 8);
  put(bytes, 8, std::uint32_t{1});
  put(bytes, 12, width);
  put(bytes, 16, std::uint64_t{tokens.size()});
  put(bytes, 24, vocab);
  put(bytes, 28, end);
  put(bytes, 32, std::uint64_t{XXH3_64bits(body.data(), body.size())});
  return bytes + body;
}

// 0, 1, ..., 9, 0 (end of text), 1, ...: a token tells its place in its document.
std::vector<std::uint32_t> documents(std::size_t n, std::uint32_t length = 10) {
  std::vector<std::uint32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<std::uint32_t>(i) % length;
  return tokens;
}

// As many different tokens as there are, so that a token tells its offset; no end of text among them.
std::vector<std::uint32_t> counting(std::size_t n) {
  std::vector<std::uint32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<std::uint32_t>(i);
  return tokens;
}

struct Sample {
  std::vector<i32> tokens, labels;
  bool operator==(const Sample&) const = default;
};

Sample draw(const TokenFile& text, const Settings& s, i64 step, i64 index) {
  Sample x{std::vector<i32>(static_cast<std::size_t>(s.seq)),
           std::vector<i32>(static_cast<std::size_t>(s.seq))};
  sample(text, s, step, index, x.tokens.data(), x.labels.data());
  return x;
}

TokenFile open(const std::string& bytes) {
  const TemporaryFolder folder;  // the map outlives the file's name
  return TokenFile(folder.write("text.tok", bytes));
}

TEST(TokenFile, BothWidthsAreRead) {
  for (const std::uint32_t width : {2u, 4u}) {
    const TokenFile text = open(token_bytes({7, 0, 299, 5}, 300, 0, width));
    EXPECT_EQ(text.count(), 4);
    EXPECT_EQ(text.vocab(), 300);
    EXPECT_EQ(text.end_of_text(), 0);
    EXPECT_EQ(text[0], 7);
    EXPECT_EQ(text[2], 299);
    EXPECT_EQ(text[3], 5);
  }
  EXPECT_EQ(open(token_bytes({70000, 1}, 70001, 0, 4))[0], 70000);
}

// 64 bits are 16 digits, zeros in front too: a state or a record compares them as text.
TEST(TokenFile, ItsHashHasSixteenDigits) {
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const std::string bytes = token_bytes({i, 1}, 1000, 0);
    std::uint64_t hash = 0;
    std::memcpy(&hash, bytes.data() + 32, sizeof hash);
    if (hash >> 60) continue;
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
    EXPECT_EQ(open(bytes).hash(), digits);
    return;
  }
  ADD_FAILURE() << "none of 1000 hashes begins with a zero";
}

TEST(TokenFile, WrongFilesAreRefusedInOneSentence) {
  const std::string good = token_bytes(documents(20), 10, 0);
  auto refused = [](std::string bytes) { return refusal([&] { open(bytes); }); };
  auto changed = [&](std::size_t place, auto value) {
    std::string bytes = good;
    put(bytes, place, value);
    return refused(bytes);
  };
  EXPECT_EQ(refused(good), "");
  EXPECT_TRUE(says(refused(""), "not a token file"));
  EXPECT_TRUE(says(refused(good.substr(0, 63)), "not a token file"));
  EXPECT_TRUE(says(refused(good.substr(0, good.size() - 1)), "cut off"));
  EXPECT_TRUE(says(refused(good.substr(0, 64)), "cut off"));
  EXPECT_TRUE(says(refused(good + "x"), "added"));
  EXPECT_TRUE(says(changed(0, 'X'), "LOCKTOK1"));
  EXPECT_TRUE(says(changed(8, std::uint32_t{2}), "version is 2"));
  EXPECT_TRUE(says(changed(12, std::uint32_t{3}), "2 or 4"));
  EXPECT_TRUE(says(changed(16, std::uint64_t{21}), "21 tokens"));
  EXPECT_TRUE(says(changed(16, std::uint64_t{1} << 63 | 20), "tokens"));  // times 2 it would wrap to 40
  EXPECT_TRUE(says(changed(24, std::uint32_t{1}), "vocabulary is 1"));
  EXPECT_TRUE(says(changed(24, std::uint32_t{9}), "not below its vocabulary, 9"));
  EXPECT_TRUE(says(changed(28, std::uint32_t{10}), "end of text is 10"));
  EXPECT_TRUE(says(changed(40, 'x'), "reserved"));
  EXPECT_TRUE(says(changed(63, 'x'), "reserved"));
  EXPECT_TRUE(says(changed(64, std::uint16_t{5}), "hash"));
  EXPECT_TRUE(says(refused(token_bytes({}, 10, 0)), "at least 1"));
  EXPECT_TRUE(says(refusal([] { TokenFile("no/such.tok"); }), "no/such.tok"));
  EXPECT_TRUE(says(refusal([] { TokenFile("/tmp"); }), "cannot be read"));
}

TEST(DataOrder, IsAFunctionOfSeedStepAndIndex) {
  const TokenFile text = open(token_bytes(counting(5000), 5001, 5000));
  Settings s;
  s.seq = 16;
  const Sample first = draw(text, s, 3, 5);
  draw(text, s, 0, 0);
  EXPECT_EQ(draw(text, s, 3, 5), first);
  EXPECT_FALSE(draw(text, s, 3, 6) == first);
  EXPECT_FALSE(draw(text, s, 4, 5) == first);
  EXPECT_FALSE(draw(text, s, 5, 3) == first);
  s.batch = 64, s.steps = 100;  // these change nothing
  EXPECT_EQ(draw(text, s, 3, 5), first);
  s.seed = 2;
  EXPECT_FALSE(draw(text, s, 3, 5) == first);
}

TEST(DataOrder, LabelsAreTheNextTokensOrIgnored) {
  const TokenFile text = open(token_bytes(documents(999), 10, 0));
  Settings s;
  s.seq = 32, s.ignore = 0.5;
  bool ignored_end = false;
  for (i64 index = 0; index < 200; ++index) {
    const Sample x = draw(text, s, 0, index);
    std::size_t prompt = 0;
    while (x.labels[prompt] == kIgnored) ++prompt;
    EXPECT_LE(prompt, 17u);  // 16, and an end of text right behind it
    for (std::size_t t = prompt; t < 32; ++t) {
      if (t > 0) {
        EXPECT_EQ(x.tokens[t], (x.tokens[t - 1] + 1) % 10);
      }
      EXPECT_EQ(x.labels[t], x.tokens[t] == 0 ? kIgnored : (x.tokens[t] + 1) % 10);
      ignored_end = ignored_end || x.labels[t] == kIgnored;
    }
  }
  EXPECT_TRUE(ignored_end);
}

// Chi-squared with 16 (9) degrees of freedom is below 39 (28) all but 1 time in 1000.
TEST(DataOrder, OffsetsAndPromptsAreUniform) {
  const TokenFile text = open(token_bytes(counting(33), 34, 33));
  Settings s;
  s.seq = 16, s.ignore = 0.6;
  const double n = 4000;
  std::vector<double> offsets(17), prompts(10);
  for (i64 step = 0; step < 40; ++step)
    for (i64 index = 0; index < 100; ++index) {
      const Sample x = draw(text, s, step, index);
      offsets.at(static_cast<std::size_t>(x.tokens[0]))++;
      prompts.at(static_cast<std::size_t>(std::count(x.labels.begin(), x.labels.end(), kIgnored)))++;
    }
  auto chi_squared = [n](const std::vector<double>& counts) {
    const double expected = n / static_cast<double>(counts.size());
    double total = 0;
    for (const double c : counts) total += (c - expected) * (c - expected) / expected;
    return total;
  };
  EXPECT_LT(chi_squared(offsets), 39.25);
  EXPECT_LT(chi_squared(prompts), 27.88);
}

TEST(DataOrder, OneLabelAlwaysCounts) {
  const TokenFile empty_documents = open(token_bytes(std::vector<std::uint32_t>(50, 0), 10, 0));
  const TokenFile text = open(token_bytes(counting(50), 51, 50));
  Settings s;
  s.seq = 4, s.ignore = 1.0;
  for (i64 index = 0; index < 100; ++index) {
    const Sample x = draw(empty_documents, s, 0, index);
    EXPECT_EQ(std::count(x.labels.begin(), x.labels.end(), kIgnored), 3);
    const Sample y = draw(text, s, 0, index);
    EXPECT_NE(y.labels[3], kIgnored);
    EXPECT_EQ(y.labels[3], y.tokens[3] + 1);
  }
}

TEST(DataOrder, ValidLabelsCountTheWholeStep) {
  const TokenFile text = open(token_bytes(documents(999), 10, 0));
  Settings s;
  s.seq = 24, s.batch = 7;
  i64 valid = 0;
  for (i64 index = 0; index < 7; ++index) {
    const Sample x = draw(text, s, 2, index);
    valid += 24 - std::count(x.labels.begin(), x.labels.end(), kIgnored);
  }
  EXPECT_EQ(valid_labels(text, s, 2), valid);
}

TEST(DataOrder, TheTextMustHoldASequence) {
  Settings s;
  s.seq = 16, s.ignore = 0;
  const Sample whole = draw(open(token_bytes(counting(17), 18, 17)), s, 0, 0);
  EXPECT_EQ(whole.tokens.front(), 0);
  EXPECT_EQ(whole.labels.back(), 16);
  const TokenFile text = open(token_bytes(counting(16), 17, 16));
  EXPECT_TRUE(says(refusal([&] { draw(text, s, 0, 0); }), "needs at least 17"));
}

}  // namespace
}  // namespace lockstep
