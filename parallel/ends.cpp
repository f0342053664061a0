#include "parallel/ends.hpp"

namespace lockstep {
Buf Embedding::forward(int j) {
  Device& d = r_.device;
  const Cut& c = r_.seam.cut();
  const i64 D = r_.model.hidden, T = r_.settings.seq, rows = r_.b * T;
  const int table = r_.params.local(0);
  Buf partial = d.take("embedding output", Kind::buffers, rows * D);
  d.run(d.ops().embed, partial, r_.store.weight(table), ids_.from(j * rows), rows, D, c.vocab_first, c.vocab);
  return r_.seam.close(std::move(partial), "embed.out", j, r_.b);
}

void Embedding::backward(int j, Buf dx, WorkList* later) {
  Buf dy = r_.seam.close_back(dx, "embed.dout", j, r_.b);
  dx.free();
  weigh(r_, later, j, {WeightWork::embedding, r_.params.local(0), std::move(dy), ids_, {}, 0, 0, ""});
}

Buf Head::backward(int j, Buf x, float scale, WorkList* later) {
  Device& d = r_.device;
  const Ops<float>& ops = d.ops();
  const Cut& c = r_.seam.cut();
  const i64 D = r_.model.hidden, T = r_.settings.seq, rows = r_.b * c.seq, inner = r_.b * T;
  const int last = static_cast<int>(r_.params.table.size()) - 1;
  const int norm = r_.params.local(last - 1), head = r_.params.local(last);
  const View labels = labels_.from(j * inner);

  Buf h = d.take("final h", Kind::buffers, rows * D);
  Buf rstd = d.take("final rstd", Kind::buffers, rows, Type::f32);
  d.run(ops.rms_norm, h, rstd, x, r_.store.weight(norm), rows, D, r_.model.rms_eps);
  Buf e = r_.seam.enter(h, "head.enter", j, r_.b);
  h.free();
  Buf logits = d.take("logits", Kind::buffers, inner * c.vocab);
  d.run(ops.matmul, logits, e, r_.store.weight(head), inner, c.vocab, D, 1);

  Buf max = d.take("max", Kind::buffers, inner, Type::f32);
  d.run(ops.ce_max, max, logits, inner, c.vocab, c.vocab_valid);
  r_.seam.vocab_max(max, j);
  Buf both = d.take("sum and target", Kind::buffers, 2 * inner, Type::f32);
  d.run(ops.ce_sum, both, both.from(inner), logits, max, labels, inner, c.vocab, c.vocab_valid, c.vocab_first,
        c.leaves);
  r_.seam.vocab_sum(both, j);
  // Every slice of the vocabulary knows the loss now; the first one writes it down.
  if (r_.mesh.tp_of(r_.rank) == 0)
    d.run(ops.ce_loss, losses_.from(r_.store.sample(j, 0)), both, max, both.from(inner), labels, r_.b, T);
  d.next_varies();  // by the step's number of labels
  d.run(ops.ce_dx, logits, max, both, labels, inner, c.vocab, c.vocab_valid, c.vocab_first, scale);
  max.free(), both.free();

  weigh(r_, later, j, {WeightWork::linear, head, logits, e, {}, c.vocab, D, ""});
  e.free();
  Buf de = d.take("final de", Kind::buffers, inner * D, d.partial());
  input_gradient(d, de, {{{logits, c.vocab, r_.store.weight(head), c.vocab}}}, inner, D, c.leaves);
  logits.free();
  Buf dh = r_.seam.open(std::move(de), "head.din", j, r_.b);
  weigh(r_, later, j, {WeightWork::norm, norm, dh, x, rstd, 0, 0, "norm.grad"});
  Buf dx = d.take("final dx", Kind::buffers, rows * D);
  d.run(ops.rms_norm_dx, dx, dh, x, rstd, r_.store.weight(norm), rows, D);
  return dx;
}

}  // namespace lockstep
