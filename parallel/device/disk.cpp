#include "parallel/device/disk.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "ref/error.hpp"

namespace lockstep {
namespace {

constexpr i64 kOrigin = 4096;  // positions begin here, so that none looks like a null pointer

off_t offset_of(const void* position) {
  return static_cast<off_t>(reinterpret_cast<std::uintptr_t>(position));
}
void* position_of(i64 offset) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(kOrigin + offset));
}

}  // namespace

std::string temporary_folder() {
  const char* said = std::getenv("TMPDIR");
  return said && *said ? said : P_tmpdir;
}

Disk::Disk(const ArenaPlan& plan, const std::string& folder, bool guard)
    : places_(plan), folder_(folder.empty() ? temporary_folder() : folder), guard_(guard) {
  if (plan.bytes == 0) return;
  std::string name = folder_ + "/lockstep-XXXXXX";
  file_ = mkostemp(name.data(), O_CLOEXEC);
  if (file_ < 0)
    throw UserError(
        fmt::format("{}: no file for offloaded state can be made in this folder: {}; --scratch names another",
                    folder_, std::strerror(errno)));
  unlink(name.c_str());
  // Room for all of it now: a disk that is full says so before the first step.
  if (const int error = posix_fallocate(file_, 0, kOrigin + plan.bytes)) {
    close(file_);
    throw UserError(fmt::format(
        "{}: this folder has no room for {} bytes of offloaded state: {}; --scratch names another", folder_,
        plan.bytes, std::strerror(error)));
  }
}

Disk::~Disk() {
  if (file_ >= 0) close(file_);
}

void* Disk::take(i64 bytes) {
  if (!places_) return position_of(std::exchange(next_, next_ + bytes));
  void* at = position_of(places_->next(bytes));
  if (guard_) {
    {
      const std::lock_guard lock(mutex_);
      taken_[offset_of(at)] = bytes;
    }
    poison(at, bytes);
  }
  return at;
}

void Disk::give(void* at, i64 bytes) {
  if (!guard_) return;
  try {
    poison(at, bytes);
  } catch (const std::runtime_error&) {
    // A buffer is given back by its destructor: what is wrong with the disk, the next copy will say.
  }
  const std::lock_guard lock(mutex_);
  taken_.erase(offset_of(at));
}

// What guard pages are to a buffer in memory.
void Disk::check(const void* position, i64 bytes) const {
  if (!guard_ || bytes == 0) return;
  const i64 from = offset_of(position);
  const std::lock_guard lock(mutex_);
  auto it = taken_.upper_bound(from);
  if (it == taken_.begin() || from + bytes > (--it)->first + it->second)
    throw std::logic_error(
        "guarded run: a copy reaches beyond its buffer on disk, or one was used after its release");
}

void Disk::begin_step() {
  if (places_) places_->begin_step();
}

void Disk::read(void* to, const void* position, i64 bytes) const {
  check(position, bytes);
  auto* at = static_cast<std::byte*>(to);
  off_t offset = offset_of(position);
  while (bytes > 0) {
    const ssize_t n = pread(file_, at, static_cast<std::size_t>(std::min(bytes, at_once)), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;  // the file has become shorter
    if (n <= 0) fail("read");
    at += n, offset += n, bytes -= n;
  }
}

void Disk::write(void* position, const void* from, i64 bytes) const {
  check(position, bytes);
  const auto* at = static_cast<const std::byte*>(from);
  off_t offset = offset_of(position);
  while (bytes > 0) {
    const ssize_t n = pwrite(file_, at, static_cast<std::size_t>(std::min(bytes, at_once)), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("written");
    at += n, offset += n, bytes -= n;
  }
}

void Disk::poison(void* position, i64 bytes) const {
  static const auto nan = [] {
    std::array<std::byte, 1 << 16> bytes_of_nan;
    bytes_of_nan.fill(std::byte{0xFF});
    return bytes_of_nan;
  }();
  auto* at = static_cast<std::byte*>(position);
  for (i64 done = 0; done < bytes; done += nan.size())
    write(at + done, nan.data(), std::min<i64>(nan.size(), bytes - done));
}

void Disk::fail(const char* what) const {
  throw std::runtime_error(
      fmt::format("{}: offloaded state cannot be {} on this disk: {}", folder_, what, std::strerror(errno)));
}

}  // namespace lockstep
