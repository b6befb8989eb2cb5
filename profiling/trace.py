# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where did the time of the traced steps go?

python -m profiling.trace runs/quickstart

Reads the newest trace below a folder, of CPU or TPU devices; needs no accelerator.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium import cli

_EXAMPLE = """examples:
  python -m podium.train --config=F --workdir=runs/a --config.profile.steps=10:15
  python -m profiling.trace runs/a
  python -m profiling.trace runs/b --against=runs/a
  python -m profiling.trace runs/a/traces/plugins/profile/2026_11_27_09_20_12 --json

DIR is a run folder, a session's folder or a *.xplane.pb file; of a folder the newest
session is read, all of its hosts. The roofline goes to roofline.png beside the trace.
"""
_SHOWN = 15  # rows of a table; JSON has all


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.trace",
        description="Tells where the time of the traced steps went.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("path", metavar="DIR", type=Path)
    parser.add_argument(
        "--against", metavar="DIR", type=Path, help="a trace from before"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args: argparse.Namespace = parser.parse_args(argv)

    from profiling import roofline_plot, trace_advice, trace_compare
    from profiling.trace_read import read
    from profiling.trace_times import times

    trace = read(args.path)
    found = times(trace)
    before = times(read(args.against)) if args.against else None
    is_cpu = trace.devices[0].kind == "CPU"
    cfg = trace_advice.config_beside(trace.path)
    advice = trace_advice.advise(found, cfg, is_cpu=is_cpu)
    picture = roofline_plot.plot(trace, found, trace.path / "roofline.png")
    if args.json:
        result = as_json(trace, found)
        result["advice"] = {**dataclasses.asdict(advice), "line": advice.line}
        if before is not None:
            result["against"] = trace_compare.as_json(before, found)
        print(json.dumps(result, indent=2))
    else:
        from profiling import trace_tables

        trace_tables.show(trace, found, shown=_SHOWN)
        if before is not None:
            trace_tables.show_changes(before, found, shown=_SHOWN)
        print(f"\n{advice.sentence}\nTry {advice.line} ({advice.reason}).")
    if picture:
        cli.say(f"{picture}: written")
    else:
        cli.say("no roofline: the trace does not say what its operations compute")
    return 0


def as_json(trace: Any, found: Any) -> dict[str, Any]:
    """Plain data; seconds of a step on a device."""
    return {
        "trace": str(trace.path),
        "program": trace.program,
        "steps": trace.steps,
        "devices": [device.name for device in trace.devices],
        "device_kind": trace.devices[0].kind,
        "step_secs": found.step_secs,
        "slowest_step_over_mean": found.slowest,
        "secs": found.parts,
        "hidden_collective_secs": found.hidden_secs,
        "idle_while": found.idle_while,
        "layers": found.layers,
        "scopes": [
            {"scope": scope, "phase": phase, "secs": secs}
            for (scope, phase), secs in found.by("scope", "phase").items()
        ],
        "parts_of_source": [
            {"part": part, "phase": phase, "secs": secs}
            for (part, phase), secs in found.by("part", "phase").items()
        ],
        "to_device": dataclasses.asdict(found.to_device),
        "ops": [
            {
                "name": row.op.name,
                "kind": row.op.kind,
                "category": row.op.category,
                "scope": row.op.scope,
                "phase": row.op.phase,
                "part": row.op.part,
                "secs": row.secs,
                "busy_secs": row.busy_secs,
                "executions": row.executions,
                "flops": row.op.flops,
                "hbm_bytes": row.op.hbm_bytes,
            }
            for row in found.ops
        ],
    }


if __name__ == "__main__":
    cli.run(main)
