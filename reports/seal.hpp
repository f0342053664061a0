// HDF5 has checksums for its metadata and none for texts, for which a broken byte can crash the library
// itself. So a file ends with a hash of all before, behind the end that HDF5 knows, where its readers do not
// look.
#pragma once
#include <string>

namespace lockstep {

enum class Seal { none, whole, broken };  // none: by another writer, or changed since by one

bool seal(const std::string& path);      // false: the file cannot be read or written
Seal seal_of(const std::string& path);   // reads all of it
bool has_seal(const std::string& path);  // whole or broken: reads its end

}  // namespace lockstep
