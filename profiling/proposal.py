# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The nearest change to a run that does not fit, compiled to be sure.

The closed forms say which changes may do, corrected by what they got wrong of the run
itself; the compiler has the last word.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from podium import cli
from podium.aot.chips import Slice, parse_slice
from podium.aot.compile import CompilerError
from podium.config import TrainConfig
from podium.errors import ConfigError, ShardingError
from profiling.search import Estimated, candidates, estimate, own, ranked
from profiling.shares import shares

_MOST_COMPILES = 4


def propose(
    cfg: TrainConfig, where: Slice, needed_bytes: float = 0.0
) -> dict[str, Any] | None:
    """None if nothing that was tried fits. `needed_bytes`: what the compiler said that
    a chip would take now; 0 where it did not say."""
    from profiling.plan import make_plan

    mine = own(cfg, where)
    error = needed_bytes / mine.hbm_bytes_per_chip if mine.hbm_bytes_per_chip else 0.0
    tries = itertools.islice(nearest(cfg, where, max(error, 1.0)), _MOST_COMPILES)
    for there, changed in tries:
        words = [f"--topology={there.name}"] if there != where else []
        words += _flags(changed, cfg, there)
        cli.say(f"plan: trying {' '.join(words)}")
        try:
            plan = make_plan(changed.candidate.apply(cfg), there)
        except (ConfigError, ShardingError, CompilerError) as error:
            cli.say(f"plan: {error}")  # what the closed forms do not know of
            continue
        if plan["fits"]:
            return {"change": " ".join(words), "topology": there.name} | {
                key: plan[key] for key in ("hbm_bytes_per_chip", "step_secs")
            }
    return None


def nearest(
    cfg: TrainConfig, where: Slice, error: float
) -> Iterator[tuple[Slice, Estimated]]:
    """Changes whose estimate, times `error`, fits: of what is recomputed; of the number
    of micro-batches; of both; of the mesh; of the slice. The fastest of each."""
    room = where.chip.device_hbm_bytes * where.chip.devices_per_chip

    def fits(e: Estimated) -> bool:
        return e.hbm_bytes_per_chip * error <= room

    here = [e for e in ranked(_all(cfg, where)) if fits(e)]
    same_mesh = [e for e in here if _sizes(e) == _own_sizes(cfg, where)]
    remat, steps = cfg.model.remat, cfg.grad_accum_steps
    yield from _first(
        where, [e for e in same_mesh if e.candidate.grad_accum_steps == steps]
    )
    yield from _first(where, [e for e in same_mesh if e.candidate.remat == remat])
    yield from _first(where, same_mesh)
    yield from _first(where, here)
    for there in larger(where):
        yield from _first(there, [e for e in ranked(_all(cfg, there)) if fits(e)])


def _all(cfg: TrainConfig, where: Slice) -> list[Estimated]:
    return [estimate(c, cfg, where) for c in candidates(cfg, where)]


def _first(where: Slice, found: list[Estimated]) -> Iterator[tuple[Slice, Estimated]]:
    yield from ((where, e) for e in found[:1])


def _sizes(e: Estimated) -> dict[str, int]:
    return e.candidate.mesh.sizes()


def _own_sizes(cfg: TrainConfig, where: Slice) -> dict[str, int]:
    return dict(shares(cfg, where.num_devices).sizes)


def larger(where: Slice) -> Iterator[Slice]:
    """Slices of the same kind with more chips, the smallest first."""
    chip = where.chip
    for shape in chip.topologies:
        there = dataclasses.replace(
            where, shape=tuple(int(n) for n in shape.split("x"))
        )
        if there.chips_per_slice <= where.chips_per_slice:
            continue
        count = there.chips_per_slice * (2 if chip.counts_cores else 1)
        slices = f"x{where.num_slices}" if where.num_slices > 1 else ""
        yield parse_slice(f"{chip.name}-{count}{slices}")


def _flags(e: Estimated, cfg: TrainConfig, there: Slice) -> list[str]:
    """Of what is not so already; an axis that is -1 takes what is left."""
    now = {"model.remat": cfg.model.remat, "grad_accum_steps": cfg.grad_accum_steps}
    now |= {f"mesh.{axis}": n for axis, n in _own_sizes(cfg, there).items()}
    return [
        f"--config.{name}={value}"
        for name, value in e.candidate.settings(cfg).items()
        if now.get(name) != value
    ]
