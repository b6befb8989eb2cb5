# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What fills a device's memory, in closed form; the headings are those of `hbm.py`.

State follows from the layout. Activations are what the remat policy keeps of every
layer. Temporaries are what is alive beside them while one layer, or the output head, is
differentiated: its gathered weights twice (one layer computes, the next arrives or the
gradient of the last one leaves), what is recomputed. Checked against compiled steps by
`benchmarks/estimate.py`.
"""

from podium.config import AdafactorConfig, AdamWConfig
from profiling.shares import Shares

FLOAT32 = 4  # bytes: parameters, moments, gradients, logits


def memory(s: Shares) -> dict[str, float]:
    """Bytes of one device under each heading."""
    params = s.params()
    found = {
        "parameters": FLOAT32 * params,
        "optimizer": _moments(s) * FLOAT32 * s.params("opt_embed"),
        "gradients": FLOAT32 * params,
        "activations": s.cfg.model.num_layers * saved_per_layer(s),
        "temporaries": _temporaries(s),
    }
    if s.cfg.optim.ema_decay is not None:
        found["averaged_weights"] = FLOAT32 * s.params("opt_embed")
    return found


def _moments(s: Shares) -> int:
    """Arrays of a parameter's size that the optimizer keeps."""
    optimizer = s.cfg.optim.optimizer
    if isinstance(optimizer, AdafactorConfig):
        return 0  # row and column means
    return 2 if isinstance(optimizer, AdamWConfig) else 1


def compute_bytes(s: Shares) -> int:
    """Of a number in the compute type."""
    return 2 if s.cfg.model.dtype == "bfloat16" else 4


def saved_per_layer(s: Shares) -> float:
    """Bytes that a layer of a micro-batch leaves in HBM for the backward pass."""
    policy, a, D = s.cfg.model.remat, s.cfg.model.attention, s.cfg.model.embed_dim
    heads = a.head_dim * a.num_heads / s.parts("heads")
    qkv = heads + 2 * a.head_dim * a.num_kv_heads / s.parts("kv_heads")
    block_input = D * s.residual_tokens
    # Softmax sums are float32, two numbers of the compute type for each head and token.
    attended = (heads + 2 * heads / a.head_dim) * s.tokens
    is_gated = s.cfg.model.mlp.kind != "gelu"
    wide = s.mlp_width * (2 if is_gated else 1)
    linear = (qkv + wide) * s.tokens + 2 * D * s.residual_tokens
    kept = {
        "full": 0.0,
        "qkv_on_host": 0.0,
        "qkv": qkv * s.tokens,
        "attention_out": attended,
        "dots": linear,
        # also norms' outputs, rotated q and k, the activation and its product
        "none": linear
        + attended
        + _routed(s)
        + (2 * D + qkv + (2 if is_gated else 1) * s.mlp_width) * s.tokens,
    }[policy]
    return compute_bytes(s) * (block_input + kept)


def _routed(s: Shares) -> float:
    """Numbers in the experts' arrays: sorted copies, gate, up, product, result."""
    if s.moe is None:
        return 0.0
    F, D = s.moe.dim / s.parts("mlp"), s.cfg.model.embed_dim
    # Devices of an expert group gather each other's tokens, see models/moe_dropless.py.
    sent = s.tokens * s.moe.experts_per_token * s.parts("experts")
    return sent * (3 * F + 2 * D)


def _temporaries(s: Shares) -> float:
    size, cfg = compute_bytes(s), s.cfg
    D, params = cfg.model.embed_dim, s.params()
    gathered = s.dense_layer_params + s.expert_layer_params
    is_gathered = s.parts("embed") > 1
    layer = size * gathered * (2 if is_gathered else 1)
    layer += size * (_backward_set(s) + _routed(s))
    chunk = min(cfg.loss.chunk_tokens, s.tokens)
    logits = 2 * FLOAT32 * chunk * s.table_params / D
    # The head gathered, its gradient, and that of every hidden state.
    head = logits + 2 * size * s.table_params + size * D * s.tokens
    whole = size * params  # all weights in the compute type, cast outside of the loop
    if cfg.grad_accum_steps > 1:
        whole += FLOAT32 * params  # the sum, and the micro-batch's own gradients
    return whole + max(layer, head)


def _backward_set(s: Shares) -> float:
    """Numbers alive at once while one layer is differentiated."""
    a, D = s.cfg.model.attention, s.cfg.model.embed_dim
    heads = a.head_dim * a.num_heads / s.parts("heads")
    mlp = s.tokens * (2 * D + 3 * s.mlp_width)
    attention = s.tokens * (2 * D + 5 * heads)
    return max(mlp, attention)


def host_bytes(s: Shares) -> float:
    """Bytes of a device's activations that wait in its host's memory."""
    if s.cfg.model.remat != "qkv_on_host":
        return 0.0
    a = s.cfg.model.attention
    heads = a.num_heads / s.parts("heads") + 2 * a.num_kv_heads / s.parts("kv_heads")
    per_layer = compute_bytes(s) * heads * a.head_dim * s.tokens
    return s.cfg.model.num_layers * per_layer
