// A thin layer over the HDF5 C API: typed arrays, UTF-8 strings and attributes, errors as one sentence each.
// HDF5 is not thread-safe as a rule: use it from one thread at a time.
#pragma once
#include <hdf5.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/lanes.hpp"

namespace lockstep::h5 {

// A handle of the library, closed with its own kind's function.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { reset(); }
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  bool reset() { return !valid() || close_(std::exchange(id_, H5I_INVALID_HID)) >= 0; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

using Shape = std::vector<hsize_t>;  // {}: a scalar
hsize_t count(const Shape&);

template <class T>
struct Array {
  Shape shape;
  std::vector<T> values;
};

// A file being written, as `path`.tmp until close() renames it; without close() nothing is left.
// T: float, double, i32, i64. UserError: the place cannot be written, or is full.
class Writer {
 public:
  explicit Writer(const std::string& path);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void group(const std::string& name);  // its parent must exist; its members keep the order they are made in
  template <class T>
  void write(const std::string& name, const Shape&, const T* values);
  template <class T>
  void write(const std::string& name, const std::vector<T>& values) {
    write(name, {values.size()}, values.data());
  }
  void write(const std::string& name, const std::vector<std::string>& values);
  template <class T>
  void attribute(const std::string& name, T value);  // of the root
  void attribute(const std::string& name, const std::string& value);
  void close();

 private:
  [[noreturn]] void fail() const;
  void put(const std::string& name, const Shape&, hid_t stored, hid_t native, const void* values);
  void put_attribute(const std::string& name, hid_t stored, hid_t native, const void* value);
  std::string path_;
  Handle file_;
};

// A file being read. UserError: no such file, not HDF5, cut off, or not what the caller takes it for.
class Reader {
 public:
  explicit Reader(const std::string& path);

  const std::string& path() const { return path_; }
  bool has(const std::string& name) const;                        // a group or an array
  std::vector<std::string> list(const std::string& group) const;  // in the order they were made
  // The array must be stored as T: nothing is converted, so nothing is rounded.
  template <class T>
  Array<T> read(const std::string& name) const;
  template <class T>
  T scalar(const std::string& name) const;
  // Of another program's file: stored as any kind of whole (T whole) or floating-point number, and converted.
  // UserError, which does not call the file damaged: no such array, or other than that.
  template <class T>
  Array<T> numbers(const std::string& name) const;
  std::vector<std::string> strings(const std::string& name) const;
  bool holds_strings(const std::string& name) const;

  bool has_attribute(const std::string& name) const;
  std::vector<std::string> attributes() const;
  // Any attribute as text: numbers in the shortest form that reads back the same.
  std::string attribute(const std::string& name) const;

 private:
  [[noreturn]] void damaged(const std::string& what) const;
  Handle open(const std::string& name, Shape* shape, std::size_t element_bytes) const;
  std::string path_;
  hsize_t file_bytes_ = 0;
  Handle file_;
};

}  // namespace lockstep::h5
