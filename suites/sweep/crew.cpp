#include "suites/sweep/crew.hpp"

#include <numeric>

namespace lockstep {
namespace {

constexpr int kGlanceMilliseconds = 2;  // at one worker, before the next

bool ran_into_a_limit(const Answer& answer) {
  return answer.end == Answer::End::timeout || answer.end == Answer::End::out_of_memory;
}

}  // namespace

Crew::Crew(int workers, const ForkedWorker::Body& body, ForkedWorker::Limits limits) {
  for (int i = 0; i < workers; ++i)
    posts_.push_back({.worker = std::make_unique<ForkedWorker>(body, limits)});
}
Crew::Crew(std::unique_ptr<Worker> worker) { posts_.push_back({.worker = std::move(worker)}); }

void Crew::ask(const std::vector<std::string>& requests, const Listener& listener) {
  Indices all(requests.size());
  std::iota(all.begin(), all.end(), 0);
  const Indices limited = serve(requests, all, posts_.size(), listener);
  serve(requests, limited, 1, listener);
}

Crew::Indices Crew::serve(const std::vector<std::string>& requests, const Indices& which, std::size_t workers,
                          const Listener& listener) {
  Indices limited;
  auto next = which.begin();
  for (std::size_t i = 0; i < workers; ++i)
    posts_[i].worker->share(static_cast<int>(i), static_cast<int>(workers));
  const auto begin = [&](Post& post) {
    post.busy = true;
    post.since = Clock::now();
    post.worker->begin(requests[post.request]);
  };
  const auto hear = [&](Post& post, const Answer& answer) {
    post.busy = false;
    if (answer.end == Answer::End::killed && !post.again && listener.go_on()) {  // no plan kills itself
      post.again = true;
      begin(post);
    } else if (workers > 1 && ran_into_a_limit(answer)) {
      limited.push_back(post.request);
    } else {
      listener.ended(post.request, answer, std::chrono::duration<double>(Clock::now() - post.since).count());
    }
  };
  for (bool busy = true; busy;) {
    busy = false;
    for (std::size_t i = 0; i < workers; ++i) {
      Post& post = posts_[i];
      if (post.busy || next == which.end() || !listener.go_on()) continue;
      post.request = *next++, post.again = false;
      listener.begun(post.request);
      begin(post);
    }
    for (std::size_t i = 0; i < workers; ++i) {
      Post& post = posts_[i];
      if (!post.busy) continue;
      busy = true;
      if (const auto answer = post.worker->glance(kGlanceMilliseconds)) hear(post, *answer);
    }
  }
  return limited;
}

}  // namespace lockstep
