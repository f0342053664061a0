#include "reports/h5.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <type_traits>

#include "ref/error.hpp"
#include "ref/write_aside.hpp"
#include "reports/seal.hpp"

namespace lockstep::h5 {
namespace {

namespace fs = std::filesystem;

// The library prints its own stack of errors unless told not to, by each thread; ours are sentences. And at
// the program's end it would write what a full disk has not taken, from a file that it has torn down.
void silence() {
  [[maybe_unused]] static const herr_t first = H5dont_atexit();
  [[maybe_unused]] thread_local const herr_t quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// On disk every number is little-endian, whatever machine wrote it.
template <class T>
struct Type;
template <>
struct Type<float> {
  static constexpr const char* name = "float32";
  static hid_t stored() { return H5T_IEEE_F32LE; }
  static hid_t native() { return H5T_NATIVE_FLOAT; }
};
template <>
struct Type<double> {
  static constexpr const char* name = "float64";
  static hid_t stored() { return H5T_IEEE_F64LE; }
  static hid_t native() { return H5T_NATIVE_DOUBLE; }
};
template <>
struct Type<i32> {
  static constexpr const char* name = "int32";
  static hid_t stored() { return H5T_STD_I32LE; }
  static hid_t native() { return H5T_NATIVE_INT32; }
};
template <>
struct Type<i64> {
  static constexpr const char* name = "int64";
  static hid_t stored() { return H5T_STD_I64LE; }
  static hid_t native() { return H5T_NATIVE_INT64; }
};

Handle string_type() {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

Handle space_of(const Shape& shape) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  return {H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose};
}

std::string temporary(const std::string& path) { return path + ".tmp"; }

}  // namespace

hsize_t count(const Shape& shape) {
  hsize_t n = 1;
  for (hsize_t extent : shape) n *= extent;
  return n;
}

// ---- Writer ----

Writer::Writer(const std::string& named) : path_(place_of(named)) {
  const std::string& path = path_;
  silence();
  const fs::path folder = fs::path(path).parent_path();
  std::error_code ignored;
  if (!folder.empty() && !fs::is_directory(folder, ignored))
    throw UserError(fmt::format("cannot write '{}': there is no folder '{}'; make it, or name another place",
                                path, folder.string()));
  if (fs::is_directory(path, ignored))
    throw UserError(fmt::format("cannot write '{}': it is a folder; name a file in it", path));
  if (is_no_file(named))
    throw UserError(fmt::format("cannot write '{}': it is a device or a pipe; name a file", path));
  const Handle properties(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_link_creation_order(properties, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  // The newer layout has checksums in its metadata, without which a broken byte can crash the library itself.
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  file_ = Handle(H5Fcreate(temporary(path).c_str(), H5F_ACC_TRUNC, properties, access), H5Fclose);
  if (!file_.valid()) fail();
}

Writer::~Writer() {
  silence();
  if (!file_.valid()) return;
  file_.reset();
  std::error_code ignored;
  fs::remove(temporary(path_), ignored);
}

void Writer::fail() const {
  throw UserError(
      fmt::format("cannot write '{}': the folder must be writable and its disk must have room", path_));
}

void Writer::group(const std::string& name) {
  silence();
  const Handle properties(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  H5Pset_link_creation_order(properties, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  const Handle made(H5Gcreate2(file_, name.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Gclose);
  if (!made.valid()) fail();
}

void Writer::put(const std::string& name, const Shape& shape, hid_t stored, hid_t native,
                 const void* values) {
  silence();
  const Handle space = space_of(shape);
  const Handle set(H5Dcreate2(file_, name.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                   H5Dclose);
  if (!set.valid()) fail();
  if (count(shape) == 0) return;
  if (H5Dwrite(set, native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) fail();
}

template <class T>
void Writer::write(const std::string& name, const Shape& shape, const T* values) {
  put(name, shape, Type<T>::stored(), Type<T>::native(), values);
}

void Writer::write(const std::string& name, const std::vector<std::string>& values) {
  std::vector<const char*> texts;
  for (const std::string& value : values) texts.push_back(value.c_str());
  const Handle type = string_type();
  put(name, {values.size()}, type, type, texts.data());
}

void Writer::put_attribute(const std::string& name, hid_t stored, hid_t native, const void* value) {
  silence();
  const Handle space = space_of({});
  const Handle made(H5Acreate2(file_, name.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!made.valid() || H5Awrite(made, native, value) < 0) fail();
}

template <class T>
void Writer::attribute(const std::string& name, T value) {
  put_attribute(name, Type<T>::stored(), Type<T>::native(), &value);
}

void Writer::attribute(const std::string& name, const std::string& value) {
  const Handle type = string_type();
  const char* text = value.c_str();
  put_attribute(name, type, type, &text);
}

void Writer::close() {
  silence();
  // A full disk may show only here, when the library's caches are written out.
  const bool flushed = H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0;
  const bool written = file_.reset() && flushed && seal(temporary(path_));
  std::error_code error;
  if (written) fs::rename(temporary(path_), path_, error);
  if (written && !error) return;
  fs::remove(temporary(path_), error);
  fail();
}

// ---- Reader ----

Reader::Reader(const std::string& path) : path_(path) {
  silence();
  std::error_code error;
  if (!fs::exists(path, error)) throw UserError(fmt::format("'{}' does not exist; name an HDF5 file", path));
  if (!fs::is_regular_file(path, error))
    throw UserError(fmt::format("'{}' is not a file; name an HDF5 file", path));
  file_bytes_ = fs::file_size(path, error);
  if (seal_of(path) == Seal::broken) damaged("its bytes are not those that were written");
  file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file_.valid())
    throw UserError(
        fmt::format("'{}' cannot be read as HDF5: it is another kind of file, unreadable, or cut off "
                    "({} bytes); write it anew",
                    path, file_bytes_));
}

void Reader::damaged(const std::string& what) const {
  throw UserError(fmt::format("'{}' is damaged: {}; write it anew", path_, what));
}

bool Reader::has(const std::string& name) const {
  // H5Lexists wants every group on the way to exist.
  for (std::size_t slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1))
    if (H5Lexists(file_, name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
  return H5Lexists(file_, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Reader::list(const std::string& group) const {
  const Handle opened(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), H5Gclose);
  if (!opened.valid()) damaged(fmt::format("it has no group '{}'", group));
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->push_back(name);
    return 0;
  };
  // A file of another writer may not have kept the order; then it is by name.
  if (H5Literate(opened, H5_INDEX_CRT_ORDER, H5_ITER_INC, nullptr, add, &names) < 0) {
    names.clear();
    if (H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names) < 0)
      damaged(fmt::format("group '{}' cannot be listed", group));
  }
  return names;
}

Handle Reader::open(const std::string& name, Shape* shape, std::size_t element_bytes) const {
  Handle set(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!set.valid()) damaged(fmt::format("it has no array '{}'", name));
  const Handle space(H5Dget_space(set), H5Sclose);
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) damaged(fmt::format("array '{}' has no shape", name));
  shape->resize(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space, shape->data(), nullptr);
  // A damaged extent must not ask for more memory than the file could ever fill.
  double bytes = static_cast<double>(element_bytes);
  for (hsize_t extent : *shape) bytes *= static_cast<double>(extent);
  if (bytes > static_cast<double>(file_bytes_))
    damaged(fmt::format("array '{}' claims to be larger than the file", name));
  return set;
}

template <class T>
Array<T> Reader::read(const std::string& name) const {
  Array<T> array;
  const Handle set = open(name, &array.shape, sizeof(T));
  const Handle type(H5Dget_type(set), H5Tclose);
  if (H5Tequal(type, Type<T>::stored()) <= 0)
    damaged(fmt::format("array '{}' is not of little-endian {}", name, Type<T>::name));
  array.values.resize(count(array.shape));
  if (!array.values.empty() &&
      H5Dread(set, Type<T>::native(), H5S_ALL, H5S_ALL, H5P_DEFAULT, array.values.data()) < 0)
    damaged(fmt::format("array '{}' cannot be read", name));
  return array;
}

template <class T>
T Reader::scalar(const std::string& name) const {
  const Array<T> array = read<T>(name);
  if (array.values.size() != 1) damaged(fmt::format("'{}' is not one number", name));
  return array.values[0];
}

template <class T>
Array<T> Reader::numbers(const std::string& name) const {
  if (!has(name)) throw UserError(fmt::format("'{}' holds no {}", path_, name));
  Array<T> array;
  const Handle set = open(name, &array.shape, 1);
  const Handle type(H5Dget_type(set), H5Tclose);
  constexpr bool whole = std::is_integral_v<T>;
  if (H5Tget_class(type) != (whole ? H5T_INTEGER : H5T_FLOAT))
    throw UserError(
        fmt::format("'{}': {} is not of {} numbers", path_, name, whole ? "whole" : "floating-point"));
  array.values.resize(count(array.shape));
  if (!array.values.empty() &&
      H5Dread(set, Type<T>::native(), H5S_ALL, H5S_ALL, H5P_DEFAULT, array.values.data()) < 0)
    damaged(fmt::format("array '{}' cannot be read", name));
  return array;
}

std::vector<std::string> Reader::strings(const std::string& name) const {
  Shape shape;
  const Handle set = open(name, &shape, 1);
  const Handle stored(H5Dget_type(set), H5Tclose);
  if (H5Tis_variable_str(stored) <= 0)
    damaged(fmt::format("array '{}' is not of variable-length strings", name));
  const Handle type = string_type(), space(H5Dget_space(set), H5Sclose);
  std::vector<char*> texts(count(shape));
  if (!texts.empty() && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data()) < 0)
    damaged(fmt::format("array '{}' cannot be read", name));
  std::vector<std::string> values;
  for (const char* text : texts) values.emplace_back(text ? text : "");
  if (!texts.empty()) H5Dvlen_reclaim(type, space, H5P_DEFAULT, texts.data());
  return values;
}

bool Reader::holds_strings(const std::string& name) const {
  Shape shape;
  const Handle set = open(name, &shape, 1);
  const Handle stored(H5Dget_type(set), H5Tclose);
  return H5Tis_variable_str(stored) > 0;
}

bool Reader::has_attribute(const std::string& name) const { return H5Aexists(file_, name.c_str()) > 0; }

std::vector<std::string> Reader::attributes() const {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->push_back(name);
    return 0;
  };
  if (H5Aiterate2(file_, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names) < 0)
    damaged("its attributes cannot be listed");
  return names;
}

std::string Reader::attribute(const std::string& name) const {
  const Handle opened(H5Aopen(file_, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!opened.valid()) damaged(fmt::format("it has no attribute '{}'", name));
  const Handle stored(H5Aget_type(opened), H5Tclose), space(H5Aget_space(opened), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) != 1) damaged(fmt::format("attribute '{}' is not one value", name));
  herr_t status = -1;
  std::string text;
  if (H5Tis_variable_str(stored) > 0) {
    const Handle type = string_type();
    char* value = nullptr;
    if ((status = H5Aread(opened, type, &value)) >= 0) text = value ? value : "";
    if (value) H5free_memory(value);
  } else if (H5Tget_class(stored) == H5T_STRING) {  // of a fixed length, as other writers have them
    std::vector<char> value(H5Tget_size(stored) + 1);
    const Handle type(H5Tcopy(stored), H5Tclose);
    if ((status = H5Aread(opened, type, value.data())) >= 0) text = value.data();
  } else if (H5Tget_class(stored) == H5T_INTEGER) {
    i64 value = 0;
    status = H5Aread(opened, H5T_NATIVE_INT64, &value);
    text = fmt::format("{}", value);
  } else if (H5Tget_class(stored) == H5T_FLOAT) {
    double value = 0;
    status = H5Aread(opened, H5T_NATIVE_DOUBLE, &value);
    text = fmt::format("{}", value);
  }
  if (status < 0) damaged(fmt::format("attribute '{}' is neither text nor a number", name));
  return text;
}

#define LOCKSTEP_H5_TYPE(T)                                                   \
  template void Writer::write<T>(const std::string&, const Shape&, const T*); \
  template Array<T> Reader::read<T>(const std::string&) const;                \
  template T Reader::scalar<T>(const std::string&) const;                     \
  template Array<T> Reader::numbers<T>(const std::string&) const;
LOCKSTEP_H5_TYPE(float)
LOCKSTEP_H5_TYPE(double)
LOCKSTEP_H5_TYPE(i32)
LOCKSTEP_H5_TYPE(i64)
#undef LOCKSTEP_H5_TYPE
template void Writer::attribute<double>(const std::string&, double);
template void Writer::attribute<i64>(const std::string&, i64);

}  // namespace lockstep::h5
