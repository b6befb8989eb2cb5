# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's own train step for a slice that is not there, as the trainer compiles it.

maxtext_compare.py makes the environment and calls this:
  $ENVS/podium/bin/python benchmarks/peers/podium_aot.py OUT ROW VARIANT

Writes OUT.hlo.gz and OUT.json; ROW and VARIANT are those of maxtext_rows.py.
"""

import dataclasses
import sys
from pathlib import Path

import aot_result

aot_result.without_tpus()
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from benchmarks import maxtext_rows
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.trainer.compiler_options import compiler_options
from podium.trainer.setup import setup


def main() -> None:
    out, name, variant = sys.argv[1:]
    row = maxtext_rows.ROWS[name]
    where = parse_slice(row.topology)
    devices = aot.devices(where)
    parts = setup(row.podium[variant], devices)
    facts = {
        "packages": aot_result.versions("podium", "jax", "libtpu", "flax"),
        "places": aot_result.places(parts.mesh.devices.flat),
        "mesh": {k: v for k, v in parts.mesh.shape.items() if v > 1},
        "params": aot_result.count(parts.layout.shapes.params),
        "dtypes": aot_result.dtypes(parts.layout.abstract()),
    }
    options = compiler_options(parts.mesh)
    found = dataclasses.asdict(aot.compile_lowered(aot.lower(parts), where, options))
    aot_result.write(out, found.pop("hlo"), found, facts)


if __name__ == "__main__":
    main()
