// The communicator over MPI. This folder alone knows mpi.h; it becomes lockstep_mpi.so.
//
// Every operation is a direct exchange between the members of a group: each sends the others their parts and
// sums what it got itself, since MPI's own reductions promise no order. Inputs are copied out at start and
// outputs are written at wait, so MPI only ever sees staging memory of ours, whatever device a tensor is on.
// MPI moves data only while it is called: a wait therefore drives everything under way, not only its own
// request, and two ranks may wait for the same requests in different orders.
#pragma once
#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/comm.hpp"
#include "parallel/comm/contract.hpp"
#include "parallel/comm/pages.hpp"

namespace lockstep {

void mpi_must(int status, const char* what);  // CommError: what MPI says of a status that is no success

class MpiComm : public Comm {
 public:
  MpiComm(const Mesh&, const CommNeeds&, int rank);
  ~MpiComm() override;
  int start(const Message&) override;
  void wait(int id) override;
  std::string left_under_way() const;

 private:
  static constexpr int kAxes = static_cast<int>(Axis::count);
  static constexpr i64 kHeader = 192;  // before each part: what its sender stated
  static_assert(sizeof(Stated) <= kHeader);

  // One operation under way. `mine` and `theirs` hold one part per member, `stride` bytes apart, each behind
  // a header.
  struct Slot {
    int id = -1;  // -1: free
    Stated stated;
    int tag = 0;
    bool second = false;  // an all_reduce's second exchange, of what each member has summed
    bool done = false;
    i64 stride = 0;
    std::unique_ptr<Pages> mine, theirs;
    std::vector<MPI_Request> requests;  // receives, then sends
    std::vector<MPI_Status> statuses;
    std::vector<int> from;        // by receive: the member
    std::vector<i64> from_bytes;  // and what it must send
    int posted = 0;

    char* part(const Pages& of, int i) const { return of.data() + i * stride + kHeader; }
  };

  Slot& slot(int axis, int i) { return slots_[static_cast<std::size_t>(axis * needs_.outstanding + i)]; }
  const Group& group_of(const Message& m) const { return groups_[static_cast<int>(m.axis)]; }
  bool in_parts(const Message&) const;
  static bool scatters(const Message&);
  i64 part_begin(const Message& m, int i) const { return m.blocks * m.n * i / group_of(m).size(); }
  i64 part_bytes(const Message& m, int i) const {
    return (part_begin(m, i + 1) - part_begin(m, i)) * type_bytes(m.type);
  }

  void capture(Slot&);
  void exchange(Slot&);
  void receive(Slot&, int from, i64 bytes);
  void send(Slot&, int to, int part, i64 bytes);
  void advance(Slot&);
  void check_received(const Slot&) const;
  void sum_my_part(Slot&);
  void write_output(Slot&);
  bool drive(const Slot& awaited);

  const Mesh mesh_;
  const CommNeeds needs_;
  const int rank_;
  const double patience_;  // seconds that a wait may go on without anything moving before the job is ended
  Group groups_[kAxes];
  MPI_Comm collectives_[kAxes], transfers_[kAxes];  // apart, so that no tag of one meets one of the other
  int outstanding_[kAxes] = {};
  i64 sequence_[kAxes] = {};  // of the next collective: pairs the members' starts
  std::vector<Slot> slots_;
  int serial_ = 0;  // makes ids of reused slots differ
};

}  // namespace lockstep
