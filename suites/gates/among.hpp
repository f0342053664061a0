// Ranks that are processes of a job: what each has found out, brought together on rank 0. Where ranks are
// threads there is no job (null), and all of it is together already.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "parallel/comm/mpi.hpp"
#include "suites/gates/gates.hpp"

namespace lockstep {

// Whether this process knows what the others found: rank 0, or there is no other.
inline bool knows_all(const MpiWorld* job) { return !job || job->rank() == 0; }

// What rank 0 says, on every process.
inline bool agreed(MpiWorld* job, bool first) { return job ? job->from_first(int{first}) != 0 : first; }

template <class T>
void collect(MpiWorld* job, std::vector<T>& by_rank) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (!job) return;
  const std::string mine(reinterpret_cast<const char*>(&by_rank[job->rank()]), sizeof(T));
  job->gather(mine, [&](int rank, const std::string& bytes) {
    std::memcpy(static_cast<void*>(&by_rank[rank]), bytes.data(), sizeof(T));
  });
}

// "pass", or what the first rank complains of.
inline std::string first_complaint(MpiWorld* job, const std::string& mine) {
  if (!job) return mine;
  std::string found = "pass";
  job->gather(mine, [&](int, const std::string& theirs) {
    if (found == "pass") found = theirs;
  });
  return found;
}

// What each rank did in its first step, which is judged, and whether a later step did the same.
struct StepsOfRanks {
  const Prepared& prepared;
  std::vector<std::vector<Posted>> posted{static_cast<std::size_t>(prepared.mesh.size())};
  std::vector<Ran> ran{posted.size()};
  std::vector<char> changed = std::vector<char>(posted.size());  // not bool: ranks are threads

  void see(i64 step, const RankView& v) {
    const Ran work{v.device.kernels(), v.device.copies(), v.device.fingerprint(), v.device.host_bytes()};
    if (step > 0) changed[v.rank] |= !(work == ran[v.rank]);
    if (step == 0) posted[v.rank] = lasting(prepared, v.device.posted()), ran[v.rank] = work;
  }
  void gather(MpiWorld* job) { collect(job, changed), collect(job, ran); }
  // Nothing, or what is wrong; of ranks that are gathered.
  std::string problem() const {
    const auto first = std::find(changed.begin(), changed.end(), 1);
    if (first == changed.end()) return {};
    return fmt::format("rank {}: a later step does other things than the first, or in another order",
                       first - changed.begin());
  }
};

// Each process judges what its own rank posted; of the others it takes what the trace says.
inline std::string judge_messages(const Prepared& p, MpiWorld* job, std::vector<std::vector<Posted>> posted) {
  for (int rank = 0; job && rank < p.mesh.size(); ++rank)
    if (rank != job->rank()) posted[rank] = p.posted[rank];
  return first_complaint(job, judge_messages(p, posted));
}

}  // namespace lockstep
