// A device that computes nothing: what a rank would do on it is noted in its trace.
#pragma once
#include "kernels/lanes.hpp"
#include "parallel/device/device.hpp"
#include "parallel/device/disk.hpp"

namespace lockstep {

class NotingDevice {
  NoPlacer nowhere_;
  Disk no_file_;
  Lanes lanes_{1};

 public:
  explicit NotingDevice(int rank = 0);

  Trace trace;
  Device device;
};

}  // namespace lockstep
