// What a plan should cost, in closed formulas. Nothing here calls the executor or reads a trace: the gates
// hold both to these numbers, message by message and byte by byte.
#pragma once
#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "parallel/plan.hpp"
#include "parallel/trace/trace.hpp"

namespace lockstep {

// The numbers a formula may use. One rank's point of view.
struct Shape {
  i64 T, D, H, K, hd, F, V, Vp, L, R;  // the model's and the run's, whole; Vp: padded vocabulary
  bool tied;
  i64 n;     // samples a step, all ranks: sequences, or segments of them
  i64 b;     // sequences a microbatch, one rank
  i64 m;     // microbatches a step, one rank
  i64 sums;  // weight gradients of a microbatch: one a sequence; in fast mode one
  bool fast;
  i64 weight, gradient, activation;  // bytes of one number
  i64 partial;                       // of an activation that is a rank's part of a sum: in exact mode float32
  int dp, tp, pp;                    // dp: ranks with other tokens, a plan's dp x cp
  int dp_at, tp_at, stage;
  int cp;                // ranks a sequence is cut over; T and n are of its segments
  int replicas, shards;  // of dp: groups, and the ranks of one, who share what is sharded
  int replica_at, shard_at;
  Axis sharing;      // of a group's messages
  bool reversed;     // the schedule's backward takes the last microbatch first
  const Plan* plan;  // for a strategy's own words
  bool first() const { return stage == 0; }
  bool last() const { return stage == pp - 1; }
  // Buffers that add up gradients of so many samples: tree_slots() in exact mode, in fast mode one.
  i64 slots(i64 samples, i64 microbatch, i64 block, i64 parts = 1) const;
};
Shape shape_of(const Plan&, const ModelConfig&, const Settings&, int rank);

// Partial sums of the exact tree over n samples wait in slots: at any time one for each of the whole subtrees
// that what has arrived is made of. The most at once when microbatches of all n samples arrive, the first one
// first or (reversed) the last one, each block by block, a block as the whole subtrees that it is made of.
// Samples that come one by one (block = 1) need max(1, ceil(log2 n)) slots in order, max(1, floor(log2 n)) in
// reverse. parts: the samples are so many equal parts, and a microbatch has as many of each, first part
// first.
i64 tree_slots(i64 n, i64 microbatch, i64 block, bool reversed, i64 parts = 1);
// The same when the samples of any one block [k block, (k + 1) block) arrive in order; and how many sums are
// left at its end.
i64 block_slots(i64 n, i64 block);
i64 block_sums(i64 n, i64 block);

// How partial sums are added in that tree as they arrive: into the slot of one that waits, or to begin one;
// and then sums that are complete to each other.
struct Additions {
  i64 joined = 0, begun = 0, merged = 0;
  Additions& operator+=(const Additions&);
};
// Of all n samples, arriving as for tree_slots(); and of the samples [first, last) alone, one by one in
// order.
Additions tree_additions(i64 n, i64 microbatch, i64 block, bool reversed, i64 parts = 1);
Additions block_additions(i64 n, i64 first, i64 last);
// In fast mode: all into one slot, as they come.
Additions plain_additions(i64 arrivals);
// Of a rank that sums its own samples, n/dp of them; in fast mode its microbatches.
Additions own_samples(const Shape&);

// Of E elements in equal shards, the last one padded: of each shard, and those that are this rank's.
i64 shard(const Shape&, i64 E);
i64 own_part(const Shape&, i64 E);
i64 first_of_own_part(const Shape&, i64 E);

// One message as a formula states it.
struct Said {
  Axis axis;
  Verb verb;
  i64 elements;
};
using Maybe = std::optional<Said>;

// Bytes that the program itself brings to the device in a step, and takes from it: tokens, labels; losses and
// the sum of squares both ways.
i64 host_bytes(const Plan&, const ModelConfig&, const Settings&, int rank);

// What a rank runs and copies: how often and how much, and how much of its talk the kernels beside it hide.
struct StepWork {
  struct Copies {
    i64 times = 0, bytes = 0;
    auto operator<=>(const Copies&) const = default;
  };
  // `work` of all of them together: of matmuls and attention floating-point operations, of others the numbers
  // that they read and write, as kernels/work.hpp counts both.
  struct Runs {
    i64 times = 0, work = 0;
    auto operator<=>(const Runs&) const = default;
  };
  std::map<std::string, Runs> setup, kernels;  // by kernel: before the first step, and in a step
  std::map<std::string, Copies> copies;        // of both, by name
  // Messages and copies of a step that are under way while a kernel runs, by tensor or name: their strategy
  // promises it. What is not here is waited for before the next kernel.
  std::map<std::string, i64> hidden;

  static constexpr const char* kZero = "zero";  // the kernel, which has a plan's word for its name
  void run(const std::string& kernel, i64 times, i64 work);  // work: of all
  void set_up(const std::string& kernel, i64 times, i64 work);
  void copy(const std::string& name, i64 times, i64 bytes, i64 hidden_times);  // bytes: of all
  void hide(const std::string& name, i64 times);
};

enum class Part;

class Seam;
class Spread;
class Schedule;
class Store;
class Home;
class Stash;
class Shelf;
template <class Role>
struct PriceOf;

// Elements of one microbatch in each named activation, and the messages of each hook.
template <>
struct PriceOf<Seam> {
  i64 (*outside)(const Shape&);  // tokens of one sequence outside the branches
  i64 (*heads)(const Shape&);    // query heads of this rank
  i64 (*kv_heads)(const Shape&);
  i64 (*ffn)(const Shape&);
  i64 (*vocab)(const Shape&);  // stored vocabulary rows of this rank
  Maybe (*enter)(const Shape&);
  Maybe (*close)(const Shape&);
  Maybe (*close_back)(const Shape&);
  Maybe (*open)(const Shape&);
  Maybe (*norm_grad)(const Shape&);
  Maybe (*kv_grad)(const Shape&);  // once for dk, once for dv
  Maybe (*vocab_max)(const Shape&);
  Maybe (*vocab_sum)(const Shape&);
};

template <>
struct PriceOf<Spread> {
  bool exchanges = false;  // heads for tokens; so that attention's output is there twice
  i64 (*repeats)(const Shape&) = [](const Shape&) { return i64{1}; };  // ranks of a key/value head
  // The message of one of q, k, v, attention's output or their gradients, of so many elements on this rank.
  Maybe (*exchange)(const Shape&, i64 elements);
};

template <>
struct PriceOf<Schedule> {
  i64 (*chunks)(const Shape&);  // of layers on a stage
  // Most that microbatches in flight hold on a stage at once, of what each of its chunks keeps of one.
  i64 (*held)(const Shape&, const std::vector<i64>& chunks);
  i64 (*ends)(const Shape&);       // most final hidden states the last stage holds then, in flight or waiting
  i64 (*handovers)(const Shape&);  // most messages of the pipeline posted and not finished at once
  // Where weight gradients are a pass of their own: most microbatches that wait for it at once, and those
  // that wait beside those in flight.
  i64 (*waiting)(const Shape&) = [](const Shape&) { return i64{0}; };
  i64 (*beside)(const Shape&) = [](const Shape&) { return i64{0}; };
  // Passes of weight gradients that another one follows at once.
  i64 (*weights_in_a_row)(const Shape&) = [](const Shape&) { return i64{0}; };
  // Forwards of this stage's k-th chunk that are followed at once by one of the model's first chunk.
  i64 (*into_first)(const Shape&, i64 k);
  bool reversed = false;  // backward takes the last microbatch first, not the first one
};

// Of a unit with E local elements (a tied head on its embedding's stage has gradients, but E = 0 weights).
template <>
struct PriceOf<Store> {
  i64 (*weights)(const Shape&, i64 E);    // bytes kept
  i64 (*gathered)(const Shape&, i64 E);   // bytes while the unit is made whole
  i64 (*gradients)(const Shape&, i64 E);  // bytes kept
  i64 (*reducing)(const Shape&, i64 E);   // bytes from a unit's first weight gradient until it is reduced
  i64 (*updated)(const Shape&, i64 E);    // elements this rank's optimizer owns
  Maybe (*reduce)(const Shape&, i64 E);   // the message of the gradient, once a step or for each microbatch
  // Units of a chunk whose gradients are one message, counted from the highest down.
  i64 (*reduced_together)(const Shape&) = [](const Shape&) { return i64{1}; };
  // What is reduced by then among the ranks that share it, over the groups that do: once a step.
  Maybe (*reduce_over_replicas)(const Shape&, i64 E) = [](const Shape&, i64) { return Maybe{}; };
  bool (*reduces_each_microbatch)(const Shape&);
  bool (*reduces_one_by_one)(const Shape&);  // a unit when the one before has arrived; if not, in a queue
  Maybe (*gather)(const Shape&, i64 E);      // the message of the weights, once a step or at each use
  bool (*gathers_each_use)(const Shape&);
  // Additions of the gradients of one parameter, sample by sample, in a step; and of a unit's messages.
  Additions (*of_samples)(const Shape&);
  Additions (*of_messages)(const Shape&) = [](const Shape&) { return Additions{}; };
  i64 (*zeroed_pads)(const Shape&, i64 E) = [](const Shape&, i64) { return i64{0}; };    // runs, of a unit
  i64 (*first_updated)(const Shape&, i64 E) = [](const Shape&, i64) { return i64{0}; };  // of `updated`
  // Over dp, or the ranks of a group; if not, the first replica counts in the gradient norm.
  bool sharded = true;
};

template <>
struct PriceOf<Home> {
  i64 (*optimizer)(const Shape&, i64 updated);                              // bytes on the device
  i64 (*host)(const Shape&, i64 updated);                                   // beside it
  i64 (*disk)(const Shape&, i64 updated);                                   // and in the rank's file
  Kind (*rest)(const Shape&) = [](const Shape&) { return Kind::weights; };  // of weights; this: the device
  void (*work)(const Shape&, const std::vector<i64>& pieces, StepWork&);    // pieces: elements of each
};

// What a layer does not keep from forward to backward.
struct Dropped {
  bool norms, qkv, attention, x2, gate_up, product;
};
template <>
struct PriceOf<Stash> {
  Dropped (*drops)(const Shape&, i64 layer);
};

// What is kept between forward and backward on one rank, in elements.
struct KeptElements {
  i64 held, with_ends;  // most at once, of microbatches in flight; with final hidden states
  i64 last;             // of the model's last layer
  i64 ends, end;        // final hidden states held at once (0: not on this stage), and the size of one
  // Where weight gradients are a pass of their own: microbatches that wait for it while another one's input
  // gradients are computed, those that wait beside those in flight, and what one keeps for it.
  bool split;
  i64 others, beside, for_weights;
  // Most of a layer in use and the one before it; and of layers above that wait for their weight gradients.
  i64 in_use;
};
// What one layer of a chunk keeps of a microbatch.
struct KeptLayer {
  i64 parts, bytes;
  bool top;            // of its chunk
  bool under_head;     // the head runs before its backward
  i64 into_first = 0;  // top: passes that the first chunk's forward follows at once
};
template <>
struct PriceOf<Shelf> {
  i64 (*device)(const Shape&, const KeptElements&);  // bytes
  i64 (*host)(const Shape&, const KeptElements&);
  i64 (*disk)(const Shape&, const KeptElements&);
  void (*work)(const Shape&, const KeptLayer&, StepWork&) = [](const Shape&, const KeptLayer&, StepWork&) {};
};

// A message of the gradients of units lowest to highest; and of a unit's over replicas.
std::string bucket_name(i64 lowest, i64 highest);
std::string replicas_name(i64 unit);

struct Price {
  KindBytes peak{};  // each kind's peak on this rank
  struct Line {
    std::string what;
    int microbatch;
    Said said;
    Type type = Type::f32;
    Reduce reduce = Reduce::none;
    int peer = -1;  // of a send or recv: the other's stage
  };
  std::vector<Line> messages;  // of one step
};
Price price(const Plan&, const ModelConfig&, const Settings&, int rank);
KindBytes peak_bytes(const Plan&, const ModelConfig&, const Settings&, int rank);  // the memory alone
StepWork step_work(const Plan&, const ModelConfig&, const Settings&, int rank);

// Operands that wait for a later pass of weight gradients, beside weights that are fetched for every use; or
// layers of two sizes on disk, in chunks that have them in other proportions. Which; null: neither.
const char* scatters(const Plan&, const ModelConfig&, const Settings&);

}  // namespace lockstep
