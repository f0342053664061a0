// What is under way in one group: which member's start belongs to which operation, and the staging slots
// ("the network") that hold the contributions. No threads and no waiting here; the caller holds the lock.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/contract.hpp"
#include "parallel/comm/pages.hpp"

namespace lockstep {

struct Operation;

// Room for one contribution of one member.
struct Slot {
  char* data = nullptr;
  Operation* user = nullptr;  // somebody has not yet got what it holds for this operation
};

// One member's part in an operation.
struct MemberPart {
  const Message* message = nullptr;  // the member's own, until its wait is over
  Slot* slot = nullptr;              // where its contribution is staged; null: it gives none
  bool started = false, captured = false;
  std::atomic<bool> claimed{false};  // somebody writes its output, itself or another
  bool delivered = false;            // and has done so
};

// A collective of the whole group, or one send with its recv.
struct Operation {
  Stated first;          // what the first member to start it stated
  int first_member = 0;  // which one that was
  i64 sequence = -1;     // a collective's place in its group's order; -1: a send and its recv
  int sender = -1, receiver = -1;
  int members = 0, givers = 0;  // who take part, and how many of them contribute
  int started = 0, captured = 0, delivered = 0, finished = 0;
  std::unique_ptr<MemberPart[]> parts;  // by group index
  // An all_reduce is combined in slices by whichever members are there, in place of the first contribution.
  i64 slices = 0;
  std::atomic<i64> next_slice{0}, slices_done{0};

  // All that any member's wait needs from the others. A send needs it too: its wait is a rendezvous.
  bool complete() const { return started == members && captured == givers; }
};

class Exchange {
 public:
  Exchange(Group group, const CommNeeds::OfAxis&, Timing);

  const Group& group() const { return group_; }
  // Room for a contribution of member `me`. Eager: which slot depends on that member's own starts and waits
  // alone, so that what the network holds follows from its program; the slot may still have a user, who must
  // be served first (LocalWorld::State::make_room). Lazy: free.
  Slot* take(int me);
  // The operation that this start of member `me` belongs to; a new one if it is the first to get there.
  // Throws CommError if it states another operation than the first one did.
  Operation& match(int me, const Message&, const Mesh&);
  void deliver(Operation&, int member);  // the member has its output
  void finish(Operation&, int member);   // and its wait is over; the last one ends the operation

  void reset();

 private:
  Operation& open(int me, const Message&, int members, int givers);
  Group group_;
  const Timing timing_;
  std::vector<Operation> operations_;
  Pages staging_;
  std::vector<Slot> slots_;
  std::vector<std::vector<Slot*>> spare_slots_;  // by member; last in, first out: stays in cache
  std::vector<Operation*> spare_;
  std::vector<Operation*> live_;  // in the order they were opened
  std::vector<i64> next_;         // by member: the sequence of its next collective
};

}  // namespace lockstep
