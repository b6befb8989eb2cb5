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
from podium.config_model import LatentAttentionConfig
from podium.config_remat import BLOCK_INPUT, LINEAR, Kept, kept
from profiling.shares import Shares

FLOAT32 = 4  # bytes: parameters, moments, gradients, logits


def memory(s: Shares) -> dict[str, float]:
    """Bytes of one device under each heading."""
    params = s.params()
    found = {
        "parameters": FLOAT32 * params,
        "optimizer": 0.0 if is_state_on_host(s) else state_bytes(s),
        "gradients": FLOAT32 * params,
        "activations": s.passes * saved_per_layer(s),
        "temporaries": _temporaries(s),
    }
    if s.cfg.optim.ema_decay is not None:
        found["averaged_weights"] = FLOAT32 * s.params("opt_embed")
    return found


def is_state_on_host(s: Shares) -> bool:
    """Whether moments wait in the host's memory."""
    return s.cfg.optim.state_memory == "host"


def state_bytes(s: Shares) -> float:
    """Bytes of a device's moments."""
    return _moments(s) * FLOAT32 * s.params("opt_embed")


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
    names, numbers = kept(s.cfg.model.remat), tensor_numbers(s)
    if names is None:
        D, qkv = s.cfg.model.embed_dim, sum(numbers[n] for n in ("query", *_KV))
        wide = numbers["up"] + numbers.get("gate", 0.0)
        # also norms' outputs, rotated q and k, the activation and its product
        more = numbers["attention_out"] + _routed(s) + 2 * D * s.tokens + qkv + wide
        kept_numbers = numbers[BLOCK_INPUT] + numbers[LINEAR] + more
    else:
        device = names.device | ({BLOCK_INPUT} - names.host)
        kept_numbers = _sum(names, device, numbers)
    return compute_bytes(s) * kept_numbers


_KV = ("key", "value")
_OF_LINEAR = (
    "gate",
    "up",
    "out_proj",
    "mlp_out",
)  # named twice: as such, and as LINEAR


def tensor_numbers(s: Shares) -> dict[str, float]:
    """Numbers in each tensor that `model.remat` can name: one layer, one micro-batch,
    one device. Experts are taken to be chosen evenly."""
    model, a = s.cfg.model, s.cfg.model.attention
    heads, kv_heads = a.num_heads / s.parts("heads"), a.num_kv_heads
    kv = kv_heads * a.head_dim / s.parts("kv_heads") * s.tokens
    residual, up = model.embed_dim * s.residual_tokens, s.mlp_width * s.tokens
    found: dict[str, float] = dict.fromkeys(
        (BLOCK_INPUT, "out_proj", "block_middle"), residual
    )
    # Without a norm behind it the backward pass has no use for the MLP's result.
    found["mlp_out"] = residual if model.norm_placement == "pre_and_post" else 0.0
    found |= {"query": heads * a.head_dim * s.tokens, "key": kv, "value": kv}
    linear = sum(found[n] for n in ("query", *_KV))
    if isinstance(a, LatentAttentionConfig):
        found |= {f"{name}_heads": found[name] for name in ("query", *_KV)}
        found["query"] = (a.q_lora_rank or 0) * s.tokens
        found["key"] = a.qk_rope_head_dim * s.tokens
        found["value"] = a.kv_lora_rank * s.tokens
        linear += sum(found[n] for n in ("query", *_KV))
    # Softmax sums are float32, two numbers of the compute type for each head and token.
    found["attention_out"] = heads * (a.value_dim + 2) * s.tokens
    found |= {"up": up} | ({"gate": up} if model.mlp.kind != "gelu" else {})
    found[LINEAR] = linear + sum(found.get(n, 0.0) for n in _OF_LINEAR)
    if s.moe is not None:
        wide = s.sent * s.moe.dim / s.parts("mlp")
        found |= {"expert_gate": wide, "expert_up": wide}
        found["expert_input"] = s.sent * model.embed_dim
    return found


def _sum(names: Kept, some: frozenset[str], numbers: dict[str, float]) -> float:
    """Numbers in `some` of the kept tensors; what is named twice counts once."""
    total = sum(numbers.get(name, 0.0) for name in some)
    if LINEAR in some:
        total -= sum(numbers.get(n, 0.0) for n in _OF_LINEAR if n in names)
    return total


def _routed(s: Shares) -> float:
    """Numbers in the experts' arrays: sorted copies, gate, up, product, result."""
    if s.moe is None:
        return 0.0
    F, D = s.moe.dim / s.parts("mlp"), s.cfg.model.embed_dim
    masked = 3 if s.are_experts_apart else 0
    return s.sent * (3 * F + (2 + masked) * D)


def _temporaries(s: Shares) -> float:
    size, cfg = compute_bytes(s), s.cfg
    D, params = cfg.model.embed_dim, s.params()
    gathered = s.dense_layer_params + s.expert_layer_params
    is_gathered = s.parts("embed") > 1
    layer = size * gathered * (2 if is_gathered else 1)
    layer += size * (_backward_set(s) + _routed(s))
    chunk = min(cfg.loss.chunk_tokens, s.head_tokens)
    logits = 2 * FLOAT32 * chunk * s.table_params / D
    # The head gathered, its gradient, and that of every hidden state.
    head = logits + 2 * size * s.table_params + size * D * s.head_tokens
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
    """Bytes of a device's activations and moments that wait in its host's memory."""
    state = state_bytes(s) if is_state_on_host(s) else 0.0
    return state + host_activations(s)


def host_activations(s: Shares) -> float:
    """Bytes of a micro-batch's activations that wait there."""
    names = kept(s.cfg.model.remat)
    if names is None:
        return 0.0
    per_layer = compute_bytes(s) * _sum(names, names.host, tensor_numbers(s))
    return s.passes * per_layer
