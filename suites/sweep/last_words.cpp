#include "suites/sweep/last_words.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

#include "suites/sweep/worker.hpp"

namespace lockstep {

constexpr std::size_t kMostLastWords = 400;  // bytes of stderr in an answer

int LastWords::open() {
  forget();
  // A file in memory and not a pipe: a dying process can always write to it.
  file_ = memfd_create("stderr", MFD_CLOEXEC);
  if (file_ < 0) not_given("a worker process: no place for its stderr");
  heard_ = 0;
  return file_;
}

void LastWords::forget() {
  if (file_ >= 0) close(file_);
  file_ = -1;
}

std::string LastWords::take(bool aloud) {
  std::string said;
  char buffer[1 << 12];
  for (ssize_t n; file_ >= 0 && (n = pread(file_, buffer, sizeof buffer, heard_)) > 0; heard_ += n)
    said.append(buffer, static_cast<std::size_t>(n));
  if (aloud) std::fputs(said.c_str(), stderr);
  return said;
}

std::string quoted(std::string said) {
  for (char& c : said)
    if (const auto byte = static_cast<unsigned char>(c); byte < ' ' || byte >= 0x7f)
      c = byte > 0x7f ? '?' : ' ';
  said.erase(said.find_last_not_of(' ') + 1);
  said.erase(0, said.find_first_not_of(' '));
  if (said.empty()) return "";
  if (said.size() > kMostLastWords) said.replace(0, said.size() - kMostLastWords, "... ");
  return "; it said: " + said;
}

}  // namespace lockstep
