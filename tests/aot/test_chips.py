# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from podium.aot.chips import CHIPS, parse_slice
from podium.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "shape", "chips", "devices"),
    [
        ("v4-256", (4, 4, 8), 128, 128),
        ("v5p-256", (4, 4, 8), 128, 128),
        ("v5e-256", (16, 16), 256, 256),
        ("v6e-256", (16, 16), 256, 256),
        ("v5litepod-16", (4, 4), 16, 16),
        ("v4-8192", (16, 16, 16), 4096, 4096),
        ("v5p-12288", (16, 16, 24), 6144, 6144),
        ("tpu7x-128", (4, 4, 4), 64, 128),
        ("v5e-256x4", (16, 16), 1024, 1024),
        ("v5p-4x4x12", (4, 4, 12), 192, 192),
        ("v5p-4x4x12x2", (4, 4, 12), 384, 384),
        ("v5e-16x4", (4, 4), 64, 64),
    ],
)
def test_a_name_is_read_as_google_means_it(name, shape, chips, devices):
    s = parse_slice(name)
    assert (s.shape, s.num_chips, s.num_devices) == (shape, chips, devices)


def test_a_suffix_multiplies_slices_and_reaches_the_topology():
    s = parse_slice("v5e-256x4")
    assert (s.num_slices, s.chips_per_slice) == (4, 256)
    assert s.topology()["num_slices"] == 4
    assert "num_slices" not in parse_slice("v5e-256").topology()


def test_wrap_around_links_exist_on_whole_cubes_and_whole_pods_only():
    assert parse_slice("v4-256").wrap == (True, True, True)
    assert parse_slice("v4-64").wrap == (False, False, False)
    assert parse_slice("v5e-256").wrap == (True, True, False)
    assert parse_slice("v5e-128").wrap == (False, True, False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v9-256", "known are v4-N"),
        ("v4", "known are v4-N"),
        ("v4-100", "v4-64 (2x4x4), v4-128 (4x4x4)"),
        ("v5e-300", "v5e-256 (16x16)"),
        ("v5e-256x0", "expected one such as v5e-256x4, or v5e-256 for a single slice"),
        ("v5e-256x-1", "x-1 is no number of slices"),
        ("v5e8", "Did you mean v5e-8?"),
        ("v5p-4x4x13", "each side is 1, 2 or a multiple of 4"),
        ("v6e-3x5", "no such slice"),
        ("v4-2x3", "or three sides, as 4x4x12"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_exists(name, expected):
    with pytest.raises(ConfigError) as error:
        parse_slice(name)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_every_offered_size_reads_back_to_its_shape():
    for chip in CHIPS.values():
        for shape in chip.topologies:
            chips = 1
            for n in shape.split("x"):
                chips *= int(n)
            size = chips * (2 if chip.counts_cores else 1)
            assert parse_slice(f"{chip.name}-{size}").num_chips == chips


def test_the_clock_explains_the_peak():
    # Multiply-adds a cycle of all matrix units; [3] in the table.
    units = {"v4": 8, "v5e": 4, "v5p": 8, "v6e": 16, "tpu7x": 32 / 4 * 2}
    for name, count in units.items():
        chip = CHIPS[name]
        flops = count * 128 * 128 * 2 * chip.clock_hz
        if name in ("v4", "v5e", "v5p", "v6e"):
            assert flops == pytest.approx(chip.peak_flops, rel=0.01)
