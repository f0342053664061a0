// A rank's file: memory below the host's, for what a step rarely needs (Rajbhandari et al. 2021,
// ZeRO-Infinity, section 5). It is laid out from the trace as the arena is, a place for each take.
#pragma once
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "parallel/device/memory.hpp"

namespace lockstep {

std::string temporary_folder();  // $TMPDIR, or the system's

class Disk final : public Placer {
 public:
  Disk() = default;  // for tracing: hands out positions, and has no file
  // Makes a file in `folder` (empty: the system's for temporary files) with room for the whole plan, if the
  // plan needs any. It loses its name at once, so nothing stays behind however the process ends. guard: what
  // is taken or given back is filled with NaN, and what lies in no buffer is not read or written but thrown
  // as std::logic_error. UserError: the folder cannot be written to, or the disk is full.
  Disk(const ArenaPlan&, const std::string& folder, bool guard);
  ~Disk() override;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  void* take(i64 bytes) override;
  void give(void* at, i64 bytes) override;
  void begin_step() override;

  bool open() const { return file_ >= 0; }
  // At once, on the caller's thread. Throws std::runtime_error with the folder and the system's reason.
  // What is written may wait in the system's page cache: that is not memory of the process.
  void read(void* to, const void* position, i64 bytes) const;
  void write(void* position, const void* from, i64 bytes) const;
  void poison(void* position, i64 bytes) const;
  // Bytes of one call of the system, which moves no more than 2 GiB at once; a test says fewer.
  i64 at_once = i64{1} << 30;

 private:
  [[noreturn]] void fail(const char* what) const;
  void check(const void* position, i64 bytes) const;
  std::optional<Places> places_;
  std::string folder_;
  int file_ = -1;
  bool guard_ = false;
  mutable std::mutex mutex_;  // copies may be on a thread of their own
  std::map<i64, i64> taken_;  // guard: bytes of each buffer, by its position
  i64 next_ = 0;              // tracing
};

}  // namespace lockstep
