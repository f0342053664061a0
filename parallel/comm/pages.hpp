// Zeroed memory that the kernel hands out page by page at first touch, so that room reserved for the worst
// case costs nothing until it is used.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <string>

#include "ref/error.hpp"

namespace lockstep {

class Pages {
 public:
  explicit Pages(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* p =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw OutOfMemory("no memory for messages, " + std::to_string(bytes) + " bytes");
    data_ = static_cast<char*>(p);
  }
  ~Pages() {
    if (data_) munmap(data_, bytes_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  char* data() const { return data_; }

 private:
  char* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace lockstep
