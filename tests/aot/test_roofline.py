# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools
import math

import pytest

from podium.aot.chips import parse_slice
from podium.aot.groups import Groups
from podium.aot.hlo import (
    Collective,
    Compute,
    Done,
    HostCopy,
    Kernel,
    Loop,
    Program,
    Start,
)
from podium.aot.network import Network
from podium.aot.roofline import roofline

V4 = parse_slice("v4-256")
LINK = V4.chip.link_bytes_per_sec


def network(where=V4) -> Network:
    """Devices in the order of their coordinates, slice after slice."""
    coords = list(itertools.product(*map(range, where.shape)))
    return Network(
        where, tuple((s, c) for s in range(where.num_slices) for c in coords)
    )


def collective(kind="all-gather", num_bytes=128e6, members=(), **kwargs) -> Collective:
    groups = Groups(tuple(map(tuple, members)), is_pairs=kwargs.pop("pairs", False))
    name = kwargs.pop("name", kind)
    return Collective(name, kind, num_bytes, groups, kwargs.pop("is_async", False))


def compute(secs: float, flops: float = 0.0, name="fusion") -> Compute:
    return Compute(name, round(secs * V4.chip.clock_hz), flops, 0)


def test_a_gather_over_the_whole_torus_uses_all_six_links():
    got = network().transfer(collective())
    assert got.secs == pytest.approx(128e6 * 127 / 128 / (6 * LINK))
    assert len(got.links) == 6


def test_two_of_the_six_directions_take_three_times_as_long():
    whole, part = (
        network().transfer(dataclasses.replace(collective(), rings=rings))
        for rings in (None, 2)
    )
    assert part.secs == pytest.approx(3 * whole.secs)


def test_an_all_reduce_sends_everything_twice():
    gather, reduce = (
        network().transfer(collective(kind)) for kind in ("all-gather", "all-reduce")
    )
    assert reduce.secs == pytest.approx(2 * gather.secs)


def test_a_group_along_one_dim_has_its_two_links_only():
    got = network().transfer(collective(members=[range(8)]))
    assert got.secs == pytest.approx(128e6 * 7 / 8 / (2 * LINK))
    assert {dim for dim, _ in got.links} == {2}


def test_without_wrap_around_there_is_one_link_less():
    flat = parse_slice("v4-64")  # 2x4x4: below a cube
    got = network(flat).transfer(collective(members=[range(4)]))
    assert got.secs == pytest.approx(128e6 * 3 / 4 / LINK)


def test_a_permute_to_the_neighbour_takes_one_hop_and_one_direction():
    ring = [(i, (i + 1) % 8) for i in range(8)]
    got = network().transfer(
        collective("collective-permute", 45e6, members=ring, pairs=True)
    )
    assert got.secs == pytest.approx(1e-3)
    assert got.links == {(2, 1)}


def test_across_slices_the_slower_network_decides():
    two = parse_slice("v4-256x2")
    got = network(two).transfer(collective("all-reduce", num_bytes=128e6))
    dcn = 2 * 128e6 / 128 / 2 / two.chip.dcn_bytes_per_sec
    ici = 2 * 128e6 * 255 / 256 / (6 * LINK)
    assert got.crosses_slices
    assert got.secs == pytest.approx(max(dcn, ici))


def test_a_synchronous_collective_stops_the_core():
    found = roofline(Program((compute(1e-3), collective())), network())
    secs = network().transfer(collective()).secs
    assert found.times.step_secs == pytest.approx(1e-3 + secs)
    assert found.times.sync_secs == pytest.approx(secs)


@pytest.mark.parametrize("small", [0.125, 4.0])
def test_a_synchronous_one_shares_the_links_with_what_is_on_its_way(small):
    large = collective(is_async=True)
    other = collective(num_bytes=small * 128e6, name="small")
    events = (Start("k", large), other, Done("k"))
    found = roofline(Program(events), network()).times
    secs = network().transfer(large).secs
    # Half the links each, until the smaller one is through; then the rest alone.
    assert found.sync_secs == pytest.approx(
        secs * (2 * small if small < 1 else small + 1)
    )
    assert found.step_secs == pytest.approx(secs * (1 + small))  # no byte is lost


@pytest.mark.parametrize(("overlap", "exposed"), [(1.0, 0.0), (0.25, 0.75)])
def test_an_asynchronous_one_costs_what_nothing_hides(overlap, exposed):
    c = collective(is_async=True)
    secs = network().transfer(c).secs
    events = (Start("k", c), compute(overlap * secs), Done("k"))
    found = roofline(Program(events), network())
    assert found.times.exposed_secs == pytest.approx(exposed * secs, abs=1e-8)
    assert found.collectives[0].exposed_secs == pytest.approx(exposed * secs, abs=1e-8)


def test_two_transfers_share_their_links_in_turn_and_others_go_beside():
    ring = [(i, (i + 1) % 8) for i in range(8)]
    back = [(b, a) for a, b in ring]
    one = collective("collective-permute", 45e6, ring, pairs=True, name="a")
    same = collective("collective-permute", 45e6, ring, pairs=True, name="b")
    other = collective("collective-permute", 45e6, back, pairs=True, name="c")

    def waits(second):
        events = (Start("a", one), Start("b", second), Done("a"), Done("b"))
        return roofline(Program(events), network()).times.exposed_secs

    assert waits(same) == pytest.approx(2e-3)
    assert waits(other) == pytest.approx(1e-3)


def test_a_loop_multiplies_its_steady_body():
    body = (compute(1e-3, flops=1e9), collective())
    once = roofline(Program(body), network())
    often = roofline(Program((Loop("w", 80, body),)), network())
    assert often.times.step_secs == pytest.approx(80 * once.times.step_secs)
    assert often.times.flops == pytest.approx(80e9)
    assert often.collectives[0].count == 80


def test_kernels_run_at_peak_and_unknown_ones_are_named():
    events = (Kernel("splash", 275e9, 0), Kernel("mine", None, 0))
    found = roofline(Program(events), network())
    assert found.times.kernel_secs == pytest.approx(1e-3)
    assert found.unknown_kernels == ["mine"]


def test_mfu_is_useful_work_over_what_the_peak_would_do():
    found = roofline(Program((compute(2.0),)), network())
    assert found.mfu(275e12, V4.chip) == pytest.approx(0.5)
    assert math.isfinite(found.mfu(0.0, V4.chip))


def test_offloaded_data_uses_the_host_link_and_is_hidden_by_compute():
    copy = HostCopy("q", int(V4.chip.host_bytes_per_sec * 1e-3), to_host=True)
    events = (Start("q", copy), compute(0.4e-3), Done("q"))
    found = roofline(Program(events), network())
    assert found.times.host_secs == pytest.approx(1e-3)
    assert found.times.exposed_secs == pytest.approx(0.6e-3, rel=1e-3)
