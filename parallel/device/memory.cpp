#include "parallel/device/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>

#include "parallel/trace/trace.hpp"
#include "ref/error.hpp"

namespace lockstep {

const char* kind_name(Kind kind) {
  static constexpr const char* names[] = {"weights",   "gathered", "gradients", "reducing",
                                          "optimizer", "host",     "disk",      "activations",
                                          "messages",  "waiting",  "buffers",   "inputs"};
  return names[static_cast<int>(kind)];
}

View View::from(i64 elements) const {
  return {static_cast<std::byte*>(at) + elements * type_bytes(type), block, first + elements, type, medium};
}

View View::as(Type other) const {
  return {at, block, first * type_bytes(type) / type_bytes(other), other, medium};
}

Buf::Buf(const Buf& o) : memory_(o.memory_), block_(o.block_) {
  if (memory_) ++memory_->blocks_[block_].owners;
}
void Buf::free() {
  if (Memory* m = std::exchange(memory_, nullptr)) m->release(std::exchange(block_, -1));
}
i64 Buf::elements() const { return memory_->blocks_[block_].elements; }
View Buf::view() const {
  if (!memory_) return {};
  const Memory::Block& b = memory_->blocks_[block_];
  return {b.at, b.serial, 0, b.type, medium_of(b.kind)};
}
Kind Buf::kind() const { return memory_->blocks_[block_].kind; }
void Buf::relabel(Kind kind) const {
  Memory::Block& b = memory_->blocks_[block_];
  if (b.kind == kind) return;
  if (medium_of(b.kind) != medium_of(kind)) throw std::logic_error("a new label does not move a buffer");
  b.kind = kind;
  memory_->done_.add(b.serial - memory_->takes_before_), memory_->done_.add(kind_name(kind));
  if (memory_->trace_) memory_->trace_->relabel(b.serial, kind);
}

Memory::~Memory() = default;

Buf Memory::take(const char* name, Kind kind, i64 elements, Type type) {
  const i64 bytes = elements * type_bytes(type);
  int id;
  if (free_.empty()) {
    if (blocks_.size() == kBlocks) throw std::logic_error("too many buffers alive at once");
    id = static_cast<int>(blocks_.size());
    blocks_.push_back({});
  } else {
    id = free_.back();
    free_.pop_back();
  }
  const int serial = takes_++;
  blocks_[id] = {placer_of(kind).take(bytes), elements, type, kind, 1, serial};
  done_.add(name), done_.add(kind_name(kind)), done_.add(bytes);
  if (trace_) trace_->take(serial, name, kind, bytes);
  return Buf(this, id);
}

void Memory::release(int id) {
  Block& b = blocks_[id];
  if (--b.owners) return;
  placer_of(b.kind).give(b.at, b.elements * type_bytes(b.type));
  done_.add(b.serial - takes_before_);
  if (trace_) trace_->give(b.serial);
  free_.push_back(id);
}

void* NoPlacer::take(i64 bytes) {
  void* at = reinterpret_cast<void*>(next_);
  next_ += (static_cast<std::size_t>(bytes) + 63) / 64 * 64 + 64;
  return at;
}

i64 Places::next(i64 bytes) {
  if (next_ >= static_cast<int>(plan_.places.size()) || plan_.places[next_].bytes != bytes)
    throw std::logic_error("the step takes other buffers than its trace did");
  return plan_.places[next_++].offset;
}

ArenaPlacer::ArenaPlacer(const ArenaPlan& plan) : places_(plan), bytes_(plan.bytes + 64) {
  base_ = mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
               -1, 0);
  if (base_ == MAP_FAILED) throw OutOfMemory(fmt::format("no memory for an arena of {} bytes", bytes_));
}
ArenaPlacer::ArenaPlacer(const ArenaPlan& plan, void* base) : places_(plan), bytes_(0), base_(base) {}
ArenaPlacer::~ArenaPlacer() {
  if (bytes_) munmap(base_, static_cast<std::size_t>(bytes_));
}

void* ArenaPlacer::take(i64 bytes) { return static_cast<std::byte*>(base_) + places_.next(bytes); }

namespace {
std::size_t page() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}
std::size_t pages_for(i64 bytes) { return (static_cast<std::size_t>(bytes) + page() - 1) / page() * page(); }

// Many ranks of one process come to the system's limit on mappings long before they fill its memory.
[[noreturn]] void refuse_guarded(i64 bytes) {
  const int why = errno;
  std::string most = "unknown";
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  throw OutOfMemory(fmt::format(
      "no memory for a guarded buffer of {} bytes: {}, or this process has all of its {} mappings "
      "(vm.max_map_count), of which each buffer is two; ranks that are processes (--launch) have as many "
      "each",
      bytes, std::strerror(why), most));
}

// What guarded ranks have left, out of reach, for later ones of this process: pages that are there already
// cost a fraction of new ones. While any rank is left it may still point to what another had, so nobody gets
// that. When they become too many, plans of other sizes have come, and all go.
class Spare {
 public:
  void begin() {
    const std::lock_guard lock(mutex_);
    ++ranks_;
  }
  void end(const std::map<std::size_t, std::deque<std::byte*>>& left) noexcept {
    const std::lock_guard lock(mutex_);
    for (const auto& [body, bases] : left)
      for (std::byte* base : bases) keep(body, base, [&] { left_.emplace_back(body, base); });
    if (--ranks_ > 0) return;
    for (const auto& [body, base] : left_)
      keep(body, base, [&] {
        resting_[body].push_back(base);
        ++count_, bytes_ += body;
      });
    left_.clear();
    if (bytes_ > kMostBytes || count_ > kMost) clear();
  }
  std::byte* take(std::size_t body) {
    const std::lock_guard lock(mutex_);
    const auto found = resting_.find(body);
    if (found == resting_.end() || found->second.empty()) return nullptr;
    std::byte* base = found->second.front();
    found->second.pop_front();
    --count_, bytes_ -= body;
    return base;
  }
  void unmap_all() {
    const std::lock_guard lock(mutex_);
    clear();
  }

 private:
  static constexpr std::size_t kMostBytes = std::size_t{1} << 27, kMost = 1 << 13;
  static void unmap(std::size_t body, std::byte* base) { munmap(base, body + 2 * page()); }
  // What there is no memory to remember is given up.
  template <class F>
  static void keep(std::size_t body, std::byte* base, const F& remember) noexcept {
    try {
      remember();
    } catch (const std::bad_alloc&) {
      unmap(body, base);
    }
  }
  void clear() {
    for (const auto& [body, bases] : resting_)
      for (std::byte* base : bases) unmap(body, base);
    resting_.clear();
    count_ = bytes_ = 0;
  }
  std::mutex mutex_;
  int ranks_ = 0;
  std::vector<std::pair<std::size_t, std::byte*>> left_;   // by ranks that have ended, while others have not
  std::map<std::size_t, std::deque<std::byte*>> resting_;  // by bytes, longest first
  std::size_t count_ = 0, bytes_ = 0;
};
Spare& spare() {
  static Spare all;
  return all;
}

bool give_reach(std::byte* base, std::size_t body) {
  return mprotect(base + page(), body, PROT_READ | PROT_WRITE) == 0;
}

// Pages between two guard pages; null: there are no more.
std::byte* map_guarded(std::size_t body) {
  void* at = mmap(nullptr, body + 2 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  auto* base = static_cast<std::byte*>(at);
  // Guards unlike what is between them, so that the kernel need not join and part them each time.
  if (madvise(base, page(), MADV_DONTDUMP) == 0 &&
      madvise(base + page() + body, page(), MADV_DONTDUMP) == 0 && give_reach(base, body))
    return base;
  const int why = errno;
  munmap(base, body + 2 * page());
  errno = why;
  return nullptr;
}
}  // namespace

GuardPlacer::GuardPlacer() { spare().begin(); }
GuardPlacer::~GuardPlacer() { spare().end(resting_); }

void* GuardPlacer::take(i64 bytes) {
  const std::size_t body = pages_for(bytes);
  std::deque<std::byte*>& resting = resting_[body];
  std::byte* base = nullptr;
  if (resting.size() > kRest) {
    base = resting.front();
    resting.pop_front();
  } else {
    base = spare().take(body);
  }
  const auto reached = [&] { return base ? give_reach(base, body) : (base = map_guarded(body)) != nullptr; };
  if (!reached()) {
    spare().unmap_all();
    if (!reached()) refuse_guarded(bytes);
  }
  std::memset(base + page(), 0xFF, body);
  live_ += bytes;
  peak_ = std::max(peak_, live_);
  // Flush against the guard page behind, so that the first element past the end faults.
  return base + page() + body - bytes;
}

void GuardPlacer::give(void* at, i64 bytes) {
  live_ -= bytes;
  const std::size_t body = pages_for(bytes);
  std::byte* base = static_cast<std::byte*>(at) + bytes - body - page();
  mprotect(base + page(), body, PROT_NONE);
  resting_[body].push_back(base);
}

}  // namespace lockstep
