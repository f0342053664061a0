// Reads whole data sets and attributes of an HDF5 file as vectors. Anything missing is an exception.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace lockstep {

class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::string& path) : file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT)) {
    if (file_ < 0) throw std::runtime_error("cannot open " + path);
  }
  ~Hdf5Reader() { H5Fclose(file_); }
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  // Every element, row-major, converted to Value.
  template <class Value>
  std::vector<Value> read(const std::string& name) const {
    const hid_t set = H5Dopen2(file_, name.c_str(), H5P_DEFAULT);
    if (set < 0) throw std::runtime_error("no data set " + name);
    const hid_t space = H5Dget_space(set);
    std::vector<Value> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    const herr_t status = H5Dread(set, type<Value>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Sclose(space);
    H5Dclose(set);
    if (status < 0) throw std::runtime_error("cannot read data set " + name);
    return values;
  }

  // An attribute of the root group.
  template <class Value>
  std::vector<Value> attributes(const std::string& name) const {
    const hid_t attribute = H5Aopen(file_, name.c_str(), H5P_DEFAULT);
    if (attribute < 0) throw std::runtime_error("no attribute " + name);
    const hid_t space = H5Aget_space(attribute);
    std::vector<Value> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    const herr_t status = H5Aread(attribute, type<Value>(), values.data());
    H5Sclose(space);
    H5Aclose(attribute);
    if (status < 0) throw std::runtime_error("cannot read attribute " + name);
    return values;
  }
  template <class Value>
  Value attribute(const std::string& name) const {
    return attributes<Value>(name).at(0);
  }

 private:
  template <class Value>
  static hid_t type() {
    if constexpr (std::is_same_v<Value, float>) return H5T_NATIVE_FLOAT;
    if constexpr (std::is_same_v<Value, double>) return H5T_NATIVE_DOUBLE;
    if constexpr (std::is_same_v<Value, std::int32_t>) return H5T_NATIVE_INT32;
    if constexpr (std::is_same_v<Value, std::int64_t>) return H5T_NATIVE_INT64;
  }
  hid_t file_;
};

}  // namespace lockstep
