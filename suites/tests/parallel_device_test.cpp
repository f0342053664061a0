// What a device is given, and asked for, outside of its steps.
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/local_world.hpp"
#include "parallel/device/device.hpp"

namespace lockstep {
namespace {

// Weights are rounded to bf16 a million at a time (parallel/device/device.cpp).
TEST(Device, PutsMoreNumbersThanItRoundsAtOnce) {
  const std::size_t n = (1 << 20) + 5;
  std::vector<float> from(n), back(n);
  for (std::size_t i = 0; i < n; ++i) from[i] = static_cast<float>(i % 251);  // of which bf16 has every one
  std::vector<bf16> kept(n);
  LocalWorld world(Mesh{}, {}, Timing::eager);
  world.run([&](int rank, Comm& comm) {
    NoPlacer nowhere;
    Disk disk;
    const Ops<float> ops = plain_ops<float>();
    Lanes lanes(1);
    Device device(rank, nowhere, nowhere, disk, ops, lanes, &comm, nullptr);
    const View at{kept.data(), 0, 0, Type::bf16};
    put(device, at, from.data(), static_cast<i64>(n));
    get(device, back.data(), at, static_cast<i64>(n));
  });
  EXPECT_TRUE(std::equal(from.begin(), from.end(), kept.begin()));
  EXPECT_TRUE(back == from);
}

}  // namespace
}  // namespace lockstep
