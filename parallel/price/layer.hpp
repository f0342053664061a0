// Closed formulas for what one microbatch takes: tensors kept by a layer, and temporaries at their worst.
#pragma once
#include "parallel/price/price.hpp"

namespace lockstep {

// One microbatch's tensors on this rank, in numbers of the activations' type; statistics of a row are float32
// and count as so many of them.
struct Sizes {
  i64 X, W;       // [b,Ts,D] outside the branches, [b,T,D] inside
  i64 Xp, Wp;     // the same of parts of sums
  i64 r;          // rstd of a norm
  i64 Q, KV, S;   // q or o; k or v; log-sum-exp
  i64 O;          // o once more, where heads are exchanged for tokens; else 0
  i64 F;          // gate, up or act
  i64 M, logits;  // a statistic of each token; tokens x vocabulary rows
  i64 E;          // what entering a branch adds: a gathered copy, or nothing where it is the norm's output
  i64 sum;     // most that opening a branch holds: partial and sum, or one buffer where it is summed in place
  i64 closed;  // and closing it: also the sum and what comes of adding it, or one buffer
  i64 embedded;  // most that the embedding holds, whose parts are activations
  i64 KVp;       // parts of dk or dv, where ranks share heads
  i64 KH, KHp;   // k or v, and parts of dk or dv, as attention has them
  i64 leaves;    // norm-weight gradients of the sequences
};

Sizes sizes(const Shape&, const PriceOf<Seam>&, const PriceOf<Spread>&);

// Elements a layer keeps of a microbatch beside its input.
i64 kept_parts(const Sizes&, const Dropped&);
// Most elements of temporaries in a layer's forward, a layer's backward, and the head. `split`: weight
// gradients are a later pass, and a buffer that waits for it is a temporary no more.
i64 forward_buffers(const Sizes&, const Dropped&);
i64 backward_buffers(const Sizes&, const Dropped&, bool split);
i64 head_buffers(const Sizes&, bool split);
// What then waits of a microbatch: of what a layer kept, the part that weight gradients need; and what
// backward made, in a layer, the head and the embedding.
i64 kept_for_weights(const Sizes&, const Dropped&);
i64 made_for_weights(const Sizes&, const Dropped&);
i64 head_for_weights(const Sizes&);
i64 embedding_for_weights(const Sizes&);

}  // namespace lockstep
