// HDF5's library can end the program at a damaged file that no seal is there to tell of (reports/seal.hpp).
#pragma once
#include <string>

namespace lockstep {

// Returns in a child of this process; the process itself waits, and ends as the child does. UserError, in the
// process: the child was ended by a fault, which is then a file's: of `files`, as a sentence names them.
void go_on_apart(const std::string& files);

}  // namespace lockstep
