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

from jax import Array
from jaxtyping import Float, Int

from podium.config_model import ModelConfig
from podium.errors import ConfigError
from podium.models.attention_shards import per_shard
from podium.sharding.constrain import current_platform, current_rules

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of attention needs; everything is known while tracing."""

    platform: str  # "cpu", "gpu" or "tpu"
    dtype: str
    head_dim: int  # of queries and keys
    value_dim: int  # the same, but for latent attention
    num_tokens: int
    has_segments: bool = False
    has_window: bool = False
    has_soft_cap: bool = False
    is_decode: bool = False  # few new queries against a cache


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

    def load(self) -> Callable[..., Array]:
        """The function (q, k, v, segment_ids, window=, cap=) -> out."""
        return importlib.import_module(self.module).attention

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
        }
        return next((feature for feature, lacking in lacks.items() if lacking), None)


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
    call = Call(
        platform=current_platform(),
        dtype=str(q_BTNH.dtype),
        head_dim=q_BTNH.shape[-1],
        value_dim=v_BTKU.shape[-1],
        num_tokens=q_BTNH.shape[1],
        has_segments=segment_ids_BT is not None,
        has_window=window is not None,
        has_soft_cap=cap is not None,
    )
    run = functools.partial(choose(call, implementation).load(), window=window, cap=cap)
    rules = current_rules()
    if rules is None or not rules.mesh_axes("length"):
        return run(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
    if context == "ring":
        from podium.models import attention_ring

        run = functools.partial(attention_ring.attention, window=window, cap=cap)
        return run(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
    if run.func.__module__.endswith("attention_xla"):  # kernels split themselves
        return per_shard(run, q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
    return run(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)


def check_implementation(model: ModelConfig, num_tokens: int, platform: str) -> None:
    """Raises ConfigError, before anything is compiled, where the implementation that a
    model names cannot train it there on rows of that many tokens."""
    if model.attention.implementation == "auto":
        return
    for kind in model.attention.pattern:
        call = Call(
            platform=platform,
            dtype=model.dtype,
            head_dim=model.attention.head_dim,
            value_dim=model.attention.value_dim,
            num_tokens=num_tokens,
            has_segments=True,
            has_window=kind == "local",
            has_soft_cap=model.attention.soft_cap is not None,
        )
        choose(call, model.attention.implementation)


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
