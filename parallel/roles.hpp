// The seven questions a strategy can answer, one role each. A strategy is one file: it implements one role,
// states its price (price.hpp) and registers itself. The executor knows only what is on this page.
//
//   Seam      how is one layer split across ranks?                   default: whole
//   Spread    on which ranks are a sequence's tokens?                default: all on one
//   Schedule  which microbatch runs when, on which stage?            default: 1f1b, of one stage
//   Store     where do weights, gradients and optimizer state live,  default: data, one replica
//             and when are gradients reduced?
//   Home      on which memory do optimizer state and weights rest?   default: device
//   Stash     which activations survive until backward?              default: keep all
//   Shelf     where do those wait?                                   default: on the device
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "parallel/device/device.hpp"
#include "parallel/layout.hpp"
#include "parallel/plan.hpp"
#include "parallel/price/price.hpp"

namespace lockstep {

class Home;

// What a strategy may know when it is made.
struct Context {
  const ModelConfig& model;
  const Settings& settings;
  const Plan& plan;
  const Mesh& mesh;
  int rank;
  Device& device;
  // Known once seam, schedule and home are made, for stores:
  const Home* home = nullptr;
  const LocalParams* params = nullptr;
  const std::vector<std::vector<int>>* gradient_order = nullptr;  // by unit: microbatches as they finish
};

// ---- Seam ---------------------------------------------------------------------------------------------
// A layer is norm -> [enter] branch [close] -> add. Backward: [close_back] branch' [open] -> norm'.
// `what` names the tensor, j is the microbatch; b sequences are in a call. A sum is of its parts' type.
class Seam {
 public:
  virtual ~Seam() = default;
  virtual const Cut& cut() const = 0;                                   // local sizes
  virtual Slice slice(const Param&) const = 0;                          // this rank's part of a parameter
  virtual Buf enter(const Buf& h, const char* what, int j, i64 b) = 0;  // [b,Ts,D] -> [b,T,D]
  virtual Buf close(Buf partial, const char* what, int j, i64 b) = 0;   // [b,T,D] partial -> [b,Ts,D] sum
  virtual Buf close_back(const Buf& dy, const char* what, int j, i64 b) = 0;  // [b,Ts,D] -> [b,T,D]
  virtual Buf open(Buf partial, const char* what, int j, i64 b) = 0;  // [b,T,D] partial -> [b,Ts,D] sum
  // Norm-weight gradients [b,D] of the tokens this rank sees -> of all tokens.
  virtual void norm_grad(const Buf& leaves, const char* what, int j, i64 b) = 0;
  // dk, dv [b,T,K*hd] of this rank's query heads -> of all query heads of those kv heads.
  virtual void kv_grad(const Buf& dk, const Buf& dv, const char* what, int j, i64 b) = 0;
  // Row-wise results over this rank's vocabulary columns -> over all of them.
  virtual void vocab_max(const Buf& max, int j) = 0;
  virtual void vocab_sum(const Buf& sum_and_target, int j) = 0;
};

// ---- Spread -------------------------------------------------------------------------------------------
// All of a layer but attention treats a token by itself. Where a rank has a segment of each sequence, here is
// how attention gets to see whole ones: [b, T/parts, heads*hd] of this rank's tokens, all heads of its seam,
// <-> [b, T, heads*repeats/parts*hd] of all tokens, fewer heads.
class Spread {
 public:
  // On its way: until it is taken other kernels run, and others may be sent.
  struct Sent {
    Buf buf;
    Kind kind;  // of what is taken, which has the type of what was sent
    Request request{};
    const char* what = "";
    i64 heads = 0;
  };
  virtual ~Spread() = default;
  virtual int parts() const { return 1; }  // a sequence, and the seam's heads, are cut in so many
  // Of so many heads of the seam each is on so many ranks, for attention: the seam has fewer than parts.
  virtual i64 repeats(i64 /*heads*/) const { return 1; }
  virtual Sent send_tokens(Buf tokens, i64 /*heads*/, Kind kind, const char* /*what*/, int /*j*/, i64 /*b*/) {
    return {std::move(tokens), kind};
  }
  virtual Buf take_by_head(Sent sent, i64 /*b*/) { return std::move(sent.buf); }
  // What ranks have of a repeated head's gradient is added up where it is taken.
  virtual Sent send_by_head(Buf by_head, i64 /*heads*/, Kind kind, const char* /*what*/, int /*j*/,
                            i64 /*b*/) {
    return {std::move(by_head), kind};
  }
  virtual Buf take_tokens(Sent sent, i64 /*b*/) { return std::move(sent.buf); }
};

// ---- Schedule -----------------------------------------------------------------------------------------
enum class Pass { forward, backward, input_grad, weight_grad };  // backward = input_grad + weight_grad
struct Action {
  Pass pass;
  int chunk;  // global: chunk c lives on stage c mod pp
  int microbatch;
  bool last;  // this chunk's last weight gradient of the step; decided here and nowhere else
};
// parallel/contract.hpp says what a stage's actions must be, and holds them to it.
class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual int chunks_per_stage() const { return 1; }
  virtual std::vector<Action> actions(int stage, int stages, int microbatches) const = 0;
};

// ---- Store --------------------------------------------------------------------------------------------
// A piece of a parameter as the optimizer sees it: n elements of weight, gradient.
struct Piece {
  int local;  // index into the local parameters
  i64 first;  // of the local parameter's elements
  i64 n;
  View weight, gradient;
  bool counted;  // this rank counts it in the gradient norm (replicas count once)
};
class Store {
 public:
  virtual ~Store() = default;
  // The step's sample that microbatch j holds at place i.
  virtual i64 sample(int microbatch, i64 i) const = 0;
  // Puts fresh values [count of the local parameter] where this rank keeps them (set-up).
  virtual void load(int local, const float* values) = 0;
  virtual void acquire(int unit) = 0;  // make the unit's weights whole here; calls nest
  virtual void release(int unit) = 0;
  virtual void prefetch(int) {}                   // this unit will be acquired next
  virtual View weight(int local) = 0;             // of an acquired unit
  virtual bool resident() const { return true; }  // this rank keeps whole weights, not shards:
  virtual View kept(int local) = 0;               // these, where the home lets them rest
  // Where the leaf of `sample` of a parameter's gradient goes; after the kernel wrote it, call done().
  struct Leaf {
    View at;
    bool add;
  };
  virtual Leaf leaf(int local, i64 sample) = 0;
  virtual void done(int local, i64 sample) = 0;
  virtual void ready(int unit, int microbatch, bool last) = 0;  // the unit's gradient of the microbatch is in
  virtual void finish() = 0;                        // all reductions done: gradients are whole sums
  virtual const std::vector<Piece>& pieces() = 0;   // what this rank updates
  virtual void republish() = 0;                     // updated weights reach everyone who computes with them
  virtual View gradient(int local, i64 first) = 0;  // reduced, from this element on, of this rank's pieces
};

// ---- Home ---------------------------------------------------------------------------------------------
class Home {
 public:
  virtual ~Home() = default;
  virtual Kind rest() const { return Kind::weights; }  // where weights rest between uses, see RestingWeights
  // Makes room for the optimizer's state of these pieces (set-up).
  virtual void prepare(const std::vector<Piece>&, const LocalParams&) = 0;
  // The pieces have fresh weights: float32 masters, where there are some, begin as those.
  virtual void begin(const std::vector<Piece>&) = 0;
  // Updates every piece by its gradient times `clip`.
  virtual void step(const std::vector<Piece>&, const LocalParams&, i64 step, double clip) = 0;
  // Where the state of element `at` of all pieces, in their order, rests between steps.
  struct State {
    View master, first, second;  // no master where weights are their own
  };
  virtual State state(i64 at) const = 0;
};

// ---- Stash --------------------------------------------------------------------------------------------
// Named activations of one layer and microbatch. Kept together or not at all: h1 rstd1; q k v; o oh lse; h2
// rstd2; gate up. Whoever keeps act keeps gate and up too, and whoever keeps h2 also x2; nobody keeps e1, e2.
// oh: attention's output as attention has it, of all tokens, where it is another than the layer's, o.
enum class Part { x, h1, rstd1, q, k, v, o, oh, lse, x2, h2, rstd2, gate, up, act, e1, e2, count };
const char* part_name(Part);
class Stash {
 public:
  virtual ~Stash() = default;
  // Kept from forward to backward; the others are made again. The layer's input x is always kept.
  virtual bool keeps(int layer, Part) const = 0;
};

// ---- Shelf --------------------------------------------------------------------------------------------
// What a layer's forward leaves for its backward: the parts that the stash keeps, others are empty.
struct Saved {
  std::array<Buf, static_cast<int>(Part::count)> part;
  Buf& operator[](Part p) { return part[static_cast<int>(p)]; }
};
class Shelf {
 public:
  virtual ~Shelf() = default;
  // The layer's forward of microbatch j is done: what it saved may leave the device until it is brought back.
  virtual void put(int, int, Saved&) {}
  virtual void settle() {}                    // a pass begins: what was on its way out has left
  virtual void prefetch(int, int, Saved&) {}  // the layer's backward of microbatch j comes soon
  virtual void bring(int, int, Saved&) {}     // it comes now: what it saved is on the device
};

// ---- Registration -------------------------------------------------------------------------------------
// `wants` says whether a plan asks for this strategy; the role's default, one of each role, has none and
// serves all other plans. No two have one name, or want one plan: a strategy wants values of words that it
// lists itself.
template <class Role>
struct Strategy {
  const char* name;
  std::vector<Word> words;
  bool (*wants)(const Plan&);
  std::vector<Rule> rules;
  std::unique_ptr<Role> (*make)(const Context&);
  PriceOf<Role> price;
  Strategy(const char* name, std::vector<Word> words, bool (*wants)(const Plan&), std::vector<Rule> rules,
           std::unique_ptr<Role> (*make)(const Context&), PriceOf<Role> price);
  ~Strategy();
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;
};

// Whether the plan gives this word one of the values listed here, other than the fallback.
bool asks_for(const Plan&, const Word&);

// All that have registered, in no order that means anything.
template <class Role>
const std::vector<const Strategy<Role>*>& strategies();

// The one strategy of this role that the plan chooses. StrategyError: two want the plan, or two are the
// default.
template <class Role>
const Strategy<Role>& chosen(const Plan&);
// StrategyError: two strategies of a role have one name, or are its default.
void check_strategies();
// Makes it. StrategyError: its `make` returns nothing.
template <class Role>
std::unique_ptr<Role> made(const Context&);
std::string chosen_names(
    const Plan&);  // "seam whole, schedule 1f1b, ...": of each role the one that is chosen

}  // namespace lockstep
