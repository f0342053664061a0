// The single-device run on disk, so that a sweep that goes on need not make it again.
#pragma once
#include <optional>
#include <string>

#include "suites/run/whole.hpp"

namespace lockstep {

struct KeptReference {
  Whole whole;
  double seconds;  // that making it took
};

// key: everything that its numbers depend on. Written aside and renamed; UserError if it cannot be written.
void keep_reference(const std::string& path, const std::string& key, const KeptReference&);

// Nothing: there is none, it has another key, or it is damaged: its numbers must have the hash that it
// states.
std::optional<KeptReference> kept_reference(const std::string& path, const std::string& key,
                                            const std::vector<Param>& table);

}  // namespace lockstep
