// What the planner says, in words.
#pragma once
#include <string>

#include "suites/planner/planner.hpp"

namespace lockstep {

struct Question {
  const ModelConfig& model;
  const Settings& settings;
  const Cluster& cluster;
  std::vector<std::string> left_out{};  // of a model that is taken for a Llama, in words
};

std::string counts_text(const Choices&);
// Behind "no plan fits": what a cluster without a host's memory leaves out.
std::string no_host_text(const Cluster&);
std::string ranking_text(const Choices&, const Question&, std::size_t top);
std::string pareto_text(const Choices&, const Question&);
// The first and what takes up to kAlike longer, a difference that neither a prediction nor a measurement can
// be sure of; choices must have been asked for it (Wanted::within). In words: which of them is the smallest,
// and which the plainest.
inline constexpr double kAlike = 0.01;
std::vector<const Weighed*> alike(const Choices&);
std::string alike_text(const Choices&);
// What no other plan is both faster and smaller than, the fastest first.
std::vector<const Weighed*> front(const Choices&);
// Memory by kind and time by kind of one plan.
std::string plan_text(const std::string& plan, const Question&);
// Why the first is the first: against the second, and against the best plan with another value of each word.
std::string why_text(const Choices&, const Question&);

// What the second loses and gains against the first, by kind of time: "loses on bubble 3.5 %; gains on ...".
std::string losses(const Prediction& winner, const Prediction& other);

Prediction predicted(const std::string& plan, const Question&);
double tokens_per_second(const Question&, double step_seconds);
double of_peak(const Question&,
               double step_seconds);  // the model's operations, as a part of all devices' peak

// What the fullest rank of a plan holds, in bytes.
struct Held {
  int stage = 0;
  KindBytes kinds{};                // each at its own peak
  double together = 0, beside = 0;  // on the device: at once; context, communicators, workspace, gaps
  std::array<double, 3> needs{};    // of device, host and disk
};
Held held_by(const std::string& plan, const Prediction&, const Question&);

// Of a step, the mean over stages: what the time went to, longest first.
std::vector<std::pair<std::string, double>> time_by_kind(const Prediction&);

}  // namespace lockstep
