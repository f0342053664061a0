// One transformer layer on one rank: the same mathematics as ref/model.cpp, with the seam at every place
// where a layer can be cut, the store behind every weight and the stash behind every activation.
#pragma once
#include <array>
#include <initializer_list>
#include <string>
#include <vector>

#include "parallel/roles.hpp"

namespace lockstep {

// A weight gradient still to be computed: it holds its operands, so that it can run now or much later.
struct WeightWork {
  enum What { linear, norm, embedding } what;
  int local;        // local parameter
  Buf dy, x, rstd;  // linear: dy [M,N], x [M,K]; norm: dy, x [b*Ts,D]; embedding: dy [M,D], x = token ids
  i64 n = 0, k = 0;
  const char* name = "";  // of the norm's message
};

// Everything a part of the step needs of its rank.
struct Rank {
  const ModelConfig& model;
  const Settings& settings;
  const Mesh& mesh;
  int rank;
  Device& device;
  const LocalParams& params;
  Seam& seam;
  Spread& spread;
  Store& store;
  Stash& stash;
  Shelf& shelf;
  i64 b;  // sequences a microbatch
};

// Runs one weight gradient of microbatch j, sequence by sequence, into the store's tree.
void run_weight_work(const Rank&, const WeightWork&, int j);

// Where a backward pass that computes input gradients only leaves its weight gradients.
using WorkList = std::vector<WeightWork>;

// Runs it at once; or, given a list, leaves it there, its operands of kind `waiting` where they were
// temporaries.
void weigh(const Rank&, WorkList* later, int j, WeightWork);

// dx [M,K] = sum of dy_i [M,n_i] w_i [n_i,K] over up to three terms; ld: elements between rows of dy_i.
struct GradientTerm {
  View dy;
  i64 ld = 0;
  View weight;
  i64 n = 0;
};
void input_gradient(Device&, const View& dx, const std::array<GradientTerm, 3>& terms, i64 M, i64 K,
                    i64 leaves);

class Layer {
 public:
  Layer(const Rank&, int index, const Buf& cos, const Buf& sin);
  // x [b,Ts,D] -> y. Leaves in `saved` what the stash keeps.
  Buf forward(int j, Buf x, Saved& saved);
  // dy -> dx; weight gradients run at once, or go to `later` if given. Empties `saved`.
  Buf backward(int j, Saved& saved, Buf dy, WorkList* later);
  int index() const { return index_; }  // of the model's layers
  int unit() const { return index_ + 1; }

 private:
  enum Step { norm1, enter1, qkv, attend, middle, norm2, enter2, gate_up, swiglu };
  void make(Step, int j, Saved&, Kind kept);
  void need(Part, int j, Saved&);
  void drop(Saved&, std::initializer_list<Part>);
  Kind kind_of(Part p, Kind kept) const;  // a buffer's, where the stash does not keep the part
  Buf take(Part p, i64 elements, Kind kept);
  Spread::Sent project(Part p, int param, i64 heads, const std::string& name, int j, Saved&, Kind kept);
  Buf take_statistic(Part p, i64 elements, Kind kept);  // float32 whatever the activations are
  int local(int layer_param) const;
  View weight(int layer_param) const;

  Rank r_;
  int index_;
  Cut c_;
  i64 rows_, inner_;  // b*Ts outside, b*T inside the branches
  i64 whole_;         // tokens of a sequence that attention sees
  Buf cos_, sin_;
  struct Names {
    std::string attn_enter, attn_out, attn_dout, attn_din, attn_dkv, mlp_enter, mlp_out, mlp_dout, mlp_din,
        input_norm, post_norm, q, k, v, o, d_o, dq, dk, dv;
  } names_;
};

}  // namespace lockstep
