# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Why a mesh cannot run a config: which number does not divide by which axis.

The checks of `trainer/setup.py` and `sharding/rules.py` in closed form, so that
thousands of meshes are sorted out without building one.
"""

import math

from podium.config_model import MoeConfig
from podium.errors import ConfigError
from profiling.shares import Shares


def indivisible(s: Shares) -> str | None:
    """The first number that does not divide, in words; None if everything does."""
    cfg, model, a = s.cfg, s.cfg.model, s.cfg.model.attention
    rows, T = cfg.global_batch_seqs, cfg.data.seq_len
    if rows % s.parts("batch"):
        return _words("global_batch_seqs", rows, s, "batch")
    if rows // cfg.grad_accum_steps % s.parts("batch"):
        return "rows of a micro-batch by " + " * ".join(s.axes("batch"))
    C = s.parts("length")
    is_ring = C > 1 and a.context == "ring"
    if T % math.lcm(s.parts("act_length"), 2 * C if is_ring else 1):
        return _words("data.seq_len", T, s, "act_length")
    if C > 1 and not is_ring and a.num_heads % (C * s.parts("heads")):
        return f"model.attention.num_heads ({a.num_heads}) by context * tensor"
    dims = [
        ("model.embed_dim", model.embed_dim, "embed"),
        ("model.embed_dim", model.embed_dim, "opt_embed"),
        ("model.attention.num_heads", a.num_heads, "heads"),
        ("model.attention.num_kv_heads", a.num_kv_heads, "kv_heads"),
        ("model.attention.head_dim", a.head_dim, "head_dim"),
        ("model.mlp.dim", model.mlp.dim, "mlp"),
        ("the vocabulary", model.vocab_rows, "vocab"),
    ]
    if isinstance(model.mlp, MoeConfig):
        dims += [
            ("model.mlp.num_experts", model.mlp.num_experts, "experts"),
            ("model.embed_dim", model.embed_dim, "expert_embed"),
        ]
    for name, number, logical in dims:
        if number % s.parts(logical):
            return _words(name, number, s, logical)
    return _stages(s)


def _stages(s: Shares) -> str | None:
    from podium.models.layer_stack import layer_stacks  # imports jax

    stages, model = s.parts("layers"), s.cfg.model
    if stages == 1:
        return None
    pattern, count = layer_stacks(model).get("stack", ((), 0))
    runs = stages * model.pipeline.repeats
    if not count or count % runs:
        return f"{count} repeats of {len(pattern)} layers by stage * repeats ({runs})"
    try:
        _ = s.schedule
    except ConfigError:
        return "rows of a micro-batch by stage * " + " * ".join(s.axes("batch"))
    return None


def _words(name: str, number: int, s: Shares, logical: str) -> str:
    return f"{name} ({number}) by {' * '.join(s.axes(logical))}"
