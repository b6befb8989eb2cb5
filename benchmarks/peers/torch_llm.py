# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The peer of gpu.py: GPT-2 and Llama in PyTorch, compiled; called with a JSON spec.

bfloat16 by autocast over float32 weights, fused AdamW or Adafactor, flash attention by
scaled_dot_product_attention; a block at a time recomputed where the spec says so.
"""

import json
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
STEPS_PER_WINDOW = SPEC.get("steps", 5)


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


class Recomputed(nn.Module):
    """A block whose backward pass starts from its input."""

    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x, cos, sin):
        return checkpoint(self.block, x, cos, sin, use_reentrant=False)


class Model(nn.Module):
    """Tokens and targets to the mean loss."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.positions = nn.Parameter(torch.zeros(T, D)) if IS_GPT2 else None
        block = Recomputed if SPEC["peer_recomputes"] else Block
        self.blocks = nn.ModuleList(block() for _ in range(L))
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
            x = block(x, self.cos, self.sin)
        return self.loss(x, targets)

    def loss(self, x, targets):
        logits = self.head(self.norm(x))
        return fn.cross_entropy(logits.view(-1, V).float(), targets.view(-1))

    def compile_parts(self):
        """A block at a time, as torchtitan does: 32 blocks at once take minutes."""
        for block in self.blocks:
            block.compile()
        self.loss = torch.compile(self.loss)


def main():
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    with torch.device(DEVICE):
        model = Model()
    is_adamw = SPEC["optimizer"] == "adamw"
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
        if is_adamw
        # One tensor after the other: all at once take another copy of the gradients.
        else torch.optim.Adafactor(model.parameters(), lr=3e-4, foreach=False)
    )
    forward = model
    if "--eager" not in sys.argv:
        if SPEC["peer_compiles"] == "block":
            model.compile_parts()
        else:
            forward = torch.compile(model)
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

    start = time.perf_counter()
    _, first_loss = window()
    compile_secs = time.perf_counter() - start
    timed = [window() for _ in range(SPEC["windows"])]
    gib = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    answer = {
        "secs": [s for s, _ in timed],
        "loss": first_loss,
        "compile_secs": compile_secs,
        "peak_gib": gib,
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "version": f"torch {torch.__version__}",
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
