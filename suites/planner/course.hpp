// What a schedule makes of a stage: its actions as passes of known shape, folded into loops. A thousand
// microbatches are a dozen loops, and what repeats is weighed once.
#pragma once
#include <vector>

#include "suites/planner/chunks/chunk_programs.hpp"

namespace lockstep {

inline constexpr int kClasses = 3;  // of layers, at most
inline constexpr std::size_t kPassShapes = 4 * 2 * 2 * (1 + kClasses) * (1 + 3 * 2 * 2);
std::size_t number_of(const PassShape&);  // each its own, smaller than that

// The shape of each pass of a stage, from its actions in order: what of the past it depends on and nothing
// else, so that passes with the same cost are one.
class PassShapes {
 public:
  // Of chunks on all stages. Gradients are reduced after each microbatch, and the last time over replicas,
  // too (then no reduction starts before the last one has arrived). `leaving`: where activations leave the
  // device, 1 + class of each chunk's last layer; empty: nowhere.
  PassShapes(int chunks, int stages, bool each_microbatch, bool over_replicas, std::vector<int> leaving);
  PassShape next(const Action&);
  bool reduced_first() const { return reduced_first_; }  // the last gradient was the first of its step

 private:
  int stages_;
  bool each_microbatch_, over_replicas_;
  std::vector<int> leaving_;
  int left_ = 0;  // by the action before
  bool reduced_first_ = false, reduced_last_ = false;
  int reduced_ = -1;            // the chunk whose gradients were reduced last
  bool finished_ = false;       // some chunk's last gradients are in
  std::vector<int> backwards_;  // by chunk of the stage
};

// A pass and what a stage holds for its neighbours around it.
struct Move {
  int slot = 0;  // the stage's slot-th chunk
  PassShape pass;
  bool expects = false;  // the next action receives: room is made before this pass
  bool sent = false;     // what the action before sends has gone after this pass
  auto operator<=>(const Move&) const = default;
};

// A move or a sequence of loops, so many times.
struct Loop {
  int move = -1;
  i64 times = 1;
  std::vector<Loop> body{};
  bool operator==(const Loop&) const = default;
};

struct Course {
  struct Stage {
    std::vector<Loop> loops;
    std::vector<int> moves;                // of the course's, those that it makes
    int first = 0, last = 0;               // the first one, the last one
    bool receives = false, sends = false;  // whether they do
    bool reduced_first = false;            // as PassShapes
    bool ends_backward = false;            // its last action sends gradients on, of its first chunk
  };
  std::vector<Move> moves;
  std::vector<Stage> stages;
};

// Whether an action of a stage takes something from another one, or gives it.
bool receives(const Action&, int chunks, int stages);
bool sends(const Action&, int chunks, int stages);

// Of many microbatches some are looked at: where each further one adds the same to each loop, so do all.
Course course(const Plan&, const Schedule&, int stages, int microbatches, bool each_microbatch,
              const std::vector<int>& leaving);

Total total_of(const std::vector<Loop>&, const std::vector<Total>& of_moves);

}  // namespace lockstep
