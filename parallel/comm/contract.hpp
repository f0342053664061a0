// What every communicator holds a message to, so that a program that one accepts all accept.
#pragma once
#include <string>

#include "parallel/comm/comm.hpp"

namespace lockstep {

// A message as it was stated, with its own copy of the tensor's name: the caller's may be gone when a report
// needs it.
struct Stated {
  Message message;
  char what[64];
  void set(const Message&);
};

bool is_transfer(const Message&);   // send or recv
bool is_reduction(const Message&);  // all_reduce or reduce_scatter

// Throws CommError if `rank` may not start this message: groups and outstanding (already under way) by axis.
void check_start(const Message&, const Mesh&, int rank, const Group* groups, const int* outstanding,
                 const CommNeeds&);

// Do two members of an operation state the same one? Throws CommError if not; a and b are their group
// indices.
void check_agreement(const Message& of_a, int a, const Message& of_b, int b, const Group&, const Mesh&);

// Fills the output, without the part of it that is also the input, with quiet NaNs or large integers.
void poison_output(const Message&, const Group&);

// memmove that takes null and empty ranges.
void copy_bytes(void* to, const void* from, i64 bytes);

}  // namespace lockstep
