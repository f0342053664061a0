// The communicators that live in one process, so that one test can ask all of them: ranks as threads under
// both timings, and the nccl communicator over a fabric that needs no GPU.
#pragma once
#include <exception>
#include <memory>
#include <optional>

#include "parallel/comm/nccl.hpp"
#include "ref/error.hpp"
#include "suites/tests/comm_support.hpp"
#include "suites/tests/fabric_stand_in.hpp"

namespace lockstep::test {

enum class Way { eager, lazy, nccl };
inline const char* name_of(Way way) {
  return way == Way::eager ? "eager" : way == Way::lazy ? "lazy" : "nccl";
}

inline std::vector<CommNeeds::Pair> all_pairs(const Mesh& mesh) {
  std::vector<CommNeeds::Pair> pairs;
  for (int a = 0; a < static_cast<int>(Axis::count); ++a)
    for (int from = 0; from < mesh.size(); ++from)
      for (const int to : mesh.group(static_cast<Axis>(a), from).ranks)
        if (to != from) pairs.push_back({static_cast<Axis>(a), from, to});
  return pairs;
}

// What LocalWorld is, over the stand-in: every run has a fabric of its own.
class NcclWorld {
 public:
  NcclWorld(const Mesh& mesh, CommNeeds needs, const NcclOptions& options)
      : mesh_(mesh), needs_(std::move(needs)), options_(options) {
    if (needs_.pairs.empty() && mesh.size() <= 4) needs_.pairs = all_pairs(mesh);
  }
  Hub& hub() { return *hub_; }  // of the run under way

  void run(const std::function<void(int, Comm&)>& body) {
    hub_.emplace();
    first_ = nullptr;
    LocalWorld introducer(mesh_, {.largest_bytes = NcclComm::kIntroduction}, Timing::eager);
    try {
      introducer.run([&](int rank, Comm& comm) { live(rank, comm, body); });
    } catch (...) {
      if (!first_) throw;
    }
    if (first_) std::rethrow_exception(first_);
  }

 private:
  void live(int rank, Comm& introducer, const std::function<void(int, Comm&)>& body) {
    try {
      StandIn fabric(*hub_);
      NcclOptions options = options_;
      options.give_up = [&](const std::string& why) { failed(CommError(why)); };
      NcclComm comm(introducer, fabric, mesh_, rank, needs_, options);
      body(rank, comm);
      comm.finish();
    } catch (const CommError& e) {
      failed(e);
      throw;
    } catch (const UserError& e) {
      failed(UserError("rank " + std::to_string(rank) + ": " + e.what()));
      throw;
    } catch (const std::bad_alloc& e) {
      failed(OutOfMemory("rank " + std::to_string(rank) + ": " + e.what()));
      throw;
    } catch (const std::exception& e) {
      failed(CommError("rank " + std::to_string(rank) + " failed: " + e.what()));
      throw;
    } catch (...) {
      failed(CommError("rank " + std::to_string(rank) + " failed: unknown exception"));
      throw;
    }
  }
  // The first failure of a job ends it.
  template <class Error>
  void failed(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!first_) first_ = std::make_exception_ptr(error);
    hub_->end(error.what());
  }

  const Mesh mesh_;
  CommNeeds needs_;
  const NcclOptions options_;
  std::optional<Hub> hub_;
  std::mutex mutex_;
  std::exception_ptr first_;
};

class World {
 public:
  World(const Mesh& mesh, const CommNeeds& needs, Way way, const NcclOptions& options = {}) {
    if (way == Way::nccl)
      nccl_ = std::make_unique<NcclWorld>(mesh, needs, options);
    else
      local_ = std::make_unique<LocalWorld>(mesh, needs, way == Way::eager ? Timing::eager : Timing::lazy);
  }
  void run(const std::function<void(int, Comm&)>& body) { local_ ? local_->run(body) : nccl_->run(body); }
  NcclWorld& nccl() { return *nccl_; }

 private:
  std::unique_ptr<LocalWorld> local_;
  std::unique_ptr<NcclWorld> nccl_;
};

// The tests of one file that every communicator must pass; each file derives a suite of its own.
class EveryWay : public ::testing::TestWithParam<Way> {};
inline auto every_way() { return ::testing::Values(Way::eager, Way::lazy, Way::nccl); }
inline std::string way_name(const ::testing::TestParamInfo<Way>& way) { return name_of(way.param); }

}  // namespace lockstep::test
