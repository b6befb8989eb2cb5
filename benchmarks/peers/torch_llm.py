# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The peer of gpu.py: GPT-2 and Llama in PyTorch, compiled; called with a JSON spec.

bfloat16 by autocast over float32 weights, fused AdamW or Adafactor, flash attention by
scaled_dot_product_attention, recomputation a block at a time where the spec says so.
"""

import json
import statistics
import sys
import time

import torch
import torch.nn.functional as fn
from torch import nn
from torch.utils.checkpoint import checkpoint

SPEC = json.loads(sys.argv[1])
L, D, N, K, H, F, V, T, B = (SPEC[k] for k in "LDNKHFVTB")
IS_GPT2 = SPEC["kind"] == "gpt2"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS_PER_WINDOW = 5


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Block(nn.Module):
    """Pre-norm attention and MLP, of GPT-2 or of Llama."""

    def __init__(self):
        super().__init__()
        norm = nn.LayerNorm if IS_GPT2 else nn.RMSNorm
        self.norm1, self.norm2 = norm(D), norm(D)
        self.qkv = nn.Linear(D, (N + 2 * K) * H, bias=IS_GPT2)
        self.out = nn.Linear(N * H, D, bias=IS_GPT2)
        self.up = nn.Linear(D, F if IS_GPT2 else 2 * F, bias=IS_GPT2)
        self.down = nn.Linear(F, D, bias=IS_GPT2)

    def forward(self, x, cos, sin):
        qkv = self.qkv(self.norm1(x)).view(B, T, N + 2 * K, H).transpose(1, 2)
        q, k, v = qkv.split((N, K, K), 1)
        if not IS_GPT2:
            q, k = rope(q, cos, sin), rope(k, cos, sin)
        y = fn.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=N != K)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, N * H))
        h = self.up(self.norm2(x))
        if IS_GPT2:
            return x + self.down(fn.gelu(h, approximate="tanh"))
        gate, up = h.chunk(2, -1)
        return x + self.down(fn.silu(gate) * up)


class Model(nn.Module):
    """Tokens and targets to the mean loss."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.positions = nn.Parameter(torch.zeros(T, D)) if IS_GPT2 else None
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm = nn.LayerNorm(D) if IS_GPT2 else nn.RMSNorm(D)
        self.head = nn.Linear(D, V, bias=False)
        if SPEC["tied"]:
            self.head.weight = self.embed.weight
        angles = torch.outer(torch.arange(T), 500_000.0 ** (-torch.arange(0, H, 2) / H))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions
        for block in self.blocks:
            if SPEC["remat"] == "none":
                x = block(x, self.cos, self.sin)
            else:
                x = checkpoint(block, x, self.cos, self.sin, use_reentrant=False)
        logits = self.head(self.norm(x))
        return fn.cross_entropy(logits.view(-1, V).float(), targets.view(-1))


def main():
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    with torch.device(DEVICE):
        model = Model()
    is_adamw = SPEC["optimizer"] == "adamw"
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
        if is_adamw
        else torch.optim.Adafactor(model.parameters(), lr=3e-4)
    )
    forward = model if "--eager" in sys.argv else torch.compile(model)
    rows = torch.randint(V, (B, T + 1), device=DEVICE)
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def window():
        start = time.perf_counter()
        for _ in range(STEPS_PER_WINDOW):
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = forward(tokens, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return (time.perf_counter() - start) / STEPS_PER_WINDOW, value

    compile_secs = window()[0] * STEPS_PER_WINDOW
    timed = [window() for _ in range(SPEC["windows"])]
    gib = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    answer = {
        "secs": [s for s, _ in timed],
        "median_secs": statistics.median(s for s, _ in timed),
        "loss": timed[-1][1],
        "compile_secs": compile_secs,
        "peak_gib": gib,
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "version": f"torch {torch.__version__}",
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
