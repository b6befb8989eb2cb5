# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""python -m podium.data_ledger --workdir=D --step=N: the documents that step N saw."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from podium import cli
from podium.resume import load_run

EXAMPLE = """example:
  python -m podium.data_ledger --workdir=runs/quickstart --step=120
  python -m podium.data_ledger --workdir=runs/quickstart --step=120 --json | jq .[0]
"""


_NUMBERS = ("row", "column", "start", "length", "record", "item")


def main(argv: Sequence[str]) -> None:
    """Prints a table, or JSON with --json. Raises ConfigError or DataError."""
    parser = cli.Parser(
        prog="python -m podium.data_ledger",
        description="The documents, and their sources, in the batch of a training step.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--step", required=True, type=int, help="as in metrics.jsonl: from 1"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list")
    args = parser.parse_args(argv)
    if args.step < 1:
        parser.error(f"--step is {args.step}; expected 1 or more, as in metrics.jsonl")
    cfg = load_run(args.workdir)
    if args.step > cfg.num_steps:
        print(
            f"note: the run ends at step {cfg.num_steps}; this is what step {args.step} "
            "would see",
            file=sys.stderr,
        )

    from podium.input.ledger import documents_of_step

    entries = documents_of_step(
        cfg.data,
        seed=cfg.seed,
        global_batch_seqs=cfg.global_batch_seqs,
        step=args.step - 1,  # the order counts from 0
    )
    rows = [dataclasses.asdict(entry) for entry in entries]
    if args.json:
        json.dump(rows, sys.stdout)
        print()
        return
    from rich.console import Console
    from rich.table import Table

    title = f"step {args.step}: {cfg.global_batch_seqs} rows, {len(rows)} documents"
    table = Table(title=title, box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name in _NUMBERS)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a pipe has no width to fit
    console.print(table)


if __name__ == "__main__":
    cli.run(main)
