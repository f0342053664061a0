// Silent bugs that others have had in public, each put in here on purpose.
#pragma once
#include <string>
#include <vector>

#include "suites/mutants/mutation.hpp"

namespace lockstep {

struct NamedMutant {
  const char* bug;
  const char* seen_in;  // project and its issue or pull request
  const char* plan;     // where it can show
  Mutation mutation;
};
std::vector<NamedMutant> named_mutants();

}  // namespace lockstep
