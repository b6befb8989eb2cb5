# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every command line shares: the config flags, one-line errors, exit codes.

Exit codes: 0 done, 1 failed, 2 the user's mistake, 75 stopped early (run me again).
No jax here: `--help` and a config typo are answered before anything heavy is imported.
"""

import argparse
import importlib.util
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from podium.config import TrainConfig
from podium.config_dict import describe, from_config_dict
from podium.config_override import override
from podium.errors import ConfigError, PodiumError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL: the state is saved, the same command continues


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def __init__(self, **kwargs: Any):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with 2."""
        self.exit(
            EXIT_USAGE, f"{self.prog}: error: {message} (--help shows an example)\n"
        )


def add_config(parser: Parser) -> None:
    """Adds --config; the overrides are what argparse leaves over."""
    parser.add_argument(
        "--config", metavar="FILE", help="config file with get_config()"
    )
    parser.add_argument(
        "--config.help",
        dest="config_help",
        action="store_true",
        help="list every setting: type, default, unit, meaning",
    )


def parse(
    parser: Parser, argv: Sequence[str]
) -> tuple[argparse.Namespace, TrainConfig]:
    """Parses a command line with `add_config` and returns the checked config."""
    args, rest = parser.parse_known_args(argv)
    if args.config_help:
        print_settings()
        parser.exit(0)
    overrides = {}
    for arg in rest:
        key, equals, value = arg.partition("=")
        if not key.startswith("--config.") or not equals:
            parser.error(f"unknown argument {arg!r}; settings are --config.a.b=value")
        overrides[key.removeprefix("--config.")] = value
    if not args.config:
        parser.error("--config is missing, e.g. --config=configs/quickstart.py")
    return args, load_config(args.config, overrides)


def load_config(path: str, overrides: dict[str, str] | None = None) -> TrainConfig:
    """Runs a config file, applies `a.b -> text` overrides, checks the result."""
    tree = _run_config_file(path).to_dict()
    for key, text in (overrides or {}).items():
        override(TrainConfig, tree, key, text)
    return from_config_dict(TrainConfig, tree)


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None):
    """Calls a command's main and turns its outcome into an exit code."""
    try:
        sys.exit(main(sys.argv[1:] if argv is None else argv) or 0)
    except PodiumError as error:
        message = " ".join(str(error).split("\n"))
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:  # the reader, `| head` say, has seen enough
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def print_settings() -> None:
    """Every setting as a table, or as tab-separated lines when not on a terminal."""
    rows = describe(TrainConfig)
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "type", "default", "unit", "meaning", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _run_config_file(path: str) -> Any:
    if not Path(path).is_file():
        near = sorted(str(p) for p in Path(path).parent.glob("*.py"))
        found = f" There: {', '.join(near)}" if near else ""
        raise ConfigError(f"config file {path!r} does not exist.{found}")
    spec = importlib.util.spec_from_file_location("podium_config_file", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return typing.cast(Any, module).get_config()
    except ConfigError:
        raise
    except Exception as error:
        line = _line_in(path, error)
        message = " ".join(str(error).split())
        raise ConfigError(f"{path}{line}: {type(error).__name__}: {message}") from error


def _line_in(path: str, error: Exception) -> str:
    where = ""
    frame = error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename.endswith(path):
            where = f":{frame.tb_lineno}"
        frame = frame.tb_next
    return where
