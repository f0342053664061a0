// The communicator between GPUs, one rank a GPU, over NCCL (fabric.hpp). No call waits on the host: a start
// puts the operation into a channel's queue, behind the kernels called so far, and a wait makes later kernels
// wait for it.
//
// Exact sums: NCCL exchanges the members' parts and a kernel of ours adds them in the order of EXACT.md, so
// the bits are every other communicator's. In fast mode they are NCCL's own reductions.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "parallel/comm/contract.hpp"
#include "parallel/comm/fabric.hpp"

namespace lockstep {

struct NcclOptions {
  bool fast = false;
  // Seconds in which nothing may move before the job is ended; 0: LOCKSTEP_NCCL_PATIENCE, else 600.
  double patience = 0;
  // Ends the job for this reason; called by a thread of the communicator's. Empty: says so with rank and
  // host, and ends this process, whereupon mpirun ends the others.
  std::function<void(const std::string&)> give_up{};
};

class NcclComm final : public Comm {
 public:
  // introducer: a communicator of the same ranks in host memory, which carries NCCL's ids; messages of
  // kIntroduction bytes, one under way. All ranks construct at once. needs.pairs must name whoever sends.
  static constexpr i64 kIntroduction = 128;
  NcclComm(Comm& introducer, Fabric&, const Mesh&, int rank, const CommNeeds&, const NcclOptions&);
  int start(const Message&) override;
  void wait(int request) override;
  // At the end, on all ranks. CommError: requests never waited for.
  void finish();

 private:
  // One operation, from its start until its entry is needed again, which is some time after it is done.
  struct Entry {
    int id = -1;          // -1: waited for
    bool flying = false;  // not known to be done; under the mutex
    i64 serial = 0;       // in the order of starts
    int channel = 0;
    Stated stated;
    Fabric::Event ready{}, done{};
  };
  struct Stage {  // of an axis' collectives, which follow one another on its channel
    char *parts = nullptr, *packed = nullptr;
  };

  void open_groups(Comm& introducer);
  void open_pairs(Comm& introducer);
  int channel_of(const Message&) const;
  const Group& group_of(const Message& m) const { return groups_[static_cast<std::size_t>(m.axis)]; }
  void put(int channel, const Message&);
  void put_all_reduce(int channel, const Message&);
  void put_in_parts(int channel, const Message&);
  void put_scattered(int channel, const Message&);
  void put_all_gather(int channel, const Message&);

  void watch(const std::stop_token&);
  std::string look(double seconds);
  void about_to(const std::string& what);
  std::string stuck() const;
  void go_on_only_if_sound() const;

  Fabric& fabric_;
  const Mesh mesh_;
  const int rank_;
  const CommNeeds needs_;
  const NcclOptions options_;
  const double patience_;
  std::vector<Group> groups_;                // by axis
  std::vector<int> channels_;                // by axis, of collectives; kCompute for a group of one
  std::vector<std::vector<int>> to_, from_;  // by axis and member: the channel of sends, of receives; 0: none
  std::vector<Stage> stages_;                // by axis
  std::vector<int> outstanding_;             // by axis

  std::vector<Entry> entries_;
  std::vector<int> free_;  // a ring: the entry that has been free longest is taken first
  std::size_t first_free_ = 0, frees_ = 0;
  i64 serial_ = 0;

  mutable std::mutex mutex_;  // of entries and what follows, between the rank's thread and the watch
  std::condition_variable_any ended_;
  std::string failure_;
  std::string doing_;  // what the rank's thread itself waits for; empty: nothing
  bool moved_ = false;
  double since_ = 0;  // seconds on the watch's clock when something moved last
  std::jthread watch_;
};

}  // namespace lockstep
