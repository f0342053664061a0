#!/usr/bin/env python3
"""Kernels of a step beside PyTorch's for the same sizes and type, on the same device: matmuls are cuBLAS's or cuBLASLt's on
a GPU, attention is scaled_dot_product_attention (flash or cuDNN's), element-wise kernels are compiled.

    lockstep time --model M --data D --plan "micro=8" --dtype bf16 --device cuda --kernels --csv kernels.csv
    suites/peers/pytorch_kernels.py kernels.csv [--csv beside.csv]

One line a kernel, what takes most of a step first: microseconds here and there, and how much sooner ours is (below 1:
later). PyTorch's operands are all of the line's type; of ours in bf16 some are float32: a weight's gradient, which is
summed up in it, and what is added or copied to it. Operands come from memory, not from caches, as in `lockstep time`.
What PyTorch has no operation for (cross entropy in parts, a norm's gradient in two, RoPE) is written in its operations and
compiled. Exact sums of squares have nothing like them there, and the loss's sum in float64 is tiny: they are named and left out.
"""
import argparse
import csv
import statistics
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FAR = 256e6  # bytes of operands gone through, so that none lies in a cache when its turn comes


def new(dtype, *shape):
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def ids(n, most):
    return torch.randint(most, (n,), device=DEVICE)


# name -> operands(dtype, sizes), call(sizes, *operands). Sizes: kernels/ops.hpp.
def matmul(dtype, s):
    m, n, k = s[:3]
    return [new(dtype, m, k), new(dtype, n, k), new(dtype, m, n)]


def matmul_dx(dtype, s):
    m, k = s[6:8]
    return [new(dtype, m, k)] + [new(dtype, *shape) for n in s[1:6:2] if n for shape in ((m, n), (n, k))]


def call_matmul_dx(s, dx, *pieces):
    torch.mm(pieces[0], pieces[1], out=dx)
    for dy, w in zip(pieces[2::2], pieces[3::2]):
        dx.addmm_(dy, w)


def matmul_dw(dtype, s):
    t, n, k = s[:3]
    return [new(dtype, t, n), new(dtype, t, k), new(dtype, n, k)]


def call_matmul_dw(s, dy, x, dw):
    dw.addmm_(dy.T, x) if s[3] else torch.mm(dy.T, x, out=dw)


def heads(dtype, s):
    b, t, h, k, hd = s
    return [new(dtype, b, t, n, hd).transpose(1, 2) for n in (h, k, k)]


def attend(s, q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s[2] != s[3])


def attention_dx(dtype, s):
    inputs = [x.requires_grad_() for x in heads(dtype, s)]
    out = attend(s, *inputs)
    return [out, torch.randn_like(out), *inputs]


def rows(count):
    return lambda dtype, s: [new(dtype, s[-1]) for _ in range(count)]


def silu_gradient(da, g, u):
    sg = torch.sigmoid(g)
    return da * u * (sg * (1 + g * (1 - sg))), da * g * sg


swiglu = torch.compile(lambda g, u: F.silu(g) * u)
swiglu_dx = torch.compile(silu_gradient)
rms_norm = torch.compile(lambda x, w, eps: F.rms_norm(x, x.shape[-1:], w, eps))


@torch.compile
def rms_norm_dx(dy, x, rstd, w):
    xhat, g = x.float() * rstd, dy.float() * w.float()
    return (rstd * (g - xhat * (g * xhat).mean(-1, keepdim=True))).to(x.dtype)


@torch.compile
def rms_norm_dw(dy, x, rstd):
    return (dy.float() * (x.float() * rstd)).sum(0)


def norm(dtype, s):
    m, d = s[:2]
    return [new(dtype, m, d), new(dtype, m, d), new(torch.float32, m, 1), new(dtype, d)]


def rope_operands(dtype, s):
    m, t, n, hd = s[:4]
    return [new(dtype, m // t, t, n, hd), new(torch.float32, t, 1, hd // 2), new(torch.float32, t, 1, hd // 2)]


@torch.compile
def rope(x, cos, sin):  # in place, as ours
    low, high = x.float().chunk(2, -1)
    x.copy_(torch.cat((low * cos - high * sin, high * cos + low * sin), -1))


def logits(dtype, s):
    m, v = s[:2]
    return [new(dtype, m, v), new(torch.float32, m, 1), 1 + new(torch.float32, m, 1).abs(), ids(m, v)[:, None]]


@torch.compile
def ce_max(x):
    return x.amax(-1).float()


@torch.compile
def ce_sum(x, top, labels):
    return (x.float() - top).exp().sum(-1), x.gather(1, labels).float()


@torch.compile
def ce_dx(x, top, total, labels):  # in place, as ours
    here = torch.arange(x.shape[1], device=x.device)[None] == labels
    x.copy_(((x.float() - top).exp() / total - here.float()) * 1e-4)


def adamw(_, s):
    w = torch.nn.Parameter(new(torch.float32, s[0]))
    w.grad = torch.randn_like(w)
    optimizer = torch.optim.AdamW([w], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    optimizer.step()  # makes its moments
    return [optimizer]


PEERS = {
    "matmul": (matmul, lambda s, x, w, y: torch.mm(x, w.T, out=y)),
    "matmul_dx": (matmul_dx, call_matmul_dx),
    "matmul_dw": (matmul_dw, call_matmul_dw),
    "attention": (heads, attend),
    "attention_dx": (attention_dx, lambda s, out, grad, *inputs: torch.autograd.grad(out, inputs, grad, retain_graph=True)),
    "embed": (lambda dtype, s: [ids(s[0], s[3]), new(dtype, s[3], s[1])], lambda s, i, table: F.embedding(i, table)),
    "embed_dw": (lambda dtype, s: [new(dtype, s[0], s[1]), ids(s[0], s[3])],
                 lambda s, dy, i: torch.ops.aten.embedding_dense_backward(dy, i, s[3], -1, False)),
    "rms_norm": (lambda dtype, s: [new(dtype, s[0], s[1]), new(dtype, s[1])], lambda s, x, w: rms_norm(x, w, 1e-5)),
    "rms_norm_dx": (norm, lambda s, dy, x, rstd, w: rms_norm_dx(dy, x, rstd, w)),
    "rms_norm_dw": (norm, lambda s, dy, x, rstd, _: rms_norm_dw(dy, x, rstd)),
    "rope": (rope_operands, lambda s, *all_three: rope(*all_three)),
    "ce_max": (logits, lambda s, x, *_: ce_max(x)),
    "ce_sum": (logits, lambda s, x, top, total, labels: ce_sum(x, top, labels)),
    "ce_dx": (logits, lambda s, *all_four: ce_dx(*all_four)),
    "swiglu": (rows(2), lambda s, g, u: swiglu(g, u)),
    "swiglu_dx": (rows(3), lambda s, *all_three: swiglu_dx(*all_three)),
    "add": (rows(3), lambda s, y, a, b: torch.add(a, b, out=y)),
    "copy": (rows(2), lambda s, y, x: y.copy_(x)),
    "zero": (rows(1), lambda s, y: y.zero_()),
    "adamw": (adamw, lambda s, optimizer: optimizer.step()),
}


def nbytes(x):
    return x.nbytes if torch.is_tensor(x) else 16 * x.param_groups[0]["params"][0].numel()


def seconds_of(operands, call, dtype, sizes):
    sets = [operands(dtype, sizes)]
    copies = int(FAR / max(1, sum(map(nbytes, sets[0])))) + 1
    sets += [operands(dtype, sizes) for _ in range(min(copies, 64) - 1)]
    at = 0

    def batch(calls):
        nonlocal at
        begin = time.perf_counter()
        if DEVICE == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
        for _ in range(calls):
            call(sizes, *sets[at % len(sets)])
            at += 1
        if DEVICE == "cpu":
            return (time.perf_counter() - begin) / calls
        last.record(), last.synchronize()
        return first.elapsed_time(last) / 1e3 / calls

    with torch.enable_grad():  # of an attention's gradient; the others' operands ask for none
        batch(3)  # compiles, and chooses algorithms
        calls = max(1, min(200, int(5e-3 / max(batch(1), 1e-7))))
        return statistics.median(batch(calls) for _ in range(5))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("kernels", help="what `lockstep time --csv` wrote")
    args.add_argument("--csv", help="write the lines to this file, too")
    args.add_argument("--threads", type=int, default=1, help="of the processor, where there is no GPU")
    o = args.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    with open(o.kernels, encoding="utf-8") as file:
        known = [row for row in csv.DictReader(file) if int(row["calls"]) > 0]
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"PyTorch {torch.__version__}, {where}\n{'kernel':<14}{'sizes':<34}{'dtype':<9}{'us ours':>12}{'us torch':>12}{'ratio':>8}")
    lines, left_out = [], {}
    for row in known:
        kernel, sizes = row["kernel"], [int(float(x)) for x in row["sizes"].split()]
        if kernel not in PEERS:
            left_out[kernel] = "no such kernel in PyTorch"
            continue
        dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
        try:
            theirs = seconds_of(*PEERS[kernel], dtype, sizes)
        except RuntimeError as e:  # out of memory, or no compiler for what is compiled
            left_out[kernel] = str(e).splitlines()[0]
            continue
        ours = float(row["seconds"])
        lines.append([kernel, row["sizes"], row["dtype"], ours, theirs, theirs / ours])
        print(f"{kernel:<14}{row['sizes']:<34}{row['dtype']:<9}{1e6 * ours:12.2f}{1e6 * theirs:12.2f}{theirs / ours:8.2f}", flush=True)
    for kernel, why in left_out.items():
        print(f"left out: {kernel}: {why}")
    if o.csv:
        with open(o.csv, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["kernel", "sizes", "dtype", "seconds", "pytorch_seconds", "ratio"])
            writer.writerows(lines)


if __name__ == "__main__":
    main()
