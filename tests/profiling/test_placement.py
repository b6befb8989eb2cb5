# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The closed form of a mesh on the torus, against jax's own placement of it."""

import importlib.util
import json
import math
import subprocess
import sys

import pytest

from podium.aot.chips import parse_slice
from profiling.placement import place

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="extra tpu is not installed"
)

# Of every mesh of three axes on some slices: how often both give the same seconds.
COMPARE = """
import itertools, json, logging, math, sys
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
aot.without_tpus()
logging.disable(logging.WARNING)
import numpy as np
from podium.config import MeshConfig
from podium.config_mesh import MESH_AXES
from podium.sharding.mesh import make_mesh
from podium.aot.groups import Groups
from podium.aot.hlo import Collective
from podium.aot.network import Network
from profiling.placement import place

found = {}
for name in sys.argv[1:]:
    where = parse_slice(name)
    devices = aot.devices(where)
    n, ratios = len(devices), []
    choices = itertools.product((1, 4, n // 8, n), (1, 4), (1, 2, 8))
    for fsdp, context, tensor in choices:
        if n % (fsdp * context * tensor):
            continue
        data = n // (fsdp * context * tensor)
        sizes = dict(data=data, fsdp=fsdp, context=context, tensor=tensor)
        mesh = make_mesh(MeshConfig(**sizes), devices)
        network = Network.of(where, list(mesh.devices.flat))
        numbers = np.arange(n).reshape(mesh.devices.shape)
        placed = place(dict(mesh.shape), where)
        for axes in (("data",), ("fsdp",), ("fsdp", "context"), ("tensor",)):
            at = tuple(slice(None) if a in axes else 0 for a in MESH_AXES)
            group = tuple(numbers[at].ravel().tolist())
            if len(group) > 1:
                groups = Groups((group,), is_pairs=False)
                whole = Collective("c", "all-gather", 10**9, groups, False)
                secs = 1e9 * (len(group) - 1) / len(group) / placed.bytes_per_sec(axes)
                ratios.append(secs / network.transfer(whole).secs)
    found[name] = ratios
print(json.dumps(found))
"""


@needs_compiler
def test_axes_lie_where_jax_puts_them():
    slices = ["v4-256", "v5e-64", "v5p-128"]
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, *slices], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, ratios in json.loads(done.stdout).items():
        same = sum(math.isclose(r, 1, rel_tol=0.01) for r in ratios)
        assert same >= 0.85 * len(ratios), (name, ratios)
        # Where jax splits several dims at once it may choose others.
        assert all(0.4 < r < 2.5 for r in ratios), (name, ratios)


def test_one_axis_over_the_whole_slice_has_all_links():
    v4 = parse_slice("v4-256")
    got = place({"fsdp": 128}, v4).bytes_per_sec(("fsdp",))
    assert got == 6 * v4.chip.link_bytes_per_sec


def test_an_axis_of_one_device_takes_no_time():
    assert place({"fsdp": 128, "tensor": 1}, parse_slice("v4-256")).bytes_per_sec(
        ("tensor",)
    ) == float("inf")


def test_both_cores_of_a_chip_are_on_the_innermost_axis():
    placed = place({"fsdp": 64, "tensor": 2}, parse_slice("tpu7x-128"))
    assert math.prod(placed.reach["fsdp"]) == 64
    assert math.prod(placed.reach["tensor"]) == 1
