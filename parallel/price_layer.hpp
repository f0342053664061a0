// Closed formulas for what one microbatch takes: tensors kept by a layer, and temporaries at their worst.
#pragma once
#include "parallel/price.hpp"

namespace lockstep {

// One microbatch's tensors on this rank, in elements.
struct Sizes {
  i64 X, W;       // [b,Ts,D] outside the branches, [b,T,D] inside
  i64 r;          // rstd of a norm
  i64 Q, KV, S;   // q or o; k or v; log-sum-exp
  i64 F;          // gate, up or act
  i64 M, logits;  // tokens; tokens x vocabulary rows
  i64 E;          // what entering a branch adds: a gathered copy, or nothing where it is the norm's output
  i64 sum;     // most that closing a branch holds: partial and sum, or one buffer where it is summed in place
  i64 leaves;  // norm-weight gradients of the sequences
};

Sizes sizes(const Shape&, const PriceOf<Seam>&);

// Elements a layer keeps of a microbatch beside its input.
i64 kept_parts(const Sizes&, const Dropped&);
// Most elements of temporaries in a layer's forward, a layer's backward, and the head.
i64 forward_buffers(const Sizes&, const Dropped&);
i64 backward_buffers(const Sizes&, const Dropped&);
i64 head_buffers(const Sizes&);

}  // namespace lockstep
