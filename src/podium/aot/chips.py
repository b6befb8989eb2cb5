# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""TPU generations and slices: the figures that a plan is made of. No jax here.

Sources, as numbered in the table:
 [1] Google's page of the generation, docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}.
     v5e: 197 Tflop/s, 819 GB/s, ICI 400 GB/s a chip in both directions together, 6.4 Tbps
     of DCN a pod. v5p: 459, 2765, ICI 1200, DCN 50 Gbps a chip. v6e: 918, 1638, ICI 800
 [2] "How to Scale Your Model", jax-ml.github.io/scaling-book/tpus: bandwidth of one link
     in one direction as measured, a little below the nominal one: [1]'s figure over
     links * 2, 50 GB/s on v5e and 100 on v5p and v6e
 [3] jax, `pallas/mosaic/tpu_info.py`: matrix units of a core; the clock follows from
     peak = units * side**2 * 2 * clock
 [4] the compiler itself, libtpu 0.0.42: "exceeds available HBM (30.75G)"
 [5] cloud.google.com/tpu/pricing, on demand, us regions, 2025; `--usd_per_chip_hour`
     says what you pay. They change, and no stored copy of the page confirmed them.
"""

import dataclasses
import math
import re

from podium.errors import ConfigError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation. Figures are per chip, except where a name says device."""

    name: str
    peak_flops: float  # bf16, per second
    twice_as_fast: tuple[str, ...]  # eight-bit numbers that double it [3]
    hbm_bytes: float  # what the compiler lets a program use
    hbm_bytes_per_sec: float
    link_bytes_per_sec: float  # of one ICI link, in one direction
    dcn_bytes_per_sec: float  # between slices, in one direction
    host_bytes_per_sec: float  # chip <-> host memory over PCIe, in one direction
    clock_hz: float
    torus_dims: int  # a chip has two links per dim
    counts_cores: bool  # v4-256 is 128 chips, v5e-256 is 256
    devices_per_chip: int  # 2: every TensorCore is a device of its own
    config_name: str  # of the chip config inside libtpu
    usd_per_chip_hour: float
    topologies: tuple[str, ...]  # the shapes that Google offers, smallest first

    @property
    def device_peak_flops(self) -> float:
        """Of one jax device."""
        return self.peak_flops / self.devices_per_chip

    @property
    def device_hbm_bytes(self) -> int:
        """Usable by the program of one jax device."""
        return round(self.hbm_bytes / self.devices_per_chip)


_SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_SHAPES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # [1]

CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            peak_flops=275e12,  # [1]
            twice_as_fast=(),
            hbm_bytes=30.75 * GIB,  # [4]
            hbm_bytes_per_sec=1.228e12,  # [1]
            link_bytes_per_sec=4.5e10,  # [2]
            dcn_bytes_per_sec=3.1e9,  # [2]: 200 Gbps NIC per host of 4 chips, halved
            host_bytes_per_sec=1.6e10,  # [2]: PCIe 3 x16
            clock_hz=1.05e9,  # [3]: 2 cores * 4 units of 128
            torus_dims=3,
            counts_cores=True,
            devices_per_chip=1,  # megacore
            config_name="megacore",
            usd_per_chip_hour=3.22,  # [5]
            topologies=(*_SHAPES_3D, "8x8x12", "8x8x16", "8x16x16", "16x16x16"),  # [1]
        ),
        Chip(
            name="v5e",
            peak_flops=197e12,  # [1]
            twice_as_fast=("int8",),
            hbm_bytes=15.75 * GIB,  # [4]
            hbm_bytes_per_sec=8.19e11,  # [1]
            link_bytes_per_sec=4.5e10,  # [2]
            dcn_bytes_per_sec=3.1e9,  # [1]: 6.4 Tbps per pod of 256
            host_bytes_per_sec=1.6e10,  # [2]
            clock_hz=1.5e9,  # [3]: 4 units of 128
            torus_dims=2,
            counts_cores=False,
            devices_per_chip=1,
            config_name="default",
            usd_per_chip_hour=1.20,  # [5]
            topologies=_SHAPES_2D,
        ),
        Chip(
            name="v5p",
            peak_flops=459e12,  # [1]
            twice_as_fast=("int8",),
            hbm_bytes=95.74 * GIB,  # [4]
            hbm_bytes_per_sec=2.765e12,  # [1]
            link_bytes_per_sec=9e10,  # [2]
            dcn_bytes_per_sec=6.25e9,  # [1]: 50 Gbps
            host_bytes_per_sec=1.6e10,  # [2]
            clock_hz=1.75e9,  # [3]: 2 cores * 4 units of 128
            torus_dims=3,
            counts_cores=True,
            devices_per_chip=1,  # megacore
            config_name="megacore",
            usd_per_chip_hour=4.20,  # [5]
            topologies=(  # [1]
                *_SHAPES_3D,
                "8x8x16",
                "8x16x16",
                "16x16x16",
                "16x16x24",
            ),
        ),
        Chip(
            name="v6e",
            peak_flops=918e12,  # [1]
            twice_as_fast=("int8",),
            hbm_bytes=31.25 * GIB,  # [4]
            hbm_bytes_per_sec=1.638e12,  # [1]
            link_bytes_per_sec=9e10,  # [2]
            dcn_bytes_per_sec=1.25e10,  # [1]: 25.6 Tbps per pod of 256
            host_bytes_per_sec=3.2e10,  # [2]
            clock_hz=1.75e9,  # [3]: 2 units of 256, each 2 rows a cycle
            torus_dims=2,
            counts_cores=False,
            devices_per_chip=1,
            config_name="default",
            usd_per_chip_hour=2.70,  # [5]
            topologies=_SHAPES_2D,
        ),
        Chip(
            name="tpu7x",
            peak_flops=2307e12,  # [1]
            twice_as_fast=("fp8",),
            hbm_bytes=2 * 94.75 * GIB,  # [4], per core
            hbm_bytes_per_sec=7.38e12,  # [1]
            link_bytes_per_sec=9e10,  # [2]
            dcn_bytes_per_sec=1.25e10,  # [1]: 100 Gbps
            host_bytes_per_sec=3.2e10,  # PCIe 5 x8, as v6e; not published
            clock_hz=2.2e9,  # [3]: 2 cores * 2 units of 256, each 2 rows a cycle
            torus_dims=3,
            counts_cores=True,
            devices_per_chip=2,
            config_name="default",
            usd_per_chip_hour=12.00,  # [5]
            topologies=(  # [1]
                *_SHAPES_3D,
                "8x8x16",
                "8x16x16",
                "16x16x16",
                "16x16x24",
            ),
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """What a name like v4-256x4 stands for."""

    name: str
    chip: Chip
    shape: tuple[int, ...]  # chips along each torus dim of one slice
    num_slices: int

    @property
    def chips_per_slice(self) -> int:
        """Chips that ICI connects."""
        return math.prod(self.shape)

    @property
    def num_chips(self) -> int:
        """Chips of all slices."""
        return self.chips_per_slice * self.num_slices

    @property
    def num_devices(self) -> int:
        """Jax devices of all slices."""
        return self.num_chips * self.chip.devices_per_chip

    @property
    def wrap(self) -> tuple[bool, bool, bool]:
        """Which dims close to a ring.

        3-D slices do once every dim is a multiple of 4: whole cubes behind optical
        switches. 2-D slices do where they span the whole pod's 16.
        """
        if self.chip.torus_dims == 3:
            closed = all(n % 4 == 0 for n in self.shape)
            return (closed, closed, closed)
        return (self.shape[0] == 16, self.shape[1] == 16, False)

    @property
    def host_bounds(self) -> tuple[int, int, int]:
        """Chips of one host along each dim."""
        x, y = (min(2, n) for n in self.shape[:2])
        return (x, y, 1)

    def topology(self) -> dict:
        """Arguments of `jax.experimental.topologies.get_topology_desc`.

        Without `wrap` the compiler believes in a mesh without its wrap-around links
        and turns all-gathers into synchronous all-reduces.
        """
        shape = "x".join(map(str, self.shape))
        slices = {"num_slices": self.num_slices} if self.num_slices > 1 else {}
        return {
            "platform": "tpu",
            "topology_name": f"{self.chip.name}:{shape}",
            "chip_config_name": self.chip.config_name,
            "chips_per_host_bounds": self.host_bounds,
            "wrap": self.wrap,
            **slices,
        }


def parse_slice(name: str) -> Slice:
    """`v4-256`, `v5e-256x4`; 3-D slices also by shape, `v5p-4x4x12` or, two of them,
    `v5p-4x4x12x2`. Raises ConfigError."""
    head = re.fullmatch(r"([a-z0-9]+)-(.+)", name.strip().lower())
    kind = {"v5litepod": "v5e", "v5lite": "v5e"}.get(head[1], head[1]) if head else ""
    if head is None or kind not in CHIPS:
        raise ConfigError(
            f"--topology={name}: unknown TPU; known are "
            f"{', '.join(f'{c}-N' for c in CHIPS)}, e.g. v4-256, or v5e-256x4 for four "
            f"slices{_meant(name)}"
        )
    chip = CHIPS[kind]
    shaped = re.fullmatch(r"(\d+x\d+x\d+)(?:x([1-9]\d*))?", head[2])
    if chip.torus_dims == 3 and shaped:
        return Slice(name, chip, _sides(name, shaped[1]), int(shaped[2] or 1))
    sized = re.fullmatch(r"(\d+)(?:x(\d+))?", head[2])
    sizes = {_size(chip, t): t for t in chip.topologies}
    many = re.fullmatch(r"(\d+)x(.*)", head[2])
    if many and int(many[1]) in sizes and not re.fullmatch(r"[1-9]\d*", many[2]):
        raise ConfigError(
            f"--topology={name}: x{many[2]} is no number of slices; expected one such as "
            f"{kind}-{many[1]}x4, or {kind}-{many[1]} for a single slice"
        )
    if sized is None or int(sized[1]) not in sizes:
        raise ConfigError(
            f"--topology={name}: {kind} has no such slice; "
            f"{'TensorCores' if chip.counts_cores else 'chips'} count. "
            f"Nearest: {', '.join(_nearest(chip, sizes, sized))}"
            + (", or three sides, as 4x4x12" if chip.torus_dims == 3 else "")
        )
    shape = tuple(int(n) for n in sizes[int(sized[1])].split("x"))
    return Slice(name, chip, shape, int(sized[2] or 1))


def _meant(name: str) -> str:
    """v5e8 lacks its dash."""
    found = re.fullmatch(rf"({'|'.join(CHIPS)}|v5litepod)(\d.*)", name.strip().lower())
    return f". Did you mean {found[1]}-{found[2]}?" if found else ""


def _sides(name: str, text: str) -> tuple[int, ...]:
    """Of a slice by shape: as many chips as cubes of 4 x 4 x 4 have, or less than one.

    cloud.google.com/tpu/docs/v4, "Topology variants": above a cube, multiples of 4.
    """
    sides = tuple(int(n) for n in text.split("x"))
    if any(n not in (1, 2) and (n < 4 or n % 4) for n in sides):
        raise ConfigError(
            f"--topology={name}: no such slice; each side is 1, 2 or a multiple of 4"
        )
    return sides


def _size(chip: Chip, topology: str) -> int:
    chips = math.prod(int(n) for n in topology.split("x"))
    return chips * (2 if chip.counts_cores else 1)


def _nearest(chip: Chip, sizes: dict[int, str], asked: re.Match | None) -> list[str]:
    wanted = int(asked[1]) if asked else max(sizes)
    below = [s for s in sizes if s < wanted][-2:]
    above = [s for s in sizes if s > wanted][:1]
    return [f"{chip.name}-{s} ({sizes[s]})" for s in sorted((*below, *above))] or [
        f"{chip.name}-{max(sizes)}"
    ]
