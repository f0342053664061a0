// NVIDIA's cuBLASLt, opened at run time, so that programs start where it is not.
#pragma once
#include <cublasLt.h>
#include <dlfcn.h>

#include <stdexcept>
#include <string>
#include <type_traits>

namespace lockstep::cuda {

// The functions that are called, by their names in the library.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  bool found = false;

  Library() {
    void* handle = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
      if ((handle = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
    if (!handle) return;
    found = true;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      found = found && function;
    };
    get(create, "cublasLtCreate"), get(destroy, "cublasLtDestroy"), get(matmul, "cublasLtMatmul");
    get(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    get(desc_create, "cublasLtMatmulDescCreate"), get(desc_set, "cublasLtMatmulDescSetAttribute");
    get(layout_create, "cublasLtMatrixLayoutCreate");
    get(preference_create, "cublasLtMatmulPreferenceCreate");
    get(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    get(preference_destroy, "cublasLtMatmulPreferenceDestroy");
  }
};
inline const Library& library() {
  static const Library found;
  return found;
}

inline void must_multiply(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error("cuBLASLt: " + std::string(what) + ": status " + std::to_string(status));
}

}  // namespace lockstep::cuda
