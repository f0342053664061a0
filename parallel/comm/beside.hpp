// Shared objects that lie beside the program and are opened when asked for, so that it also runs where the
// library behind one is not.
#pragma once
#include <string>

namespace lockstep {

// The function `entry` of `object`, which is never closed. flags: dlopen's. UserError: `missing`, in which {}
// stands for the object's path; `unusable` and the linker's words; or the object is another program's.
void* entry_beside(const char* object, const char* entry, int flags, const char* missing,
                   const char* unusable);

}  // namespace lockstep
