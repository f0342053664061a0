// A block of threads as fibers of this thread: the environment of kernels/cuda/warp.hpp, lane by lane.
// Whatever lanes do together is done when the last of them has come, by the tables of the PTX ISA ("Matrix
// Fragments for mma.m16n8k16", "ldmatrix"). Between two meetings fibers run one after another, in another
// order each time, so that a missing sync shows; copies land at once or at their wait, by chance, so that a
// missing wait and a place that is filled too early do. Products of four warps (warpgroup.hpp; "Asynchronous
// Warpgroup Level Matrix Instructions") are made at once or at their wait, by chance too.
#pragma once
#include <gtest/gtest.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/warpgroup.hpp"

namespace lockstep::fibers {

class Block;

// One thread's view.
class Fiber {
 public:
  int thread() const { return thread_; }
  i64 block() const;
  char* shared() const;
  void sync();
  void sync_warp();
  float across(float x, int mask);
  int same(int x) const { return x; }
  void copy_async(void* to, const void* from, bool there);
  void commit() { copies_.emplace_back(); }
  template <int n>
  void wait() {  // the last, uncommitted group is not counted
    while (static_cast<int>(copies_.size()) - 1 > n) {
      for (const Copy& c : copies_.front()) c.land();
      copies_.pop_front();
      published_ = false;
    }
  }
  void load_matrix(cuda::Words<4>& r, const void* row) { load(r, row, false); }
  void load_transposed(cuda::Words<4>& r, const void* row) { load(r, row, true); }
  void multiply(cuda::Sums& c, const cuda::Words<4>& a, std::uint32_t b0, std::uint32_t b1);
  float exp2(float x) const { return std::exp2(x); }
  void publish() { published_ = true; }
  void begin() {}
  void settle(auto&...) {}
  template <int kColumns, bool kDown, class Left>
  void multiply(cuda::Sums (&sums)[kColumns / 8], const Left& left, const cuda::Operand& right, bool keep);
  void commit_products();
  template <int n>
  void wait_products() {
    wait_products(n);
  }

 private:
  friend class Block;
  struct Copy {
    void* to;
    const void* from;
    bool there;
    void land() const { there ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); }
  };
  void load(cuda::Words<4>& r, const void* row, bool transposed);
  void wait_products(int n);
  static float element(const char* at) {  // of a tile that is swizzled by 128 bytes
    const auto place = reinterpret_cast<std::uintptr_t>(at);
    return float{*reinterpret_cast<const bf16*>(place ^ (place >> 7 & 7) << 4)};
  }
  int group() const { return thread_ / 128 * 128; }
  int thread_ = 0;
  Block* block_ = nullptr;
  ucontext_t context_{};
  bool ended_ = false;
  const void* waits_at_ = nullptr;  // the meeting
  std::deque<std::vector<Copy>> copies_{1};
  // What this lane brings to a meeting of its warp.
  const void* row_ = nullptr;
  cuda::Words<4>* words_ = nullptr;
  cuda::Sums* sums_ = nullptr;
  cuda::Words<4> left_{};
  std::uint32_t right_[2] = {};
  float value_ = 0;
  bool published_ = true;  // what its waits have brought
};

// Products of four warps, each of whose commits is a group; the last is not committed yet.
struct Products {
  std::deque<std::vector<std::function<void()>>> groups{1};
};

class Block {
 public:
  i64 conflicts = 0;  // of ldmatrix: banks asked twice by eight rows

  template <class Kernel>
  void run(const Kernel& kernel, i64 block) {
    block_ = block;
    shared_.assign(static_cast<std::size_t>(Kernel::kShared) / 16 + 64, {});
    for (auto& words : shared_) words.fill(0x7fc07fc0u);  // NaNs
    body_ = [&kernel](Fiber& fiber) { kernel(fiber); };
    fibers_.clear(), products_.clear();
    for (int t = 0; t < Kernel::kThreads; ++t) {
      fibers_.push_back(std::make_unique<Fiber>());
      Fiber& f = *fibers_.back();
      f.thread_ = t, f.block_ = this;
      if (stacks_.size() < fibers_.size()) stacks_.emplace_back(new char[kStack]);
      getcontext(&f.context_);
      f.context_.uc_stack.ss_sp = stacks_[t].get(), f.context_.uc_stack.ss_size = kStack;
      f.context_.uc_link = &home_;
      makecontext(&f.context_, reinterpret_cast<void (*)()>(&Block::enter), 0);
    }
    std::vector<int> warps(fibers_.size() / 32);
    for (std::size_t i = 0; i < warps.size(); ++i) warps[i] = static_cast<int>(i);
    for (bool left = true; left;) {
      left = false;
      bool moved = false;
      std::shuffle(warps.begin(), warps.end(), random_);
      for (const int warp : warps) {
        while (run_warp(warp)) moved = true;  // as far ahead of the others as it gets
        for (int lane = 0; lane < 32; ++lane) left |= !fibers_[warp * 32 + lane]->ended_;
      }
      if (left && !moved) throw std::logic_error("threads wait for each other at different meetings");
    }
  }

  i64 block() const { return block_; }
  bool coin() { return random_() % 2; }
  char* shared() {
    const auto at = reinterpret_cast<std::uintptr_t>(shared_.data());
    return reinterpret_cast<char*>((at + 1023) / 1024 * 1024);
  }

  // The last of the threads [first, first + count) to come does the work; then all go on.
  void meet(Fiber& me, int first, int count, const void* what, const std::function<void()>& work) {
    me.waits_at_ = what;
    for (int t = first; t < first + count; ++t)
      if (fibers_[t]->waits_at_ != what) {
        swapcontext(&me.context_, &home_);
        return;
      }
    work();
    for (int t = first; t < first + count; ++t) fibers_[t]->waits_at_ = nullptr;
    swapcontext(&me.context_, &home_);  // so that the first to go on is another one each time
  }
  std::size_t fibers_count() const { return fibers_.size(); }
  Products& products(int group) { return products_[group]; }
  Fiber& thread(int t) { return *fibers_[t]; }
  Fiber& lane(const Fiber& of, int l) { return *fibers_[of.thread_ / 32 * 32 + l]; }

 private:
  static constexpr std::size_t kStack = 256 << 10;
  static inline thread_local Block* current = nullptr;
  // Each of its threads up to its next meeting; false if all wait.
  bool run_warp(int warp) {
    std::array<int, 32> order;
    for (int lane = 0; lane < 32; ++lane) order[static_cast<std::size_t>(lane)] = warp * 32 + lane;
    std::shuffle(order.begin(), order.end(), random_);
    bool moved = false;
    for (const int t : order) {
      Fiber& f = *fibers_[t];
      if (f.ended_ || f.waits_at_) continue;
      moved = true;
      running_ = &f, current = this;
      swapcontext(&home_, &f.context_);
    }
    return moved;
  }
  static void enter() {
    Fiber& f = *current->running_;
    current->body_(f);
    f.ended_ = true;
  }
  i64 block_ = 0;
  std::vector<std::array<std::uint32_t, 4>> shared_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<std::unique_ptr<char[]>> stacks_;  // kept from block to block
  std::map<int, Products> products_;             // by their warps' first thread
  std::function<void(Fiber&)> body_;
  ucontext_t home_{};
  Fiber* running_ = nullptr;
  std::mt19937 random_{1};
};

inline void Fiber::copy_async(void* to, const void* from, bool there) {
  const Copy copy{to, from, there};
  if (block_->coin())
    copy.land();
  else
    copies_.back().push_back(copy);
}
inline i64 Fiber::block() const { return block_->block(); }
inline char* Fiber::shared() const { return block_->shared(); }
inline void Fiber::sync() {
  static const char what = 0;
  const int threads = static_cast<int>(block_->fibers_count());
  block_->meet(*this, 0, threads, &what, [] {});
}
inline void Fiber::sync_warp() {
  static const char what = 0;
  block_->meet(*this, thread_ / 32 * 32, 32, &what, [] {});
}
inline float Fiber::across(float x, int mask) {
  static const char what = 0;
  value_ = x;
  float got = 0;
  const int warp = thread_ / 32 * 32;
  block_->meet(*this, warp, 32, &what, [&] {
    float all[32];
    for (int l = 0; l < 32; ++l) all[l] = block_->lane(*this, l).value_;
    for (int l = 0; l < 32; ++l) block_->lane(*this, l).value_ = all[l ^ mask];
  });
  got = value_;
  return got;
}
inline void Fiber::load(cuda::Words<4>& r, const void* row, bool transposed) {
  static const char plain = 0, turned = 0;
  row_ = row, words_ = &r;
  block_->meet(*this, thread_ / 32 * 32, 32, transposed ? &turned : &plain, [&] {
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::uint16_t all[8][8];
      unsigned banks = 0;
      for (int i = 0; i < 8; ++i) {
        const void* at = block_->lane(*this, 8 * matrix + i).row_;
        std::memcpy(all[i], at, 16);
        const unsigned bank = 1u << (reinterpret_cast<std::uintptr_t>(at) / 16 % 8);
        block_->conflicts += (banks & bank) != 0;
        banks |= bank;
      }
      for (int l = 0; l < 32; ++l) {
        const int g = l / 4, t = l % 4 * 2;
        const std::uint16_t low = transposed ? all[t][g] : all[g][t],
                            high = transposed ? all[t + 1][g] : all[g][t + 1];
        block_->lane(*this, l).words_->at[matrix] = low | static_cast<std::uint32_t>(high) << 16;
      }
    }
  });
}
inline void Fiber::multiply(cuda::Sums& c, const cuda::Words<4>& a, std::uint32_t b0, std::uint32_t b1) {
  static const char what = 0;
  sums_ = &c, left_ = a, right_[0] = b0, right_[1] = b1;
  block_->meet(*this, thread_ / 32 * 32, 32, &what, [&] {
    float left[16][16], right[16][8];  // [row][k], [k][column]
    const auto half = [](std::uint32_t word, int i) {
      return float{std::bit_cast<bf16>(static_cast<std::uint16_t>(word >> 16 * i))};
    };
    for (int l = 0; l < 32; ++l) {
      const Fiber& f = block_->lane(*this, l);
      const int g = l / 4, t = l % 4 * 2;
      for (int i = 0; i < 2; ++i) {
        for (int w = 0; w < 4; ++w) left[g + w % 2 * 8][t + i + w / 2 * 8] = half(f.left_.at[w], i);
        for (int w = 0; w < 2; ++w) right[t + i + w * 8][g] = half(f.right_[w], i);
      }
    }
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        float& sum = block_->lane(*this, l).sums_->at[i];
        for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
      }
  });
}

template <int kColumns, bool kDown, class Left>
void Fiber::multiply(cuda::Sums (&sums)[kColumns / 8], const Left& left, const cuda::Operand& right,
                     bool keep) {
  static const char what = 0;
  constexpr bool in_registers = std::is_same_v<Left, cuda::Words<4>>;
  sums_ = sums;
  if constexpr (in_registers) left_ = left;
  block_->meet(*this, group(), 128, &what, [&] {
    for (std::size_t t = 0; t < block_->fibers_count(); ++t)
      EXPECT_TRUE(block_->thread(static_cast<int>(t)).published_) << "products read what was copied";
    std::array<cuda::Sums*, 128> outs;
    std::array<cuda::Words<4>, 128> lefts;
    for (int t = 0; t < 128; ++t)
      outs[t] = block_->thread(group() + t).sums_, lefts[t] = block_->thread(group() + t).left_;
    auto work = [=] {
      std::vector<float> a(64 * 16), b(16 * kColumns);
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < kColumns; ++n)
          b[k * kColumns + n] =
              element(kDown ? right.base + right.offset + n / 64 * right.leading + n % 64 * 2 +
                                  k / 8 * right.stride + k % 8 * 128
                            : right.base + right.offset + n / 8 * right.stride + n % 8 * 128 + k * 2);
        if constexpr (!in_registers)
          for (int m = 0; m < 64; ++m)
            a[m * 16 + k] = element(left.base + left.offset + m / 8 * left.stride + m % 8 * 128 + k * 2);
      }
      if constexpr (in_registers)
        for (int t = 0; t < 128; ++t)
          for (int w = 0; w < 4; ++w)
            for (int i = 0; i < 2; ++i)
              a[(t / 32 * 16 + t % 32 / 4 + w % 2 * 8) * 16 + t % 4 * 2 + i + w / 2 * 8] =
                  float{std::bit_cast<bf16>(static_cast<std::uint16_t>(lefts[t].at[w] >> 16 * i))};
      for (int t = 0; t < 128; ++t)
        for (int n = 0; n < kColumns / 8; ++n)
          for (int i = 0; i < 4; ++i) {
            const int row = t / 32 * 16 + t % 32 / 4 + i / 2 * 8, column = 8 * n + t % 4 * 2 + i % 2;
            float sum = keep ? outs[t][n].at[i] : 0.0f;
            for (int k = 0; k < 16; ++k) sum += a[row * 16 + k] * b[k * kColumns + column];
            outs[t][n].at[i] = sum;
          }
    };
    auto& groups = block_->products(group()).groups;
    const bool first = groups.size() == 1 && groups.front().empty();
    if (first && block_->coin())
      work();
    else
      groups.back().push_back(work);
  });
}
inline void Fiber::commit_products() {
  static const char what = 0;
  block_->meet(*this, group(), 128, &what, [&] { block_->products(group()).groups.emplace_back(); });
}
inline void Fiber::wait_products(int n) {
  static const char what = 0;
  block_->meet(*this, group(), 128, &what, [&] {
    auto& groups = block_->products(group()).groups;
    for (; static_cast<int>(groups.size()) - 1 > n; groups.pop_front())
      for (const auto& work : groups.front()) work();
  });
}

struct Launch {
  static inline i64 conflicts = 0;
  template <class Kernel>
  static bool prepare() {
    return true;
  }
  template <class Kernel>
  static void launch(Lanes&, const Kernel& kernel, i64 blocks) {
    Block block;
    for (i64 b = 0; b < blocks; ++b) block.run(kernel, b);
    conflicts += block.conflicts;
  }
};

}  // namespace lockstep::fibers
