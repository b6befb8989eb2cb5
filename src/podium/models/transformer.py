# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder-only transformer: Embed, Block, Transformer. Read this first.

tokens -> Embed -> num_layers x Block -> norm -> hidden -> logits

Blocks of the same shape are stacked: their parameters carry a leading "layers" axis
and `jax.lax.scan` runs them, so compile time does not grow with depth. Where local
and global layers alternate, the repeating unit is a `BlockGroup`, one block per entry
of the pattern, so that windows and RoPE bases stay static. A depth that the pattern
does not divide ends in a second, shorter stack, `tail`; first layers that have a dense
MLP before the experts of the others are a stack in front, `prefix`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from podium.config_model import LatentAttentionConfig, ModelConfig, MoeConfig
from podium.config_positions import LearnedPositionConfig, RopeConfig
from podium.config_remat import BLOCK_INPUT
from podium.errors import ConfigError
from podium.models.attention import Attention, LayerCache, LayerKind, Rows
from podium.models.attention_ring import ring_order
from podium.models.layer_stack import (
    apart,
    flat,
    layer_stacks,
    remat_policy,
    run_layers,
    stack_axes,
    stack_config,
    stacked,
    with_remat,
)
from podium.models.layers import (
    Embed,
    GatedMlp,
    GeluMlp,
    make_norm,
    normal,
    soft_cap,
)
from podium.models.linear import linear_to_float32
from podium.models.mla import LatentAttention
from podium.models.moe import MoeMlp, Routing
from podium.models.pipeline import Flow, pipeline, schedule
from podium.models.rope import amplitude, frequencies, rotation
from podium.models.width import ratios
from podium.sharding.constrain import current_rules, param, shard


class KVCache(NamedTuple):
    """What every layer keeps of the tokens so far, for `Transformer.decode`.

    `blocks[stack][i][block]` holds, of the i-th layer of a stack, an array [B, S, ..] in
    the compute type for each of the attention config's `cached`: keys and values, or
    latents. All rows of a batch fill the same slots; `positions_BS` tells them apart.
    """

    blocks: dict[str, list[dict[str, tuple[Array, ...]]]]
    positions_BS: Array  # position of the token in a slot; -1: empty or padding
    length: Array  # slots filled so far


PADDING = -1e30  # logit of a row that pads the vocabulary: no weight, and no NaN

# Between the parts of a block rows may be cut finer than inside them.
RESIDUAL = ("batch", "act_length", "act_embed")
INSIDE = ("batch", "length", "act_embed")
CACHE = ("batch", None)  # rows, slots


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    With post-norms (Gemma 2, 3) each branch's output is normalised before it is added.
    """

    def __init__(self, cfg: ModelConfig, kind: LayerKind, *, rngs: nnx.Rngs):
        has_post_norms = cfg.norm_placement == "pre_and_post"
        self.attention_norm = make_norm(cfg, rngs=rngs)
        self.attention = make_attention(cfg, kind, rngs=rngs)
        self.mlp_norm = make_norm(cfg, rngs=rngs)
        self.mlp = make_mlp(cfg, rngs=rngs)
        self.attention_post_norm = make_norm(cfg, rngs=rngs) if has_post_norms else None
        self.mlp_post_norm = make_norm(cfg, rngs=rngs) if has_post_norms else None

    def __call__(
        self, x_BTD: Float[Array, "B T D"], rows: Rows
    ) -> tuple[Float[Array, "B T D"], Routing | None]:
        """Training and scoring: whole rows at once. Also how experts were chosen."""
        x_BTD = checkpoint_name(x_BTD, BLOCK_INPUT)
        with jax.named_scope("attention"):
            inside_BTD = shard(self.attention_norm(x_BTD), *INSIDE)
            x_BTD = self._add_attention(x_BTD, self.attention(inside_BTD, rows))
        with jax.named_scope("mlp"):
            return self._add_mlp(x_BTD, rows)

    def decode(
        self, x_BTD: Array, rows: Rows, cache: LayerCache
    ) -> tuple[Array, tuple[Array, ...]]:
        """New tokens against the cache; also returns that with them in it."""
        branch_BTD, kept = self.attention.decode(
            self.attention_norm(x_BTD), rows, cache
        )
        x_BTD = self._add_attention(x_BTD, branch_BTD)
        x_BTD, _ = self._add_mlp(x_BTD, rows, is_decode=True)
        return x_BTD, kept

    def _add_attention(self, x_BTD: Array, branch_BTD: Array) -> Array:
        branch_BTD = checkpoint_name(shard(branch_BTD, *RESIDUAL), "out_proj")
        if self.attention_post_norm is not None:
            branch_BTD = self.attention_post_norm(branch_BTD)
        return checkpoint_name(shard(x_BTD + branch_BTD, *RESIDUAL), "block_middle")

    def _add_mlp(
        self, x_BTD: Array, rows: Rows, *, is_decode: bool = False
    ) -> tuple[Array, Routing | None]:
        inside_BTD, routing = shard(self.mlp_norm(x_BTD), *INSIDE), None
        if isinstance(self.mlp, MoeMlp):
            branch_BTD, routing = self.mlp(
                inside_BTD, rows.segment_ids_BT, is_decode=is_decode
            )
        else:
            branch_BTD = self.mlp(inside_BTD)
        branch_BTD = checkpoint_name(shard(branch_BTD, *RESIDUAL), "mlp_out")
        if self.mlp_post_norm is not None:
            branch_BTD = self.mlp_post_norm(branch_BTD)
        return shard(x_BTD + branch_BTD, *RESIDUAL), routing


def make_attention(
    cfg: ModelConfig, kind: LayerKind, *, rngs: nnx.Rngs
) -> Attention | LatentAttention:
    """The attention that `cfg.attention.kind` names."""
    if isinstance(cfg.attention, LatentAttentionConfig):
        return LatentAttention(cfg, cfg.attention, kind, rngs=rngs)
    return Attention(cfg, cfg.attention, kind, rngs=rngs)


def make_mlp(cfg: ModelConfig, *, rngs: nnx.Rngs) -> GatedMlp | GeluMlp | MoeMlp:
    """The MLP that `cfg.mlp.kind` names."""
    if isinstance(cfg.mlp, MoeConfig):
        return MoeMlp(cfg, cfg.mlp, rngs=rngs)
    return (GeluMlp if cfg.mlp.kind == "gelu" else GatedMlp)(cfg, cfg.mlp, rngs=rngs)


class BlockGroup(nnx.Module):
    """One block per entry of the attention pattern: the body of the scan."""

    def __init__(
        self,
        cfg: ModelConfig,
        pattern: tuple[LayerKind, ...],
        remat: str,
        *,
        rngs: nnx.Rngs,
    ):
        self.names = tuple(f"block_{i}" for i in range(len(pattern)))
        for name, kind in zip(self.names, pattern, strict=True):
            setattr(self, name, Block(cfg, kind, rngs=rngs))
        self.remat = remat
        self.is_scanned = cfg.layer_loop == "scan"

    def __call__(
        self, x_BTD: Float[Array, "B T D"], rows: Rows
    ) -> tuple[Float[Array, "B T D"], dict[str, Routing | None]]:
        """The blocks in order, each rematerialised by the config's policy."""
        routings = {}
        for name in self.names:
            block: Block = getattr(self, name)
            # Inside a scan the loop itself keeps the compiler from undoing remat.
            run = with_remat(block, self.remat, prevent_cse=not self.is_scanned)
            x_BTD, routings[name] = run(x_BTD, rows)
        return x_BTD, routings


def in_order(x_BT: Array, order: np.ndarray | None) -> Array:
    """Each row's tokens in `Transformer.order`."""
    return x_BT if order is None else x_BT[:, order]


class Transformer(nnx.Module):
    """A decoder-only transformer made of the parts that a ModelConfig names."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.embed = Embed(cfg, rngs=rngs)
        for name, (pattern, _) in layer_stacks(cfg).items():

            def make(rngs: nnx.Rngs, name=name, pattern=pattern) -> BlockGroup:
                mine = stack_config(cfg, name)
                return BlockGroup(mine, pattern, cfg.remat, rngs=rngs)

            setattr(self, name, stacked(make, stack_axes(cfg, name), rngs))
        self.final_norm = make_norm(cfg, rngs=rngs)
        shape, mup = (cfg.embed_dim, cfg.vocab_rows), cfg.width_transfer
        is_zero = mup is not None and "head" in mup.zero_init
        init = nnx.initializers.zeros_init() if is_zero else normal(cfg)
        self.head = (
            None
            if cfg.tie_embeddings
            else param(rngs, shape, axes=("embed", "vocab"), init=init)
        )

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None,
    ) -> Float[Array, "B T D"]:
        """Hidden states after the final norm, [B, T, D] in the compute type.

        All int32 [B, T] as in `Batch`: positions count within a segment, tokens see
        their own segment only; None says that every row is one document, which some
        attention kernels do faster. Raises ConfigError if T is beyond learned
        positions.
        """
        order = self.order(tokens_BT.shape[1])
        if segment_ids_BT is not None:
            segment_ids_BT = in_order(segment_ids_BT, order)
        hidden_BTD, _ = self.ordered(
            in_order(tokens_BT, order), in_order(positions_BT, order), segment_ids_BT
        )
        return hidden_BTD if order is None else hidden_BTD[:, np.argsort(order)]

    def order(self, num_tokens: int) -> np.ndarray | None:
        """Which token stands in each slot of a row, [T]; None: its own.

        Devices that share rows in a ring hold them in another order.
        """
        rules = current_rules()
        devices = 1 if rules is None else rules.num_shards("length")
        if devices == 1 or self.cfg.attention.context != "ring":
            return None
        return ring_order(num_tokens, devices)

    def ordered(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T D"], dict[str, dict[str, Routing | None]]]:
        """As a call, of rows whose tokens stand in `order` already; the result too.

        Also how experts were chosen, by stack and block, a leading axis for the layers.
        """
        routings = {}
        self._check_length(tokens_BT.shape[1])
        x_BTD = self._embed(tokens_BT, positions_BT)
        flow = Flow(x_BTD, positions_BT, segment_ids_BT)
        for name in layer_stacks(self.cfg):
            x_BTD, routings[name] = self._run_stack(name, flow)
            flow = flow._replace(x_BTD=x_BTD)
        return self.final_norm(x_BTD), routings

    def _run_stack(self, name: str, flow: Flow) -> tuple[Array, dict]:
        """The layers of one stack, and how experts were chosen in each."""
        graphdef, params = nnx.split(getattr(self, name))
        layers, axes = nnx.to_pure_dict(params), stack_axes(self.cfg, name)

        def run(layers: Any, part: Flow) -> tuple[Array, dict]:
            num = len(jax.tree.leaves(layers)[0])
            rows = self._rows(part.positions_BT, part.segment_ids_BT)
            is_scanned = self.cfg.layer_loop == "scan"
            # profiling.trace finds the layers by this name.
            with jax.named_scope(name):
                return run_layers(
                    graphdef, layers, num, part.x_BTD, rows, is_scanned=is_scanned
                )

        plan = schedule(self.cfg.pipeline, current_rules(), len(flow.x_BTD))
        if plan is not None and "layers" in axes:
            # Of several runs of layers, those of the time are chosen anew for the
            # backward pass; blocks then keep what they do without a pipeline.
            keep = remat_policy(self.cfg.remat, BLOCK_INPUT)
            return pipeline(run, layers, flow, plan, keep)
        x_BTD, routing = run(flat(layers, axes), flow)
        return x_BTD, jax.tree.map(
            lambda y: y.reshape(*axes.values(), *y.shape[1:]), routing
        )

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Float32 [..., V] of hidden states [..., D], soft-capped; V: padded rows too."""
        if self.head is None:
            logits = linear_to_float32(hidden, self.embed.table, 1)
        else:
            logits = linear_to_float32(hidden, self.head, 0)
        if (wider := ratios(self.cfg).embed) != 1.0:
            logits = logits / wider
        logits = soft_cap(logits, self.cfg.final_soft_cap)
        if self.cfg.vocab_rows == self.cfg.vocab_size:
            return logits
        row = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        return jnp.where(row < self.cfg.vocab_size, logits, PADDING)

    def init_cache(self, batch: int, max_tokens: int) -> KVCache:
        """An empty cache with room for `max_tokens` tokens a row, padding included."""
        dtype = jnp.dtype(self.cfg.dtype)

        def empty() -> tuple[Array, ...]:
            return tuple(
                shard(jnp.zeros((batch, max_tokens, *dims), dtype), *CACHE, *axes)
                for dims, axes in self.cfg.attention.cached
            )

        blocks = {
            name: [
                {f"block_{i}": empty() for i in range(len(pattern))}
                for _ in range(repeats)
            ]
            for name, (pattern, repeats) in layer_stacks(self.cfg).items()
        }
        positions_BS = shard(jnp.full((batch, max_tokens), -1, jnp.int32), *CACHE)
        return KVCache(blocks, positions_BS, jnp.zeros((), jnp.int32))

    def decode(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        cache: KVCache,
        *,
        is_first: bool = False,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Hidden states [B, T, D] of T new tokens a row, and the cache with them in it.

        T is the prompt's length first (prefill), then 1. Position -1 marks padding,
        on either side of a prompt: nobody sees it and its output means nothing. The
        caller sees to it that cache.length + T stays within the cache, and positions
        within learned ones. `is_first` says that the cache is empty and padding, if any,
        in front: then the fastest attention of the platform is used.

        Layers are not looped over: a loop would copy weights and cache of every layer
        out of their stacks, which is most of a step's time.
        """
        positions_BS = jax.lax.dynamic_update_slice(
            cache.positions_BS, positions_BT, (0, cache.length)
        )
        segment_ids_BT = (positions_BT >= 0).astype(jnp.int32) if is_first else None
        rows = self._rows(positions_BT, segment_ids_BT)
        x_BTD = self._embed(tokens_BT, positions_BT)
        blocks = {}
        for name in layer_stacks(self.cfg):
            graphdef, params = nnx.split(getattr(self, name))
            layers = apart(nnx.to_pure_dict(params), stack_axes(self.cfg, name))
            blocks[name] = []
            for layer, kept in zip(layers, cache.blocks[name], strict=True):
                group, new = nnx.merge(graphdef, layer), {}
                for block, old in kept.items():
                    at = LayerCache(old, positions_BS, cache.length)
                    x_BTD, new[block] = getattr(group, block).decode(x_BTD, rows, at)
                blocks[name].append(new)
        length = cache.length + tokens_BT.shape[1]
        return self.final_norm(x_BTD), KVCache(blocks, positions_BS, length)

    def _embed(self, tokens_BT: Array, positions_BT: Array) -> Array:
        with jax.named_scope("embed"):
            return shard(self.embed(tokens_BT, positions_BT), *RESIDUAL)

    def _rows(self, positions_BT: Array, segment_ids_BT: Array | None) -> Rows:
        rope, dim = self.cfg.position, self.cfg.attention.rope_dim
        rotations = {}
        if isinstance(rope, RopeConfig):
            for kind in dict.fromkeys(self.cfg.attention.pattern):
                is_local = kind == "local"
                freq = frequencies(rope, dim, is_local=is_local)
                factor = amplitude(rope, is_local=is_local)
                rotations[kind] = rotation(freq, positions_BT, factor)
        return Rows(positions_BT, segment_ids_BT, rotations)

    def _check_length(self, num_tokens: int) -> None:
        position = self.cfg.position
        if (
            isinstance(position, LearnedPositionConfig)
            and num_tokens > position.max_tokens
        ):
            raise ConfigError(
                f"{num_tokens} tokens are beyond the learned positions; this model has "
                f"model.position.max_tokens={position.max_tokens}"
            )
