# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The table of collectives, against a tiny model and schedules counted by hand."""

import dataclasses
import itertools

import jax
import pytest

from podium.aot import collectives
from podium.aot.chips import parse_slice
from podium.aot.grid import Grid
from podium.aot.groups import Groups
from podium.aot.hlo import Collective, Compute, Done, Loop, Program, Start, read
from podium.aot.network import Network
from podium.aot.roofline import roofline
from podium.config import MeshConfig
from podium.config_mesh import SlicesConfig
from podium.sharding.mesh import slice_indices
from podium.trainer.setup import setup
from tests.trainer import tiny

LAYERS, D, F = 2, 32, 64
V5E = parse_slice("v5e-8")
GATHER = Collective("gather", "all-gather", 10**8, Groups(()), True, "jit(f)/jvp()/dot")


def rows_of(cfg) -> list[collectives.Row]:
    parts = setup(cfg)
    devices = jax.devices()
    of = dict(zip(devices, slice_indices(cfg.mesh, devices), strict=True))
    grid = Grid.of(parts.mesh, [of[d] for d in parts.mesh.devices.flat])
    program = read(parts.compile_step().as_text())
    found = collectives.without_times(program, grid)
    return collectives.table(found, program.sources, has_times=False)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_fsdp_gathers_every_weight_of_a_layer_once_a_forward_pass(accumulated):
    mesh = MeshConfig(data=1, fsdp=8, tensor=1)
    rows = rows_of(tiny.config(mesh, grad_accum_steps=accumulated))
    gathers = [
        r
        for r in rows
        if (r.kind, r.phase, r.part) == ("all-gather", "forward", "GatedMlp")
    ]
    assert {r.mesh_axes for r in gathers} == {"fsdp"}
    assert {r.network for r in gathers} == {"ICI"}
    assert {r.num_bytes for r in gathers} == {4 * D * F}
    # gate, up and down
    assert sum(r.count for r in gathers) == 3 * LAYERS * accumulated
    assert {r.overlap for r in rows} == {"exposed"}  # all synchronous on CPUs


@pytest.mark.usefixtures("standard_promotion")
def test_slices_of_data_sum_gradients_over_dcn_and_gather_weights_over_ici():
    mesh = MeshConfig(data=2, fsdp=4, tensor=1, slices=SlicesConfig(data=2))
    rows = rows_of(tiny.config(mesh))
    gathers = [r for r in rows if r.kind == "all-gather" and r.part == "GatedMlp"]
    assert {(r.mesh_axes, r.network) for r in gathers} == {("fsdp", "ICI")}
    over_data = [r for r in rows if "data" in r.mesh_axes]
    assert {r.network for r in over_data} == {"DCN"}
    assert any(r.phase == "backward" for r in over_data)
    for row in rows:
        assert (row.network == "DCN") == ("data" in row.mesh_axes), row


def compute(secs: float) -> Compute:
    return Compute("fusion", round(secs * V5E.chip.clock_hz), 0.0, 0)


def replayed(*events) -> collectives.Row:
    coords = itertools.product(*map(range, V5E.shape))
    network = Network(V5E, tuple((0, c) for c in coords))
    grid = Grid((("fsdp", 8),), (0,) * 8)
    found = roofline(Program(tuple(events)), network, grid).collectives
    (row,) = collectives.table(found, {}, has_times=True)
    return row


@pytest.mark.parametrize(
    ("share", "overlap"), [(2.0, "overlapped"), (0.5, "partly"), (0.0, "exposed")]
)
def test_compute_between_start_and_end_hides_a_collective(share, overlap):
    secs = replayed(Start("g", GATHER), Done("g")).secs or 0.0
    between = [compute(share * secs)] if share else []
    row = replayed(Start("g", GATHER), *between, Done("g"), compute(1.0))
    assert row.overlap == overlap
    assert row.exposed_secs == pytest.approx(max(0.0, 1 - share) * secs, rel=1e-3)
    assert row.between_secs == pytest.approx(share * secs, rel=1e-3)
    assert (row.mesh_axes, row.phase, row.part) == ("fsdp", "forward", "dot")


def test_what_loops_compute_between_counts_every_trip():
    inner = Loop("inner", 5, (compute(0.1),))
    row = replayed(Loop("layers", 3, (Start("g", GATHER), inner, Done("g"))))
    assert row.count == 3
    assert row.between_secs == pytest.approx(3 * 5 * 0.1, rel=1e-6)


def test_a_synchronous_collective_is_exposed_though_compute_follows():
    row = replayed(dataclasses.replace(GATHER, is_async=False), compute(1.0))
    assert (row.overlap, row.between_secs) == ("exposed", 0.0)
    assert row.exposed_secs == pytest.approx(row.secs)
