# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The step in PyTorch, eager or compiled; bfloat16 by autocast over float32 weights.

Environment (Python 3.11; plain pip):
  python3.11 -m venv $ENVS/torch && $ENVS/torch/bin/pip install torch==2.13.0 numpy
  $ENVS/torch/bin/python benchmarks/peers/torch_step.py --steps=10
"""

import contextlib
import time

_start = time.perf_counter()
import torch
import torch.nn.functional as fn
from torch import nn

_import_secs = time.perf_counter() - _start
import serve
from serve import CLIP_NORM, INIT_STD, LEARNING_RATE, B, D, F, H, L, N, T, V


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, F), nn.Linear(F, D)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, N, H).permute(2, 0, 3, 1, 4)
        y = fn.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(fn.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Tokens to logits; the head is the embedding transposed."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.positions = nn.Parameter(torch.empty(T, D))
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm = nn.LayerNorm(D)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=INIT_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, targets):
        x = self.embed(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        logits = fn.linear(self.norm(x), self.embed.weight)
        return fn.cross_entropy(logits.float().view(-1, V), targets.view(-1))


def main():
    args = serve.arguments(["eager", "compile"], __doc__)
    torch.manual_seed(0)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    forward = torch.compile(model) if args.variant == "compile" else model

    def autocast():
        if args.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)

    def step(tokens, targets):
        with autocast():
            loss = forward(
                torch.from_numpy(tokens).long(), torch.from_numpy(targets).long()
            )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    serve.serve(
        args,
        step,
        {"torch": torch.__version__},
        import_secs=_import_secs,
        num_params=sum(p.numel() for p in model.parameters()),
    )


if __name__ == "__main__":
    main()
