// HDF5's library can end a program at a damaged file, which a seal would tell of; other writers' files have
// none.
#pragma once
#include <string>

namespace lockstep {

// A file without a seal is read once by a child of this process, all of it. UserError: that was the child's
// end.
void check_readable(const std::string& path);

}  // namespace lockstep
