# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""python -m podium.data_ledger --workdir=D --step=N: the documents that step N saw."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from podium import cli
from podium.config import TrainConfig
from podium.config_dict import from_json_dict
from podium.errors import ConfigError

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
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--step", required=True, type=int, help="from 0")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    args = parser.parse_args(argv)
    if args.step < 0:
        parser.error(f"--step is {args.step}; expected 0 or more")
    cfg = load_run_config(Path(args.workdir))

    from podium.input.ledger import documents_of_step

    entries = documents_of_step(
        cfg.data,
        seed=cfg.seed,
        global_batch_seqs=cfg.global_batch_seqs,
        step=args.step,
    )
    rows = [dataclasses.asdict(entry) for entry in entries]
    if args.json:
        json.dump(rows, sys.stdout)
        print()
        return
    from rich.console import Console
    from rich.table import Table

    title = f"step {args.step}: {cfg.global_batch_seqs} rows, {len(rows)} documents"
    table = Table(*rows[0], title=title, box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a pipe has no width to fit
    console.print(table)


def load_run_config(workdir: Path) -> TrainConfig:
    """The config of a run; data that the run prepared by itself lies in D/data."""
    path = workdir / "config.json"
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError as e:
        raise ConfigError(
            f"{path} does not exist; --workdir is the folder given to podium.train"
        ) from e
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    cfg = from_json_dict(TrainConfig, tree)
    if cfg.data.paths:
        return cfg
    data = dataclasses.replace(cfg.data, paths=(str(workdir / "data"),))
    return dataclasses.replace(cfg, data=data)


if __name__ == "__main__":
    cli.run(main)
