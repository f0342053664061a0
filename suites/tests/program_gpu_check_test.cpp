// ci/gpu_check.sh on a machine whose nvidia-smi says that there is a GPU, and has none: every part's command
// is whole, for it gets as far as asking for the device; what fails is said, and nothing passes for want of a
// GPU.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "parallel/device/engine.hpp"
#include "suites/tests/program_runner.hpp"

namespace lockstep {
namespace {

std::string text_of(const std::string& path) {
  std::ostringstream all;
  all << std::ifstream(path).rdbuf();
  return all.str();
}

TEST(GpuCheck, EveryPartAsksForTheDeviceAndFailsWithoutOne) {
  const std::string bin = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  if (!std::filesystem::exists(bin + "/lockstep_cuda.so") || !std::filesystem::exists(bin + "/test_cuda"))
    GTEST_SKIP() << "built without CUDA";
  if (why_no_device("cuda").empty()) GTEST_SKIP() << "there is a GPU";
  const TemporaryFolder folder;
  const std::string smi = folder.path() + "/nvidia-smi", out = folder.path() + "/out";
  std::ofstream(smi) << "#!/bin/sh\necho 'NVIDIA H100, 1, 1 MiB'\n";
  std::filesystem::permissions(smi, std::filesystem::perms::owner_all);
  const std::string command = "PATH=" + folder.path() + ":$PATH GPU_CHECK_SECONDS=200 ci/gpu_check.sh " +
                              bin + " " + out + " > " + folder.path() + "/said 2>&1";
  EXPECT_NE(std::system(command.c_str()), 0);
  const std::string summary = text_of(out + "/summary.txt");
  for (const char* part : {"hash", "kernels", "kernels-warpgroups", "fast", "bf16", "bf16-fast", "flash",
                           "graphs", "resume", "context", "speed", "speed-warpgroups", "speed-timed",
                           "speed-graphs", "speed-1.1b", "gate", "sweep", "calibrate"}) {
    EXPECT_NE(summary.find("FAILED  " + std::string(part) + " ("), std::string::npos) << part << " in\n"
                                                                                      << summary;
    if (std::string(part).starts_with("kernels")) continue;
    const std::string log = text_of(out + "/" + part + ".log");
    EXPECT_NE(log.find("device cuda cannot be used here"), std::string::npos) << part << " says\n" << log;
  }
  EXPECT_EQ(summary.find("ok "), std::string::npos) << summary;

  EXPECT_NE(std::system(("GPU_CHECK_PARTS='ha.*|gate' " + command).c_str()), 0);
  EXPECT_EQ(std::regex_replace(text_of(out + "/summary.txt"), std::regex("\\(.*|skipped.*\n"), ""),
            "FAILED  hash \nFAILED  gate \n");
}

}  // namespace
}  // namespace lockstep
