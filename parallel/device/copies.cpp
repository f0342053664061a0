#include "parallel/device/copies.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace lockstep {

Copies::Copies(const Disk& disk, Timing timing, Engine* engine)
    : disk_(disk), timing_(timing), engine_(engine) {
  static_assert(kMost <= Engine::kCopies);
  if (engine && timing == Timing::lazy)
    throw std::logic_error("copies of an accelerator cannot be made late");
  if (engine && disk.open()) between_ = engine->allocate(Medium::host, kBetween);
  if (disk.open() && timing == Timing::eager) thread_ = std::thread([this] { work(); });
}

Copies::~Copies() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

int Copies::start(const View& to, const View& from, i64 elements) {
  int id = 0;
  while (id < kMost && copies_[id].used) ++id;
  if (id == kMost) throw std::logic_error("too many copies under way at once; is one never waited for?");
  Copy& c = copies_[id];
  c = {to, from, elements, true, false};
  const i64 bytes = elements * type_bytes(to.type);
  if (timing_ == Timing::lazy) {
    if (to.medium == Medium::disk)
      disk_.poison(to.at, bytes);
    else
      std::memset(to.at, 0xFF, static_cast<std::size_t>(bytes));
  } else if (by_engine(c)) {
    engine_->begin_copy(id, to.at, from.at, bytes);
  } else if (engine_ && (to.medium == Medium::device || from.medium == Medium::device)) {
    move_through_host(c);
    c.done = true;
  } else if (to.medium != Medium::disk && from.medium != Medium::disk) {
    move(c);
  } else {
    const std::lock_guard lock(mutex_);
    queue_[(first_ + queued_++) % kMost] = id;
    changed_.notify_all();
  }
  return id;
}

void Copies::wait(int id) {
  Copy& c = copies_[id];
  if (timing_ == Timing::lazy) {
    move(c);
  } else if (by_engine(c)) {
    engine_->end_copy(id);
  } else if (c.to.medium == Medium::disk || c.from.medium == Medium::disk) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return c.done || failure_; });
    if (failure_) std::rethrow_exception(failure_);
  }
  c.used = false;
}

bool Copies::by_engine(const Copy& c) const {
  return engine_ && c.to.medium != Medium::disk && c.from.medium != Medium::disk;
}

// Between the file and the device's memory.
void Copies::move_through_host(const Copy& c) const {
  const i64 all = c.elements * type_bytes(c.to.type);
  for (i64 at = 0; at < all; at += kBetween) {
    const i64 bytes = std::min(kBetween, all - at);
    if (c.from.medium == Medium::disk) {
      disk_.read(between_, static_cast<std::byte*>(c.from.at) + at, bytes);
      engine_->upload(static_cast<std::byte*>(c.to.at) + at, between_, bytes);
    } else {
      engine_->download(between_, static_cast<std::byte*>(c.from.at) + at, bytes);
      disk_.write(static_cast<std::byte*>(c.to.at) + at, between_, bytes);
    }
  }
}

void Copies::move(const Copy& c) const {
  const i64 bytes = c.elements * type_bytes(c.to.type);
  if (c.to.medium == Medium::disk && c.from.medium == Medium::disk)
    throw std::logic_error("a copy from disk to disk needs memory between them");
  if (c.to.medium == Medium::disk)
    disk_.write(c.to.at, c.from.at, bytes);
  else if (c.from.medium == Medium::disk)
    disk_.read(c.to.at, c.from.at, bytes);
  else
    std::memcpy(c.to.at, c.from.at, static_cast<std::size_t>(bytes));
}

void Copies::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return queued_ > 0 || end_; });
    if (end_) return;  // what is still queued belongs to a rank that has failed
    Copy& c = copies_[queue_[first_]];
    first_ = (first_ + 1) % kMost, --queued_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      move(c);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    c.done = true;
    if (failure) failure_ = failure;
    changed_.notify_all();
  }
}

}  // namespace lockstep
