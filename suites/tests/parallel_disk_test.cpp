// A rank's file: copies to and from it, what a fault of the disk does to the job, and that nothing stays
// behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "parallel/device/copies.hpp"
#include "parallel/device/noting.hpp"
#include "suites/run/reference.hpp"
#include "suites/tests/temporary_folder.hpp"
#include "suites/tests/user_error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::size_t entries(const std::string& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// This process's open file in `folder`, which has no name any more; -1 if there is none.
int nameless_file_in(const std::string& folder) {
  for (const auto& fd : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string at = fs::read_symlink(fd.path(), gone).string();
    if (at.starts_with(folder + "/") && at.ends_with(" (deleted)")) return std::stoi(fd.path().filename());
  }
  return -1;
}

class DiskCopies : public testing::TestWithParam<Timing> {
 protected:
  static constexpr i64 kElements = 5000;
  const TemporaryFolder folder;
  ArenaPlan plan{
      .places = {{0, 4 * kElements}, {20032, 4 * kElements}}, .setup = 2, .bytes = 40064, .live = 40064};
  Disk disk{plan, folder.path(), false};
  Copies copies{disk, GetParam()};
  View first{disk.take(4 * kElements), 0, 0, Type::f32, Medium::disk};
  View second{disk.take(4 * kElements), 1, 0, Type::f32, Medium::disk};

  View view(std::vector<float>& v) const { return {v.data(), 2, 0, Type::f32, Medium::host}; }
  void copy(const View& to, const View& from, i64 n) { copies.wait(copies.start(to, from, n)); }
};

TEST_P(DiskCopies, ComeBackAsTheyWent) {
  std::vector<float> a(kElements), b(kElements), part(7);
  std::iota(a.begin(), a.end(), 1.f), std::iota(b.begin(), b.end(), -9000.f);
  // Both on their way at once, and waited for the other way round.
  const int one = copies.start(first, view(a), kElements), two = copies.start(second, view(b), kElements);
  copies.wait(two), copies.wait(one);
  std::vector<float> back(kElements);
  copy(view(back), second, kElements);
  EXPECT_EQ(back, b);
  copy(view(back), first, kElements);
  EXPECT_EQ(back, a);
  copy(view(part), first.from(4990), 7);
  EXPECT_EQ(part, (std::vector<float>{4991, 4992, 4993, 4994, 4995, 4996, 4997}));
  copy(first.from(100), view(part), 7);
  copy(view(back), first, kElements);
  std::copy(part.begin(), part.end(), a.begin() + 100);
  EXPECT_EQ(back, a);
}

// The system moves no more than 2 GiB at once, and may move less than it is asked to.
TEST_P(DiskCopies, MayTakeSeveralCallsOfTheSystem) {
  disk.at_once = 4096;  // of 20000 bytes
  std::vector<float> a(kElements), back(kElements);
  std::iota(a.begin(), a.end(), 1.f);
  copy(second, view(a), kElements);
  copy(view(back), second, kElements);
  EXPECT_EQ(back, a);
}

TEST_P(DiskCopies, FileHasNoNameWhileItIsUsed) {
  EXPECT_EQ(entries(folder.path()), 0u);
  EXPECT_GE(nameless_file_in(folder.path()), 0);
}

INSTANTIATE_TEST_SUITE_P(Timings, DiskCopies, testing::Values(Timing::eager, Timing::lazy),
                         [](const auto& test) { return test.param == Timing::eager ? "eager" : "lazy"; });

using LazyDiskCopies = DiskCopies;

// Until the wait neither the memory read into nor the file written to may be looked at: both hold NaN.
TEST_P(LazyDiskCopies, PoisonTheirTargetUntilTheWait) {
  std::vector<float> a(kElements, 3.f), b(kElements, 5.f);
  copy(first, view(a), kElements);
  const int reading = copies.start(view(b), first, kElements);
  EXPECT_TRUE(std::isnan(b.front()) && std::isnan(b.back()));
  copies.wait(reading);
  EXPECT_EQ(b, a);
  const int writing = copies.start(first, view(a), kElements);
  disk.read(b.data(), first.at, 4 * kElements);
  EXPECT_TRUE(std::isnan(b.front()) && std::isnan(b.back()));
  a.front() = 4;  // too early: it shows
  copies.wait(writing);
  copy(view(b), first, kElements);
  EXPECT_EQ(b.front(), 4);
}

INSTANTIATE_TEST_SUITE_P(Timings, LazyDiskCopies, testing::Values(Timing::lazy),
                         [](const auto&) { return "lazy"; });

struct DiskScene {
  ModelConfig model = load_model_config("suites/models/gate-tiny.json");
  TokenFile data{"datasets/excerpt-v509.tok"};
  Settings settings;
  DiskScene() { settings.batch = 8, settings.seq = 16, settings.steps = 2; }
  Prepared prepared(const char* plan) const { return prepare({model, settings, Plan::parse(plan), &data}); }
};

const char* const on_disk = "dp=2 pp=2 offload=optimizer to=disk";

TEST(Disk, ARunLeavesNothingBehindAtAnyTime) {
  const TemporaryFolder folder;
  std::atomic<bool> named{false}, used{false};
  launch(DiskScene().prepared(on_disk), {.scratch = folder.path()}, [&](RankView v) {
    v.executor.initialise({});
    v.executor.step(0);
    if (entries(folder.path()) != 0) named = true;
    if (nameless_file_in(folder.path()) >= 0) used = true;
  });
  EXPECT_FALSE(named);
  EXPECT_TRUE(used);
  EXPECT_EQ(nameless_file_in(folder.path()), -1);
}

TEST(Disk, AFolderThatCannotBeWrittenToIsOneSentence) {
  try {
    launch(DiskScene().prepared(on_disk), {.scratch = "/no/such"}, [](RankView v) { v.executor.step(0); });
    FAIL() << "no error";
  } catch (const UserError& e) {
    EXPECT_TRUE(says(e.what(), "rank ", "/no/such", "No such file or directory", "--scratch"));
  }
}

// A disk that fails while ranks train: the file's descriptor now leads to a device that is always full.
TEST(Disk, AFaultDuringTheRunEndsTheWholeJobWithRankAndFolder) {
  for (const Timing timing : {Timing::eager, Timing::lazy}) {
    const TemporaryFolder folder;
    std::atomic<bool> broken{false};
    try {
      launch(DiskScene().prepared(on_disk), {.timing = timing, .scratch = folder.path()}, [&](RankView v) {
        v.executor.initialise({});
        v.executor.step(0);
        if (!broken.exchange(true)) {
          const int full = open("/dev/full", O_RDWR | O_CLOEXEC);
          ASSERT_GE(full, 0);
          dup2(full, nameless_file_in(folder.path()));
          close(full);
        }
        for (i64 k = 1; k < 4; ++k) v.executor.step(k);
      });
      FAIL() << "no error";
    } catch (const CommError& e) {
      EXPECT_TRUE(says(e.what(), "rank ", folder.path(), "No space left on device"));
    }
  }
}

TEST(Disk, NoKernelMayTouchIt) {
  NotingDevice noting;
  Device& device = noting.device;
  const Ops<float>& ops = device.ops();
  const Buf b = device.take("moments", Kind::disk, 10), m = device.take("block", Kind::host, 10);
  EXPECT_THROW(device.run(ops.zero, b, 10), std::logic_error);
  EXPECT_THROW(device.all_reduce(Axis::dp, Reduce::sum, b, b, 10, "x", 0), std::logic_error);
  EXPECT_THROW(b.relabel(Kind::host), std::logic_error);
  device.run(ops.zero, m, 10);
  EXPECT_EQ(peaks(noting.trace).total, 40);
  EXPECT_EQ(peaks(noting.trace).by_kind[static_cast<int>(Kind::disk)], 40);
}

// Ends with 0 if this process, which may write no longer file than 8 KiB, is told so in a sentence.
void in_a_folder_without_room(const std::string& folder) {
  signal(SIGXFSZ, SIG_IGN);
  const rlimit most{8192, 8192};
  setrlimit(RLIMIT_FSIZE, &most);
  const ArenaPlan plan{.places = {{0, 1 << 20}}, .setup = 1, .bytes = 1 << 20, .live = 1 << 20};
  try {
    const Disk disk(plan, folder, false);
  } catch (const UserError& error) {
    const bool told = says(error.what(), folder + ": this folder has no room for 1048576 bytes of");
    std::exit(told && nameless_file_in(folder) < 0 ? 0 : 1);
  }
  std::exit(2);
}

TEST(Disk, AFolderWithoutRoomIsOneSentence) {
  const TemporaryFolder folder;
  EXPECT_EXIT(in_a_folder_without_room(folder.path()), testing::ExitedWithCode(0), "");
}

// What guard pages are to memory.
TEST(GuardedDisk, ABufferThatIsTakenHoldsNoNumber) {
  const TemporaryFolder folder;
  const ArenaPlan plan{.places = {{0, 40}, {64, 40}}, .setup = 2, .bytes = 128, .live = 128};
  Disk disk{plan, folder.path(), true};
  std::vector<float> read(10, 1.f);
  disk.read(read.data(), disk.take(40), 40);
  for (const float x : read) EXPECT_TRUE(std::isnan(x));
}

TEST(GuardedDisk, KnowsItsBuffers) {
  const TemporaryFolder folder;
  const ArenaPlan plan{.places = {{0, 40}, {64, 40}}, .setup = 2, .bytes = 128, .live = 128};
  Disk disk{plan, folder.path(), true};
  auto* first = static_cast<std::byte*>(disk.take(40));
  std::array<std::byte, 64> some{};
  EXPECT_THROW(disk.write(first + 64, some.data(), 4), std::logic_error);  // nobody's yet
  auto* second = static_cast<std::byte*>(disk.take(40));
  disk.write(first, some.data(), 40), disk.read(some.data(), second + 8, 32);
  EXPECT_THROW(disk.write(first, some.data(), 42), std::logic_error);
  EXPECT_THROW(disk.read(some.data(), second + 8, 34), std::logic_error);
  disk.give(first, 40);
  EXPECT_THROW(disk.read(some.data(), first, 4), std::logic_error);
  disk.read(some.data(), second, 40);
}

}  // namespace
}  // namespace lockstep
