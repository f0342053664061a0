// What is under way in one group: which member's start belongs to which operation, and the staging slots
// ("the network") that hold the contributions. No threads and no waiting here; the caller holds the lock.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "parallel/comm/contract.hpp"
#include "parallel/comm/pages.hpp"

namespace lockstep {

// One member's part in an operation.
struct Part {
  const void* in;
  i64 in_bytes;
  char* slot;  // where its contribution is staged, from its capture until the last member has finished
  bool started, gives, captured;
};

// A collective of the whole group, or one send with its recv.
struct Operation {
  Stated first;          // what the first member to start it stated
  int first_member = 0;  // which one that was
  i64 sequence = -1;     // a collective's place in its group's order; -1: a send and its recv
  int sender = -1, receiver = -1;
  int members = 0, givers = 0;  // who take part, and how many of them contribute
  int started = 0, captured = 0, finished = 0;
  Part* parts = nullptr;  // by group index
  // An all_reduce is combined in slices by whichever members are there, in place of the first contribution.
  i64 slices = 0;
  std::atomic<i64> next_slice{0}, slices_done{0};

  // All that any member's wait needs from the others. A send needs it too: its wait is a rendezvous.
  bool complete() const { return started == members && captured == givers; }
};

class Exchange {
 public:
  Exchange(Group group, const CommNeeds&);

  const Group& group() const { return group_; }
  // The operation that this start of member `me` belongs to; a new one if it is the first to get there.
  // Throws CommError if it states another operation than the first one did.
  Operation& match(int me, const Message&, const Mesh&);
  void finish(Operation&);  // one member has finished; the last one ends the operation

  void reset();

 private:
  Operation& open(int me, const Message&, int members, int givers);
  Group group_;
  std::vector<Operation> operations_;
  Pages parts_, staging_;
  std::vector<Operation*> spare_;  // last in, first out: stays in cache, touches few pages
  std::vector<Operation*> live_;   // in the order they were opened
  std::vector<i64> next_;          // by member: the sequence of its next collective
};

}  // namespace lockstep
