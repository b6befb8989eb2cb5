# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Groups of devices -> names of mesh axes, from numbers alone and through XLA."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.aot.grid import Grid
from podium.aot.groups import Groups
from podium.aot.hlo import Collective, read
from podium.config import MeshConfig
from podium.config_mesh import MESH_AXES, SlicesConfig
from podium.sharding.mesh import make_mesh, slice_indices

PAIRS = list(itertools.combinations(MESH_AXES, 2))


def grid(**sizes: int) -> Grid:
    every = {axis: sizes.get(axis, 1) for axis in MESH_AXES}
    return Grid(tuple(every.items()), (0,) * math.prod(every.values()))


def along(where: Grid, axes) -> Groups:
    """The groups that span `axes` and nothing else."""
    dims = [size for _, size in where.sizes]
    chosen = [i for i, (name, _) in enumerate(where.sizes) if name in axes]
    ids = np.arange(math.prod(dims)).reshape(dims)
    rest = [i for i in range(len(dims)) if i not in chosen]
    width = math.prod(dims[i] for i in chosen)
    rows = ids.transpose(rest + chosen).reshape(-1, width)
    return Groups(tuple(map(tuple, rows.tolist())))


MESHES = st.fixed_dictionaries({axis: st.integers(1, 4) for axis in MESH_AXES})


@given(MESHES, st.sets(st.sampled_from(MESH_AXES)))
def test_whole_axes_have_their_names_outermost_first(sizes, axes):
    where = grid(**sizes)
    wanted = [axis for axis in MESH_AXES if axis in axes and sizes[axis] > 1]
    assert where.axes(along(where, axes)) == "+".join(wanted)


@given(MESHES)
def test_no_groups_at_all_are_the_whole_mesh(sizes):
    where = grid(**sizes)
    assert where.axes(Groups(())) == where.axes(along(where, MESH_AXES))


@given(MESHES, st.sampled_from(MESH_AXES), st.integers(1, 3))
def test_pairs_have_the_axis_along_which_they_differ(sizes, axis, shift):
    where = grid(**sizes)
    rings = along(where, {axis}).members
    pairs = [
        (ring[i], ring[(i + shift) % len(ring)])
        for ring in rings
        for i in range(len(ring))
    ]
    moves = shift % sizes[axis] != 0
    assert where.axes(Groups(tuple(pairs), is_pairs=True)) == (axis if moves else "")


def test_a_part_of_an_axis_says_how_much_of_it():
    where = grid(fsdp=8, tensor=2)
    halves = tuple(
        tuple(row[i] for i in range(start, start + 4))
        for row in along(where, {"fsdp"}).members
        for start in (0, 4)
    )
    assert where.axes(Groups(halves)) == "fsdp(4 of 8)"
    assert where.axes(Groups(((0, 3), (1, 2)))) == "fsdp(2 of 8)+tensor, 2 devices"


@pytest.mark.parametrize("axes", [*((a,) for a in MESH_AXES), *PAIRS], ids="+".join)
def test_xlas_groups_on_eight_devices_are_named(axes):
    others = [a for a in MESH_AXES if a not in axes][: 3 - len(axes)]
    sizes = dict.fromkeys(MESH_AXES, 1) | dict.fromkeys((*axes, *others), 2)
    mesh = make_mesh(MeshConfig(**sizes))
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh, P(axes)))
    whole = jax.jit(lambda x: jnp.sum(x, 0), out_shardings=NamedSharding(mesh, P()))
    compiled = whole.lower(x).compile()
    found = [c for _, c in read(compiled.as_text()).flat() if isinstance(c, Collective)]
    assert {Grid.of(mesh).axes(c.groups) for c in found} == {"+".join(axes)}


@pytest.mark.parametrize("axis", ["stage", "data", "fsdp"])
def test_only_what_leaves_a_slice_crosses(axis):
    sizes = dict.fromkeys(MESH_AXES, 1) | {axis: 4, "tensor": 2}
    slices = SlicesConfig(**({"data": 1} | {axis: 2}))
    cfg = MeshConfig(**sizes, slices=slices)
    mesh, devices = make_mesh(cfg), jax.devices()
    of = dict(zip(devices, slice_indices(cfg, devices), strict=True))
    where = Grid.of(mesh, [of[d] for d in mesh.devices.flat])
    assert where.crosses_slices(along(where, {axis}))
    assert where.crosses_slices(Groups(()))
    assert not where.crosses_slices(along(where, {"tensor"}))
    assert where.axes_across_slices() == f"{axis}(2 of 4)"


def spelled(axis, kind):
    """One collective of a kind over a mesh of 2 x 4, as the CPU's compiler writes it."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4, tensor=1))
    n = mesh.shape[axis]
    ring = [(i, (i + 1) % n) for i in range(n)]
    body = {
        "all-reduce": lambda x: jax.lax.psum(x, axis),
        "all-gather": lambda x: jax.lax.all_gather(x, axis),
        "reduce-scatter": lambda x: jax.lax.psum_scatter(x, axis, tiled=True),
        "all-to-all": lambda x: jax.lax.all_to_all(x, axis, 0, 0, tiled=True),
        "collective-permute": lambda x: jax.lax.ppermute(x, axis, ring),
    }[kind]
    fn = jax.shard_map(
        body, mesh=mesh, in_specs=P(), out_specs=P(("data", "fsdp")), check_vma=False
    )
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=NamedSharding(mesh, P()))
    program = read(jax.jit(fn).lower(x).compile().as_text())
    found = [c for _, c in program.flat() if isinstance(c, Collective)]
    return Grid.of(mesh), n, found


@pytest.mark.parametrize("axis", ["data", "fsdp"])
@pytest.mark.parametrize(
    "kind",
    ["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"],
)
def test_every_kind_is_read_as_the_cpus_compiler_spells_it(axis, kind):
    where, n, found = spelled(axis, kind)
    (c,) = found
    assert (c.kind, where.axes(c.groups)) == (kind, axis)
    assert c.num_bytes == 8 * 3 * 4 * (n if kind == "all-gather" else 1)
    assert not c.is_async
    assert c.stack_frame
