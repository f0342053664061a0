#!/usr/bin/env python3
"""The same training step in PyTorch, for a ratio in one run: a Llama of the same config.json, float32 weights that autocast
narrows to bf16, fused AdamW, compiled, attention by scaled_dot_product_attention (flash on a GPU), gradients clipped.

    suites/peers/pytorch_step.py suites/models/tinyllama-1.1b.json --batch 8 --seq 2048 --steps 10 --peak 989.4

Prints one line, as `lockstep time` does. Model operations, as there: 6 for each token and weight of a matmul, the head's
included, and 6 L T H hd for causal attention, whose half of the square counts once.
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f, self.heads, self.kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.hd = c.get("head_dim") or d // self.heads
        self.norm1, self.norm2 = (nn.RMSNorm(d, eps=c["rms_norm_eps"]) for _ in range(2))
        self.q, self.o = nn.Linear(d, self.heads * self.hd, bias=False), nn.Linear(self.heads * self.hd, d, bias=False)
        self.k, self.v = (nn.Linear(d, self.kv * self.hd, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False), nn.Linear(f, d, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.norm1(x)
        q, k, v = (w(h).view(b, t, -1, self.hd).transpose(1, 2) for w in (self.q, self.k, self.v))

        def turned(y):
            low, high = y.chunk(2, -1)
            return (y * cos + torch.cat((-high, low), -1) * sin).to(y.dtype)
        a = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True, enable_gqa=self.kv < self.heads)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, c, seq):
        super().__init__()
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], eps=c["rms_norm_eps"])
        self.head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        if c.get("tie_word_embeddings"):
            self.head.weight = self.embed.weight
        hd = self.blocks[0].hd
        angles = torch.outer(torch.arange(seq), c.get("rope_theta", 10000.0) ** (-torch.arange(0, hd, 2) / hd)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False), self.register_buffer("sin", angles.sin(), persistent=False)
        for w in self.parameters():
            if w.dim() > 1:
                nn.init.normal_(w, std=c.get("initializer_range", 0.02))

    def forward(self, ids, labels):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), labels.flatten())


def flops(c, batch, seq):
    d, layers, heads = c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"]
    hd = c.get("head_dim") or d // heads
    weights = layers * (2 * d * hd * (heads + c["num_key_value_heads"]) + 3 * d * c["intermediate_size"]) + c["vocab_size"] * d
    return batch * seq * (6 * weights + 6 * layers * seq * heads * hd)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    for name, value in (("batch", 8), ("micro", 0), ("seq", 2048), ("steps", 10)):
        args.add_argument(f"--{name}", type=int, default=value)
    args.add_argument("--peak", type=float, default=0)
    args.add_argument("--eager", action="store_true", help="do not compile")
    o = args.parse_args()
    c = json.load(open(o.model, encoding="utf-8"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    micro = o.micro or o.batch
    torch.manual_seed(1)
    with torch.device(device):
        model = Llama(c, o.seq)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    step_model = model if o.eager else torch.compile(model)
    half = torch.autocast(device, torch.bfloat16) if device == "cuda" else contextlib.nullcontext()
    ids = torch.randint(c["vocab_size"], (o.batch, o.seq + 1), device=device)

    def step():
        for i in range(0, o.batch, micro):
            part = ids[i:i + micro]
            with half:
                loss = step_model(part[:, :-1], part[:, 1:])
            (loss * micro / o.batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()  # waits for the device

    while True:
        try:
            for _ in range(3):
                step()
            break
        except torch.cuda.OutOfMemoryError:
            if micro == 1:
                raise
        optimizer.zero_grad(set_to_none=True)
        micro //= 2
        print(f"out of memory: microbatches of {micro}", flush=True)
    seconds = []
    for _ in range(o.steps):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    rate = flops(c, o.batch, o.seq) / median / 1e12
    of_peak = f", {100 * rate / o.peak:.2f} % of {o.peak:g}" if o.peak else ""
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}"
          f"{'' if o.eager else ', compiled'}: median step {median:.6f} s of {o.steps}, "
          f"{o.batch * o.seq / median:.1f} tokens/s, {rate:.3f} model TFLOP/s{of_peak}")


if __name__ == "__main__":
    main()
