# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The roofline of any TPU program from its text, of another project's step for instance.

python -m profiling.read_hlo step.hlo --topology=v4-256 --params=101.9e9 --tokens=6144
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence

from podium import cli
from podium.aot.chips import Slice, parse_slice
from podium.aot.hlo import read
from podium.aot.network import Network
from podium.aot.roofline import roofline
from podium.errors import ConfigError

_EXAMPLE = """example:
  python -m profiling.plan --config=F --topology=v4-256 --hlo=ours.hlo
  python -m profiling.read_hlo ours.hlo --topology=v4-256 --params=101.9e9 --tokens=6144

FILE is `compiled.as_text()`. Its device numbers are taken to run row by row over the
torus, as jax numbers a mesh that lies along it; that decides which links a group has.
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.read_hlo",
        description="Reads a scheduled HLO and prints its roofline.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--topology", required=True, help="the slice, e.g. v4-256")
    parser.add_argument("--params", type=float, help="for the MFU: 6 * params * tokens")
    parser.add_argument("--tokens", type=float, help="tokens of a step on a device")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    where = parse_slice(args.topology)
    try:
        program = read(pathlib.Path(args.file).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{args.file}: {error}") from None
    found = roofline(program, row_by_row(where))
    result = {
        **dataclasses.asdict(found.times),
        "step_secs": found.times.step_secs,
        "step_secs_async_hidden": found.times.hidden_step_secs,
        "matmul_peak_fraction": found.times.matmul_flops
        / where.chip.device_peak_flops
        / (found.times.matmul_secs or 1.0),
        "unknown_kernels": found.unknown_kernels,
    }
    if args.params and args.tokens:
        useful = 6.0 * args.params * args.tokens
        result["mfu_bound_6nd"] = found.mfu(useful, where.chip)
        result["mfu_bound_6nd_async_hidden"] = found.mfu(
            useful, where.chip, async_is_hidden=True
        )
    if args.json:
        result["collectives"] = [dataclasses.asdict(r) for r in found.collectives]
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            print(
                f"{key:28}{value:.6g}"
                if isinstance(value, float)
                else f"{key:28}{value}"
            )
    return 0


def row_by_row(where: Slice) -> Network:
    """Devices in the order of their coordinates, cores of a chip side by side."""
    coords = itertools.product(*map(range, where.shape))
    cores = range(where.chip.devices_per_chip)
    inside = [c for c, _ in itertools.product(coords, cores)]
    return Network(
        where, tuple((s, c) for s in range(where.num_slices) for c in inside)
    )


if __name__ == "__main__":
    cli.run(main)
