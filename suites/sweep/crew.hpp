// Several workers on one list of requests: ranks wait for each other most of the time, and leave the cores to
// another plan's.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "suites/sweep/forked_worker.hpp"

namespace lockstep {

class Crew {
 public:
  Crew(int workers, const ForkedWorker::Body&, ForkedWorker::Limits);
  explicit Crew(std::unique_ptr<Worker>);  // one, of whatever kind

  struct Listener {
    std::function<bool()> go_on;  // false: nothing more is begun
    std::function<void(std::size_t request)> begun;
    std::function<void(std::size_t request, const Answer&, double seconds)> ended;
  };
  // Asks them all, in order, as many at a time as there are workers; returns when all have ended. A request
  // whose process somebody killed is asked once more. So is one that ran into a limit beside others: alone,
  // in the end, for it may have been their fault.
  void ask(const std::vector<std::string>& requests, const Listener&);

 private:
  using Clock = std::chrono::steady_clock;
  struct Post {
    std::unique_ptr<Worker> worker;
    std::size_t request = 0;
    bool busy = false, again = false;  // again: for the second time
    Clock::time_point since{};
  };
  using Indices = std::vector<std::size_t>;
  // By so many of the workers. Returns those that ran into a limit beside others.
  Indices serve(const std::vector<std::string>& requests, const Indices&, std::size_t workers,
                const Listener&);
  std::vector<Post> posts_;
};

}  // namespace lockstep
