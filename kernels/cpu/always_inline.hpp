#pragma once
// Vectors and tiles live in registers only if every function that takes them is inlined. Inlined functions
// also leave no symbol that another file, compiled for a lesser processor, could end up calling.
#define LOCKSTEP_INLINE inline __attribute__((always_inline))
