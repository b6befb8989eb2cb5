# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a step takes, in closed form: operations, bytes over HBM, bytes over links.

step = micro-batches * (layers + head) + optimizer
layer = compute + synchronous collectives + what of the others compute does not hide

After "How to Scale Your Model", jax-ml.github.io/scaling-book/training: which
collectives each axis needs. Two figures a chip are fitted to what the TPU compiler
itself estimates (`EFFICIENCY`, see `benchmarks/estimate.py`): this is a quick guess of
what `roofline.py` reads from a compiled step, and shares its conventions.
"""

import dataclasses
import functools
import math
from functools import cached_property
from typing import NamedTuple

from podium.aot.chips import Slice
from podium.config_model import CapacityConfig
from podium.config_remat import LINEAR, kept
from profiling.estimate_memory import (
    compute_bytes,
    host_activations,
    is_state_on_host,
    state_bytes,
)
from profiling.placement import Placement, place
from profiling.projections import Projection
from profiling.shares import Shares

# Share of peak that dense matmul fusions reach: fitted to compiled steps, scaled by what
# more scoped memory gains, and held against `benchmarks/results/estimate.md` since.
EFFICIENCY = {"v4": 0.85, "v5e": 0.90, "v5p": 0.88, "v6e": 0.77, "tpu7x": 0.53}
HIDDEN = 0.9  # of compute, the part that asynchronous transfers can lie under
ACCUMULATE_BYTES = 12  # per parameter: read the sum and the new gradient, write
RING_BYTES = 110  # a number of the queries and round of a ring: sums rescaled
RING_HIDDEN = 0.25  # of the kernel's time, what a ring's keys travel under
UPDATE_BYTES = 36  # per parameter: read p, m, v, g twice; write p, m, v


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one step."""

    compute_secs: float
    exposed_secs: float  # collectives and copies that nothing hides
    optimizer_secs: float
    ici_secs: float  # all collectives inside slices, hidden or not
    dcn_secs: float

    @property
    def step_secs(self) -> float:
        """All that does not overlap."""
        return self.compute_secs + self.exposed_secs + self.optimizer_secs


class Again(NamedTuple):
    """What the backward pass computes a second time, as shares of the forward pass."""

    qkv: float  # projections to q, k and v
    attention: float
    out: float  # attention's output projection
    mlp: float  # gate and up
    experts: float  # theirs
    sent: float  # what brings tokens to experts


def recomputed(s: Shares) -> Again:
    """By `model.remat`; latent attention's heads count as the projections."""
    model = s.cfg.model
    return _again(
        model.remat, model.attention.kind == "latent", model.mlp.kind == "gelu"
    )


@functools.cache
def _again(remat: str, is_latent: bool, is_gelu: bool) -> Again:
    names = kept(remat)
    if names is None:
        return Again(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def share(*wanted: str) -> float:
        missing = [n for n in wanted if n not in names]
        return len(missing) / len(wanted)

    heads = ("query", "key", "value")
    qkv = share(*(f"{n}_heads" for n in heads)) if is_latent else share(*heads)
    dots = LINEAR in names
    return Again(
        qkv=0.0 if dots else qkv,
        attention=share("attention_out"),
        out=0.0 if dots or "block_middle" in names else share("out_proj"),
        mlp=0.0 if dots else share(*(["up"] if is_gelu else _GATED)),
        experts=share("expert_gate", "expert_up"),
        sent=share("expert_input"),
    )


_GATED = ("gate", "up")


def times(s: Shares, where: Slice) -> Times:
    """Of one step on a mesh that the config divides over."""
    across = {"stage": 1, "data": 1, "fsdp": 1}
    if where.num_slices > 1:
        across = _across(s, where)
    inside = {axis: n // across.get(axis, 1) for axis, n in s.sizes.items()}
    layer = _Layer(s, where, place(inside, where), across)
    parts, L = s.cfg.grad_accum_steps, s.passes
    hbm = where.chip.hbm_bytes_per_sec / where.chip.devices_per_chip
    head, head_sync, head_async = layer.head()
    compute, sync, hidden = layer.compute_secs(), layer.sync_secs(), layer.async_secs()
    dcn = layer.dcn_secs()  # beside the links of a slice
    exposed = sync + max(0.0, max(hidden, dcn) - HIDDEN * compute)
    travel, travel_dcn = layer.pipeline_secs()
    exposed_head = head_sync + max(0.0, head_async - HIDDEN * head)
    update = UPDATE_BYTES * s.params()
    if parts > 1:
        update += ACCUMULATE_BYTES * s.params() * parts
    return Times(
        compute_secs=parts * (L * compute + head),
        exposed_secs=parts * (L * exposed + exposed_head + travel + travel_dcn),
        optimizer_secs=max(update / hbm, _state_copies_secs(s, where)),
        ici_secs=parts * (L * (sync + hidden) + head_sync + head_async + travel),
        dcn_secs=parts * (L * dcn + travel_dcn),
    )


def _state_copies_secs(s: Shares, where: Slice) -> float:
    """Moments from the host and, at the same time, back."""
    rate = where.chip.host_bytes_per_sec / where.chip.devices_per_chip
    return state_bytes(s) / rate if is_state_on_host(s) else 0.0


def _across(s: Shares, where: Slice) -> dict[str, int]:
    asked = dataclasses.asdict(s.cfg.mesh.slices)
    known = math.prod(n for n in asked.values() if n != -1)
    return {a: where.num_slices // known if n == -1 else n for a, n in asked.items()}


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One layer of one micro-batch on one device."""

    s: Shares
    where: Slice
    placement: Placement
    across: dict[str, int]  # slices along each axis

    # --- compute -----------------------------------------------------------------------

    def compute_secs(self) -> float:
        """Forward, backward, and what is computed again."""
        s, chip = self.s, self.where.chip
        again_of = recomputed(s)
        dense = sum(p.flops(chip) for p in self._projections)
        grouped = s.expert_flops * (3 + again_of.experts * 2 / 3)
        peak = chip.device_peak_flops
        secs = (dense / EFFICIENCY[chip.name] + grouped) / peak + self._kernel_secs()
        moved = self._elementwise_bytes() + self._ring_bytes()
        moved += sum(p.rounding_bytes() for p in self._projections)
        return secs + moved / (chip.hbm_bytes_per_sec / chip.devices_per_chip)

    def _kernel_secs(self) -> float:
        """Attention at peak, as in the roofline; backward is 7 matmuls to 2."""
        s = self.s
        flops = s.attention_flops * (1 + recomputed(s).attention + 3.5)
        return flops / self.where.chip.device_peak_flops

    def _ring_bytes(self) -> float:
        """What every round of a ring adds to the sums of the rounds before it."""
        s, a = self.s, self.s.cfg.model.attention
        queries = s.tokens * a.head_dim * a.num_heads / s.parts("heads")
        return RING_BYTES * queries * self._rounds

    @cached_property
    def _projections(self) -> tuple[Projection, ...]:
        """Those of dense weights; what multiplies the same numbers is one."""
        s, again = self.s, recomputed(self.s)
        a, D, F = s.cfg.model.attention, s.cfg.model.embed_dim, s.mlp_width
        heads = a.head_dim * a.num_heads / s.parts("heads")
        kv_heads = a.head_dim * a.num_kv_heads / s.parts("kv_heads")
        return (
            Projection(s, "attention", D, heads + 2 * kv_heads, again.qkv),
            Projection(s, "attention", heads, D, again.out),
            Projection(s, "mlp", D, (s.dense_mlp_kernels - 1) * F, again.mlp),
            Projection(s, "mlp", F, D, 0.0),
        )

    def _elementwise_bytes(self) -> float:
        """Norms, residuals, rotations, activations: arrays read and written beside
        the matmuls that they could not be joined to."""
        s, a, D = self.s, self.s.cfg.model.attention, self.s.cfg.model.embed_dim
        passes = 3 + (1 if recomputed(s).mlp else 0)
        heads = a.head_dim * (a.num_heads + a.num_kv_heads) / s.parts("heads")
        numbers = s.residual_tokens * 4 * D + s.tokens * (2 * s.mlp_width + heads)
        if s.moe is not None:  # sorted, gathered and weighted copies
            copies = 2 if s.are_experts_apart else 1
            numbers += copies * s.sent * (6 * D + 3 * s.moe.dim / s.parts("mlp"))
        return compute_bytes(s) * passes * numbers

    def head(self) -> tuple[float, float, float]:
        """Seconds: logits and their gradients (twice forward: they are not kept), then
        the synchronous and the asynchronous collectives of both tables."""
        s, chip = self.s, self.where.chip
        compute = 4 * s.head_flops / EFFICIENCY[chip.name] / chip.device_peak_flops
        logits = s.head_tokens * s.table_params / s.cfg.model.embed_dim
        compute += 6 * 4 * logits / (chip.hbm_bytes_per_sec / chip.devices_per_chip)
        table = compute_bytes(s) * s.table_params
        gathers = s.num_tables + 1
        sync, hidden = self._gradients(table * s.num_tables)
        return compute, sync, hidden + gathers * self._gather(table, s.axes("embed"))

    # --- collectives -------------------------------------------------------------------

    def sync_secs(self) -> float:
        """Those that stop the core."""
        sync = self._gradients(self._weights())[0] + self._tensor() + self._experts()
        return sync + self._exchange() + self._ring() - self._hidden_ring()

    def async_secs(self) -> float:
        """Those that can lie under compute."""
        gathers = self._gather(self._gathered(), self.s.axes("embed"))
        hidden = self._gradients(self._weights())[1] + self._hidden_ring()
        return gathers + hidden + self._host()

    def dcn_secs(self) -> float:
        """Over the data-centre network: gradients, and weights under fsdp."""
        share = self._weights() / self.s.parts("embed")
        dcn = self.where.chip.dcn_bytes_per_sec / self.where.chip.devices_per_chip
        n = self.across["data"]
        secs = 2 * share * (n - 1) / n / dcn
        n = self.across["fsdp"]
        moved = self._gathered() / self.s.parts("embed") + share
        return secs + moved * (n - 1) / dcn

    def _gathered(self) -> float:
        """Bytes of all gathers of a layer's weights."""
        s = self.s
        experts = 2 * compute_bytes(s) * s.expert_layer_params
        dense = (p.gathered_bytes(compute_bytes(s)) for p in self._projections)
        return sum(dense) + experts

    def _weights(self) -> float:
        """Bytes of a layer's weights in the compute type, gathered."""
        s = self.s
        return compute_bytes(s) * (s.dense_layer_params + s.expert_layer_params)

    def _gather(self, num_bytes: float, axes: tuple[str, ...]) -> float:
        """`num_bytes`: of the result."""
        parts = math.prod(self.s.sizes[a] for a in axes)
        rate = self.placement.bytes_per_sec(axes)
        return num_bytes * (parts - 1) / parts / rate

    def _gradients(self, num_bytes: float) -> tuple[float, float]:
        """Synchronous and asynchronous seconds of summing gradients over devices."""
        s, axes = self.s, self.s.axes("embed")
        replicas = tuple(a for a in s.axes("batch") if a not in axes)
        sync, hidden = 0.0, 0.0
        if axes:
            ring = self._ring_size()
            if ring:  # travels under the matmuls, see models/ring_scatter.py
                rate = 2 * self.where.chip.link_bytes_per_sec
                hidden += num_bytes * (ring - 1) / ring / rate
                sync += self._gather(num_bytes / ring, axes)
            else:
                # An all-reduce unless replicas of the weights have it scattered first.
                is_whole = s.axes("batch") == axes or s.axes("length")
                passes = 2 if is_whole else 1
                sync += passes * self._gather(num_bytes, axes)
        if replicas:
            share = num_bytes / s.parts("embed")
            sync += 2 * self._gather(share, replicas)
        return sync, hidden

    def _ring_size(self) -> int | None:
        """As `ring_scatter.ring_size`."""
        from podium.models.ring_scatter import MIN_WIDTH  # imports jax

        s, axes = self.s, self.s.axes("embed")
        if len(axes) != 1 or s.axes("batch") != axes:
            return None
        ring, D = max(self.where.shape), s.cfg.model.embed_dim
        whole = s.sizes[axes[0]] == self.where.num_devices == self.where.num_chips
        if not whole or ring < 4 or D // ring < MIN_WIDTH or D % (2 * ring):
            return None
        return ring

    def _tensor(self) -> float:
        """Activations gathered before, scattered after, each part of a block."""
        s = self.s
        axes = s.axes("heads")
        if not axes:
            return 0.0
        again = recomputed(s)
        rows = compute_bytes(s) * s.cfg.model.embed_dim * s.tokens
        # forward 4; backward 4, and inputs gathered again for the weights' gradients 2
        return (10 + again.qkv + again.out) * self._gather(rows, axes)

    def _experts(self) -> float:
        """Tokens of an expert group, gathered and summed back, see moe_dropless.py; with
        a capacity their slots, exchanged, moe_capacity.py."""
        s = self.s
        if s.moe is None or s.parts("experts") == 1:
            return 0.0
        rows = compute_bytes(s) * s.cfg.model.embed_dim * s.tokens * s.parts("experts")
        if isinstance(s.moe.dispatch, CapacityConfig):
            rows = compute_bytes(s) * s.cfg.model.embed_dim * s.chosen
        return (4 + recomputed(s).sent) * self._gather(rows, s.axes("experts"))

    @property
    def _rounds(self) -> int:
        """How often a ring's blocks move on; 0 where no ring attends."""
        a = self.s.cfg.model.attention
        is_ring = self.s.axes("length") and a.context == "ring"
        return self.s.parts("length") - 1 if is_ring else 0

    def _ring(self) -> float:
        """Keys and values forward; backward they go all round, with float32 gradients."""
        s, a = self.s, self.s.cfg.model.attention
        if not self._rounds:
            return 0.0
        heads = a.num_kv_heads / s.parts("kv_heads")
        kv = 2 * compute_bytes(s) * s.tokens * heads * a.head_dim
        moves = (4 + recomputed(s).attention) * self._rounds + 1
        return moves * kv / self.where.chip.link_bytes_per_sec

    def _exchange(self) -> float:
        """Queries, keys, values and results change from rows to heads or back."""
        s, a = self.s, self.s.cfg.model.attention
        if a.context != "all_to_all" or not s.axes("length"):
            return 0.0
        heads = a.num_heads / s.parts("heads") + a.num_kv_heads / s.parts("kv_heads")
        moved = 2 * compute_bytes(s) * s.tokens * heads * a.head_dim
        passes = 2 + recomputed(s).attention
        return passes * self._gather(moved, s.axes("length"))

    def _hidden_ring(self) -> float:
        return min(self._ring(), RING_HIDDEN * self._kernel_secs())

    def pipeline_secs(self) -> tuple[float, float]:
        """Of one micro-batch: activations to the next stage and their gradients back,
        once an iteration, inside slices and across them. Nothing hides them: a stage
        begins with what it waits for."""
        s = self.s
        if s.schedule is None:
            return 0.0, 0.0
        chip = self.where.chip
        moved = compute_bytes(s) * s.cfg.model.embed_dim * s.residual_tokens
        moved *= 2 * s.schedule.num_times
        inside = s.sizes["stage"] // self.across["stage"]
        ici = moved / chip.link_bytes_per_sec if inside > 1 else 0.0
        dcn = moved / (chip.dcn_bytes_per_sec / chip.devices_per_chip)
        return ici, dcn if self.across["stage"] > 1 else 0.0

    def _host(self) -> float:
        """Copies to and from the host's memory."""
        s, chip = self.s, self.where.chip
        per_layer = host_activations(s) / s.passes
        return per_layer * chip.devices_per_chip / chip.host_bytes_per_sec
