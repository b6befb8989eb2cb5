# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""All layouts of a run on a slice, judged in closed form; the best few go to the compiler.

A candidate is a mesh, a remat policy and a number of micro-batches, at the config's own
global batch. Those whose numbers do not divide, or that need more memory than a chip
has, keep the reason.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from podium.aot.chips import Slice
from podium.config import MeshConfig, TrainConfig
from podium.config_mesh import MESH_AXES, SlicesConfig
from podium.config_model import MoeConfig
from podium.errors import ShardingError
from podium.models import flops
from podium.sharding_tables import size_text
from profiling.estimate_memory import memory
from profiling.estimate_time import times
from profiling.indivisible import indivisible
from profiling.shares import shares

# `model.remat` as the search varies it: from all kept to nothing but block inputs; then
# what frees the device of these too, or spares work at the cost of the host's link.
REMATS = (
    "none",
    "dots",
    "attention_out",
    "qkv",
    "full",
    "qkv:host",
    "block_input:host",
    "block_input:host,qkv:host,attention_out:host",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a layout changes in a config."""

    mesh: MeshConfig
    remat: str
    grad_accum_steps: int

    def apply(self, cfg: TrainConfig) -> TrainConfig:
        """The config laid out this way."""
        return dataclasses.replace(
            cfg,
            mesh=self.mesh,
            grad_accum_steps=self.grad_accum_steps,
            model=dataclasses.replace(cfg.model, remat=self.remat),
        )

    def settings(self, cfg: TrainConfig) -> dict[str, int | str]:
        """Setting -> value, of all that `cfg` must be told."""
        before, after = cfg.mesh.sizes(), self.mesh.sizes()
        told = {f"mesh.{a}": n for a, n in after.items() if n > 1 or n != before[a]}
        if self.mesh.slices != cfg.mesh.slices:
            told |= {
                f"mesh.slices.{axis}": n
                for axis, n in dataclasses.asdict(self.mesh.slices).items()
            }
        return told | {
            "model.remat": self.remat,
            "grad_accum_steps": self.grad_accum_steps,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimated:
    """A candidate and what the closed forms say; bytes and seconds per chip and step."""

    candidate: Candidate
    reason: str | None  # why it cannot run
    hbm_bytes: dict[str, float] = dataclasses.field(default_factory=dict)
    hbm_bytes_per_chip: float = 0.0
    step_secs: float = 0.0
    exposed_secs: float = 0.0
    mfu: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether it can run."""
        return self.reason is None


def estimate(candidate: Candidate, cfg: TrainConfig, where: Slice) -> Estimated:
    """Memory and time of one candidate."""
    cfg = candidate.apply(cfg)
    s = shares(cfg, where.num_devices)
    if reason := indivisible(s):
        return Estimated(candidate=candidate, reason=f"indivisible: {reason}")
    chip = where.chip
    hbm = {k: v * chip.devices_per_chip for k, v in memory(s).items()}
    total, room = sum(hbm.values()), chip.device_hbm_bytes * chip.devices_per_chip
    found = times(s, where)
    tokens = cfg.global_batch_seqs * cfg.data.seq_len
    useful = tokens * flops.train_flops_per_token(cfg.model, cfg.data.seq_len)
    return Estimated(
        candidate=candidate,
        reason="out of memory" if total > room else None,
        hbm_bytes=hbm,
        hbm_bytes_per_chip=total,
        step_secs=found.step_secs,
        exposed_secs=found.exposed_secs,
        mfu=useful / found.step_secs / (where.num_chips * chip.peak_flops),
    )


def own(cfg: TrainConfig, where: Slice) -> Estimated:
    """The estimate of the config's own layout; its mesh may be another slice's."""
    from podium.sharding.mesh import fit  # imports jax

    mine = Candidate(
        mesh=cfg.mesh, remat=cfg.model.remat, grad_accum_steps=cfg.grad_accum_steps
    )
    try:
        fit(cfg.mesh, where.num_devices, where.num_slices)
    except ShardingError as error:
        return Estimated(candidate=mine, reason=str(error))
    return estimate(mine, cfg, where)


def candidates(cfg: TrainConfig, where: Slice) -> Iterator[Candidate]:
    """Every factorisation of the devices over the axes that the model can use, times
    the policies, times the numbers of micro-batches that divide the batch."""
    counts = [n for n in range(1, 65) if cfg.global_batch_seqs % n == 0]
    for mesh in meshes(cfg, where):
        rows = math.prod(mesh.sizes()[axis] for axis in cfg.sharding.batch)
        # At least a row a device; a mesh that cannot have that is one candidate.
        steps = [n for n in counts if n * rows <= cfg.global_batch_seqs] or [1]
        for remat, count in itertools.product(REMATS, steps):
            yield Candidate(mesh=mesh, remat=remat, grad_accum_steps=count)


def meshes(cfg: TrainConfig, where: Slice) -> Iterator[MeshConfig]:
    """Factorisations of all devices; slices lie along stage, data and fsdp."""
    from podium.models.layer_stack import layer_stacks  # imports jax

    mlp = cfg.model.mlp
    num_experts = mlp.num_experts if isinstance(mlp, MoeConfig) else 1
    _, num_layers = layer_stacks(cfg.model).get("stack", ((), 1))
    for sizes in factorisations(where.num_devices, len(MESH_AXES)):
        stage, data, fsdp, expert, context, tensor = sizes
        if num_experts % expert or num_layers % (stage * cfg.model.pipeline.repeats):
            continue
        for across in factorisations(where.num_slices, 3):
            if any(n % part for n, part in zip(sizes, across, strict=False)):
                continue
            yield MeshConfig(
                stage=stage,
                data=data,
                fsdp=fsdp,
                expert=expert,
                context=context,
                tensor=tensor,
                # data=-1, what is left, also on CPU devices, which have no slices
                slices=SlicesConfig(stage=across[0], data=-1, fsdp=across[2]),
            )


def factorisations(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write n as a product of so many numbers."""
    if parts == 1:
        yield (n,)
        return
    for first in divisors(n):
        for rest in factorisations(n // first, parts - 1):
            yield first, *rest


def divisors(n: int) -> list[int]:
    """Ascending, 1 and n included."""
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)})


def ranked(found: Sequence[Estimated]) -> list[Estimated]:
    """Those that can run, the fastest first; of equals the one that takes less memory."""
    return sorted(
        (e for e in found if e.fits),
        key=lambda e: (float(f"{e.step_secs:.4g}"), e.hbm_bytes_per_chip),
    )


def reasons(found: Sequence[Estimated], room: float) -> list[tuple[int, str]]:
    """How many candidates each reason rules out, the most first."""
    counts = Counter(e.reason for e in found if e.reason)
    over = [e.hbm_bytes_per_chip - room for e in found if e.reason == "out of memory"]
    words = {
        "out of memory": "out of memory, the nearest by "
        f"{size_text(min(over, default=0))} a chip"
    }
    return [(n, words.get(reason, reason)) for reason, n in counts.most_common()]
