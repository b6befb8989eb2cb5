# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""python -m podium.data_ledger --workdir=D --step=N: the documents that step N saw."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from podium import cli, resume
from podium.skipped_batches import batch_of, load

EXAMPLE = """example:
  python -m podium.data_ledger --workdir=runs/quickstart --step=120
  python -m podium.data_ledger --workdir=runs/quickstart --step=120 --json | jq .[0]
"""


def main(argv: Sequence[str]) -> None:
    """Prints a table, or JSON with --json. Raises ConfigError or DataError."""
    parser = cli.Parser(
        prog="python -m podium.data_ledger",
        description="The documents, and their sources, in the batch of a training step.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--workdir", metavar="D", required=True, help="the run folder")
    parser.add_argument(
        "--step", required=True, type=int, help="as in metrics.jsonl: from 1"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list")
    args = parser.parse_args(argv)
    if args.step < 1:
        parser.error(f"--step is {args.step}; expected 1 or more, as in metrics.jsonl")
    cfg = resume.load_run(args.workdir)

    from podium.input.ledger import documents_of_step
    from podium.input.manifest import load_manifest

    resume.check_fingerprints(
        args.workdir,
        cfg.data.paths,
        [load_manifest(path).fingerprint for path in cfg.data.paths],
        advice="Put the first back: only it can say what the run saw.",
    )
    if args.step > (done := resume.last_step(args.workdir)):
        ends = f", and ends at {cfg.num_steps}" if args.step > cfg.num_steps else ""
        print(
            f"note: step {args.step} is not trained yet: the run is at step {done}{ends}; "
            f"this is what step {args.step} would see",
            file=sys.stderr,
        )

    entries = documents_of_step(
        cfg.data,
        seed=cfg.seed,
        global_batch_seqs=cfg.global_batch_seqs,
        # The order counts from 0, and a rewind leaves batches out.
        step=batch_of(load(args.workdir), args.step),
    )
    rows = [dataclasses.asdict(entry) for entry in entries]
    if args.json:
        json.dump(rows, sys.stdout)
        print()
        return
    print(f"step {args.step}: {cfg.global_batch_seqs} rows, {len(rows)} documents")
    _print_table(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Each column as wide as its longest cell: a path is never cut, but on a narrow
    terminal wraps, and is copied in one piece."""
    lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    cli.run(main)
