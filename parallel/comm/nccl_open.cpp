#include <dlfcn.h>

#include "parallel/comm/beside.hpp"
#include "parallel/comm/fabric.hpp"

namespace lockstep {

Fabrics& nccl() {
  using Entry = Fabrics*();
  static Fabrics* const found = reinterpret_cast<Entry*>(entry_beside(
      "lockstep_nccl.so", "lockstep_nccl", RTLD_LOCAL,
      "this program was built without NCCL ({} is not there); install NCCL and the CUDA toolkit, so that "
      "nccl.h and nvcc are found, and run make again",
      "NCCL cannot be used here"))();
  return *found;
}

}  // namespace lockstep
