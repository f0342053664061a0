// Which cores a process may use, and how several share them.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "kernels/cores.hpp"
#include "suites/tests/temporary_folder.hpp"

namespace lockstep {
namespace {

TEST(Cores, AreThoseThatTheProcessIsBoundTo) {
  const std::vector<int> all = core_numbers();
  ASSERT_FALSE(all.empty());
  EXPECT_LE(cores(), static_cast<int>(all.size()));
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&one);
  CPU_SET(all.back(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(cores(), 1);
  EXPECT_EQ(core_numbers(), std::vector<int>{all.back()});
  sched_setaffinity(0, sizeof before, &before);
  EXPECT_EQ(core_numbers(), all);
}

// Every core is somebody's, as evenly as can be; where processes outnumber cores each still has one.
TEST(Cores, ArePartedWithoutRest) {
  for (int n = 1; n <= 9; ++n)
    for (int parts = 1; parts <= 12; ++parts) {
      std::vector<int> all;
      for (int i = 0; i < n; ++i) all.push_back(10 + 3 * i);
      std::multiset<int> given;
      for (int part = 0; part < parts; ++part) {
        const std::vector<int> mine = cores_of_part(all, part, parts);
        const int least = std::max(1, n / parts), most = std::max(1, (n + parts - 1) / parts);
        EXPECT_GE(static_cast<int>(mine.size()), least);
        EXPECT_LE(static_cast<int>(mine.size()), most);
        given.insert(mine.begin(), mine.end());
      }
      for (const int core : all) EXPECT_GE(given.count(core), 1u) << n << " cores, " << parts << " parts";
      if (parts <= n) {
        EXPECT_EQ(given.size(), all.size());
      }
    }
  EXPECT_TRUE(cores_of_part({}, 0, 2).empty());
}

TEST(Cores, AQuotaOfTimeIsSoMany) {
  const TemporaryFolder folder;
  const auto of = [&](const char* name, const std::string& text) {
    std::ofstream(folder.path() + name) << text << "\n";
    return cores_of_quota(folder.path());
  };
  EXPECT_EQ(cores_of_quota(folder.path()), 0);
  std::filesystem::create_directory(folder.path() + "/cpu");
  of("/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(of("/cpu/cpu.cfs_quota_us", "-1"), 0);
  EXPECT_EQ(of("/cpu/cpu.cfs_quota_us", "350000"), 3);
  EXPECT_EQ(of("/cpu.max", "50000 100000"), 1);
  EXPECT_EQ(of("/cpu.max", "800000 100000"), 8);
  std::filesystem::remove_all(folder.path() + "/cpu");
  EXPECT_EQ(of("/cpu.max", "max 100000"), 0);
}

// Lines as Linux writes them, on x86 and on Arm.
TEST(Cores, AreCalledWhatTheSystemCallsThem) {
  const TemporaryFolder folder;
  const auto of = [&](const std::string& text) { return processor_name(folder.write("cpuinfo", text)); };
  EXPECT_EQ(of("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 143\n"
               "model name\t: Intel(R) Xeon(R) Platinum 8480C\nflags\t\t: fpu\n"),
            "Intel(R) Xeon(R) Platinum 8480C");
  const std::string arm =
      "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
      "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: ";
  EXPECT_EQ(of(arm + "0xd4f\nCPU revision\t: 0\n"), "Neoverse V2");
  EXPECT_EQ(of(arm + "0xfff\nCPU revision\t: 0\n"), "Arm, implementer 0x41, part 0xfff");
  EXPECT_EQ(of("processor\t: 0\n"), "unknown");
  EXPECT_EQ(processor_name(folder.path() + "/none"), "unknown");
}

}  // namespace
}  // namespace lockstep
