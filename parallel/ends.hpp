// The two ends of the model: embedding on the first stage, final norm, head and loss on the last.
#pragma once
#include "parallel/layer.hpp"

namespace lockstep {

class Embedding {
 public:
  Embedding(const Rank& r, const Buf& ids) : r_(r), ids_(ids) {}
  Buf forward(int j);  // -> x [b,Ts,D]
  void backward(int j, Buf dx, WorkList* later);

 private:
  Rank r_;
  Buf ids_;  // [microbatches*b, T] token ids
};

// The head runs forward and backward at once, at the start of a microbatch's backward, so that logits never
// wait for anything: what a last stage keeps of a microbatch is its last hidden state.
class Head {
 public:
  Head(const Rank& r, const Buf& labels, const Buf& losses) : r_(r), labels_(labels), losses_(losses) {}
  // x [b,Ts,D] -> dx; `scale` = 1 / valid labels of the step.
  Buf backward(int j, Buf x, float scale, WorkList* later);

 private:
  Rank r_;
  Buf labels_;  // [microbatches*b, T]
  Buf losses_;  // [n] doubles by sample
};

}  // namespace lockstep
