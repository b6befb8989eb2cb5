# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which attention runs: every implementation declares what it supports, as data.

`auto` takes the fastest implementation that supports the call; if a faster one for
this platform had to be passed over, a warning says once which feature it lacks. An
implementation asked for by name is used or refused with a ConfigError, never replaced.
"""

import dataclasses
import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

from jax import Array
from jaxtyping import Float, Int

from podium.config_model import ModelConfig
from podium.errors import ConfigError
from podium.models.attention_shards import per_shard
from podium.sharding.constrain import current_platform, current_rules
from podium.sharding.rules import ShardingRules

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of attention needs; everything is known while tracing."""

    platform: str  # "cpu", "gpu" or "tpu"
    dtype: str
    head_dim: int  # of queries and keys
    value_dim: int  # the same, but for latent attention
    num_tokens: int
    ring_devices: int = 1  # that share a row in a ring
    has_segments: bool = False
    has_window: bool = False
    has_soft_cap: bool = False
    is_decode: bool = False  # few new queries against a cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ring:
    """What an implementation supports in a ring, and the module whose `Blocks` it is."""

    module: str
    piece_multiple: int = 1  # tokens; a device holds two pieces of a row
    window: bool = False

    def missing(self, call: Call) -> str | None:
        """As `Implementation.missing`."""
        pieces = 2 * call.ring_devices
        tokens = call.num_tokens // pieces
        lacks = {
            f"pieces of {tokens} tokens of a row of {call.num_tokens} in a ring of "
            f"{call.ring_devices} devices (not a multiple of {self.piece_multiple}: use "
            f"rows of a multiple of {pieces * self.piece_multiple})": (
                tokens % self.piece_multiple
            ),
            "a sliding window in a ring (under context='all_to_all' it does)": (
                call.has_window and not self.window
            ),
        }
        return next((feature for feature, lacking in lacks.items() if lacking), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Implementation:
    """What one implementation supports, and the module whose `attention` it is."""

    name: str
    module: str  # imported on first use: Pallas alone takes over a second
    platforms: tuple[str, ...]
    dtypes: tuple[str, ...]
    max_head_dim: int | None = None
    head_dim_multiple: int = 1
    tokens_multiple: int = 1
    value_dim: bool = False  # may differ from head_dim
    segments: bool = False
    window: bool = False
    soft_cap: bool = False
    decode: bool = False
    ring: Ring | None = None  # rows that devices share in a ring; None: not

    def load(self, call: Call) -> Callable[..., Array]:
        """The function (q, k, v, segment_ids, window=, cap=) -> out."""
        if call.ring_devices == 1:
            return importlib.import_module(self.module).attention
        from podium.models import attention_ring

        assert self.ring, f"{self.name!r} was chosen for a ring and has none"
        make_blocks = importlib.import_module(self.ring.module).Blocks

        def attention(*args: Any, window: int | None, cap: float | None):
            blocks = make_blocks(window=window, cap=cap)
            return attention_ring.attention(*args, blocks=blocks)

        return attention

    def missing(self, call: Call) -> str | None:
        """The first thing that `call` needs and this lacks, in words; None if nothing."""
        too_wide = self.max_head_dim is not None and call.head_dim > self.max_head_dim
        lacks = {
            f"platform {call.platform!r}": call.platform not in self.platforms,
            f"dtype {call.dtype}": call.dtype not in self.dtypes,
            f"head_dim {call.head_dim} (at most {self.max_head_dim})": too_wide,
            f"head_dim {call.head_dim} (not a multiple of {self.head_dim_multiple})": (
                call.head_dim % self.head_dim_multiple
            ),
            f"rows of {call.num_tokens} tokens (not a multiple of "
            f"{self.tokens_multiple})": call.num_tokens % self.tokens_multiple,
            f"values of {call.value_dim} channels under keys of {call.head_dim}": (
                call.value_dim != call.head_dim and not self.value_dim
            ),
            "packed segments": call.has_segments and not self.segments,
            "a sliding window": call.has_window and not self.window,
            "a score soft-cap": call.has_soft_cap and not self.soft_cap,
            "decoding from a cache": call.is_decode and not self.decode,
            "rows that devices share in a ring": (
                call.ring_devices > 1 and self.ring is None
            ),
        }
        found = next((feature for feature, lacking in lacks.items() if lacking), None)
        if found is None and call.ring_devices > 1 and self.ring:
            return self.ring.missing(call)
        return found


# Fastest first.
IMPLEMENTATIONS = (
    Implementation(
        name="splash",
        module="podium.models.attention_splash",
        platforms=("tpu",),
        dtypes=("bfloat16", "float32"),
        value_dim=True,
        segments=True,
        window=True,
        soft_cap=True,
        ring=Ring(module="podium.models.attention_ring_splash", piece_multiple=128),
    ),
    Implementation(
        name="cudnn",
        module="podium.models.attention_cudnn",
        platforms=("gpu",),
        dtypes=("bfloat16", "float16"),
        max_head_dim=128,  # 256 on Hopper and later only
        head_dim_multiple=8,
        tokens_multiple=2,  # with a bias, which carries the segments
        segments=True,
        window=True,
    ),
    Implementation(
        name="xla",
        module="podium.models.attention_xla",
        platforms=("cpu", "gpu", "tpu"),
        dtypes=("bfloat16", "float16", "float32"),
        value_dim=True,
        segments=True,
        window=True,
        soft_cap=True,
        decode=True,
        ring=Ring(module="podium.models.attention_ring_xla", window=True),
    ),
)


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKU: Float[Array, "B T K U"],
    segment_ids_BT: Int[Array, "B T"] | None,
    *,
    window: int | None = None,
    cap: float | None = None,
    implementation: str = "auto",
    context: str = "ring",
) -> Float[Array, "B T N U"]:
    """Causal self-attention over rows, [B, T, N, U]; q comes scaled.

    A value head has U channels, as many as a key's H but in latent attention.

    A token sees its own segment up to itself, at most `window` tokens; None for the
    segments says that every row is one document. Where the mesh splits the rows,
    `context` says how devices share one; for a "ring" they come in its order. Raises
    ConfigError if the named implementation does not support the call.
    """
    rules = current_rules()
    devices = 1 if rules is None else rules.num_shards("length")
    call = Call(
        platform=current_platform(),
        dtype=str(q_BTNH.dtype),
        head_dim=q_BTNH.shape[-1],
        value_dim=v_BTKU.shape[-1],
        num_tokens=q_BTNH.shape[1],
        ring_devices=devices if context == "ring" else 1,
        has_segments=segment_ids_BT is not None,
        has_window=window is not None,
        has_soft_cap=cap is not None,
    )
    chosen = choose(call, implementation)
    run = functools.partial(chosen.load(call), window=window, cap=cap)
    # Kernels and rings split themselves.
    if devices > 1 and call.ring_devices == 1 and chosen.name == "xla":
        return per_shard(run, q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
    return run(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)


def check_implementation(model: ModelConfig, num_tokens: int, rules: ShardingRules):
    """Raises ConfigError, before anything is compiled, where the implementation that a
    model names cannot train it on that mesh on rows of that many tokens."""
    attention = model.attention
    if attention.implementation == "auto":
        return
    in_ring = attention.context == "ring"
    for kind in attention.pattern:
        call = Call(
            platform=rules.mesh.devices.flat[0].platform,
            dtype=model.dtype,
            head_dim=attention.head_dim,
            value_dim=attention.value_dim,
            num_tokens=num_tokens,
            ring_devices=rules.num_shards("length") if in_ring else 1,
            has_segments=True,
            has_window=kind == "local",
            has_soft_cap=attention.soft_cap is not None,
        )
        choose(call, attention.implementation)


@functools.cache
def choose(call: Call, name: str) -> Implementation:
    """The implementation for a call; see the module's head. Raises ConfigError."""
    if name != "auto":
        chosen = next(i for i in IMPLEMENTATIONS if i.name == name)
        if missing := chosen.missing(call):
            able = [i.name for i in IMPLEMENTATIONS if not i.missing(call)]
            raise ConfigError(
                f"model.attention.implementation={name!r} does not support {missing}. "
                f"Use 'auto' or {' or '.join(map(repr, able))}."
            )
        return chosen
    for implementation in IMPLEMENTATIONS:
        missing = implementation.missing(call)
        if missing is None:
            return implementation
        if call.platform in implementation.platforms and not call.is_decode:
            log.warning(
                "attention: %r, the fastest on %s, does not support %s; "
                "falling back to the next, which is slower",
                implementation.name,
                call.platform,
                missing,
            )
    raise ConfigError(f"no attention implementation supports {call}")
