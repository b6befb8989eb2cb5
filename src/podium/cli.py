# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every command line shares: the config flags, one-line errors, exit codes.

Exit codes (docs/config.md): 2 for what the user can mend before work begins, 1 for what
failed on the way, 75 where the same command continues, 130 interrupted, 0 done.
No jax here: `--help` and a config typo are answered before anything heavy is imported.
"""

import argparse
import contextlib
import difflib
import errno
import importlib.util
import json
import linecache
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from podium.config import TrainConfig
from podium.config_dict import (
    describe,
    from_config_dict,
    mistake_in_file,
    to_json_dict,
    with_defaults,
)
from podium.config_override import override_all
from podium.errors import ConfigError, PodiumError
from podium.platforms import leave_out_absent_tpus

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL: the state is saved, the same command continues
EXIT_INTERRUPTED = 130  # 128 + SIGINT

_MOST_NAMES = 5  # in a message
_TABLE_COLUMNS = 120  # of a terminal; on a narrower one, the settings are a list


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    takes_settings = False  # --config.a.b=value, see `add_config`

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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Misspelt flags first: argparse would only say which one is then missing."""
        args = list(sys.argv[1:] if args is None else args)
        for arg, after in zip(args, [*args[1:], ""], strict=False):
            name, equals, _ = arg.partition("=")
            if arg == "--":
                break
            if not name.startswith("--") or name in self._option_string_actions:
                continue
            if not (self.takes_settings and name.startswith("--config.")):
                near = self._meant(name, arg[len(name) :])
                hint = f"; did you mean {near}?" if near else ""
                self.error(f"unknown argument {arg!r}{hint}")
            if not equals:
                value = "VALUE" if after.startswith("-") else after or "VALUE"
                self.error(f"{name} has no value; write {name}={value}")
        return super().parse_known_args(args, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """argparse says "invalid int value"."""
        numbers = {int: "a whole number", float: "a number"}
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if not isinstance(action.type, type) or action.type not in numbers:
                raise
            flag, expected = action.option_strings[-1], numbers[action.type]
            self.error(f"{flag} is {arg_string!r}; expected {expected}")

    def _meant(self, name: str, value: str) -> str | None:
        """The flags that a misspelt one may be; settings with its value."""
        if self.takes_settings:
            settings = {row[0] for row in describe(TrainConfig)}
            key = name.removeprefix("--")
            ends = [s for s in settings if s.rpartition(".")[2] == key]
            if found := [key] if key in settings else sorted(ends)[:_MOST_NAMES]:
                return " or ".join(f"--config.{setting}{value}" for setting in found)
        known = [flag for flag in self._option_string_actions if flag != "-h"]
        return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def add_config(parser: Parser) -> None:
    """Adds --config; the overrides are what argparse leaves over."""
    parser.takes_settings = True
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="Python file with get_config(), or the config.json of a run",
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
    args, overrides = parse_overrides(parser, argv)
    return args, load_config(args.config, overrides)


def parse_overrides(
    parser: Parser, argv: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """Parses a command line with `add_config`: the flags, and setting -> text."""
    args, rest = parser.parse_known_args(argv)
    if args.config_help:
        print_settings()
        parser.exit(0)
    overrides = {}
    for arg in rest:
        key, _, value = arg.partition("=")
        if not key.startswith("--config."):
            parser.error(f"unknown argument {arg!r}; settings are --config.a.b=value")
        overrides[key.removeprefix("--config.")] = value
    if not args.config:
        parser.error("--config is missing, e.g. --config=configs/quickstart.py")
    return args, overrides


def load_config(path: str, overrides: dict[str, str] | None = None) -> TrainConfig:
    """Reads a config file, applies `a.b -> text` overrides, checks the result."""
    tree = _read_config_file(path)
    override_all(TrainConfig, tree, overrides or {})
    return from_config_dict(TrainConfig, tree)


_last_of_all: list[Callable[[int], None]] = []


def call_at_end(last_of_all: Callable[[int], None]) -> None:
    """What `run` calls when all is said, with the exit code, in place of one before."""
    _last_of_all[:] = [last_of_all]


def run(
    main: Callable[[Sequence[str]], int | None],
    argv: Sequence[str] | None = None,
    *,
    can_continue: bool = False,
):
    """Calls a command's main and turns its outcome into an exit code.

    `can_continue`: after an interruption, the same command goes on where it was.
    """
    leave_out_absent_tpus()
    code = EXIT_FAILED
    try:
        with terminated_as_interrupted() if can_continue else contextlib.nullcontext():
            code = _outcome(main, sys.argv[1:] if argv is None else argv, can_continue)
    except Exception:
        with contextlib.suppress(OSError):  # the disk of the log may be full
            traceback.print_exc()
    for say in _last_of_all:
        say(code)
    sys.exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM, after which nobody answers a question."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM outside of training, whose loop has its own handler, ends as Ctrl-C does:
    a supervisor starts again what exits with 75, and asks nothing of 143."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _outcome(
    main: Callable[[Sequence[str]], int | None], argv: Sequence[str], can_continue: bool
) -> int:
    try:
        return main(argv) or 0
    except PodiumError as error:
        message = " ".join(str(error).split("\n"))
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        return EXIT_FAILED if error.is_met_at_work else EXIT_USAGE
    except BrokenPipeError:  # the reader, `| head` say, has seen enough
        sys.stderr.close()
        return EXIT_FAILED
    except KeyboardInterrupt:
        # Once more, by an impatient user or by `uv run`, would change the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if can_continue:  # set back by `terminated_as_interrupted`
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        how = "interrupted; the same command continues"
        print(how if can_continue else "interrupted", file=sys.stderr)
        return EXIT_RUN_AGAIN if can_continue else EXIT_INTERRUPTED
    except Exception as error:
        if (message := _machine_failure(error)) is None:
            raise
        print(message, file=sys.stderr)
        return EXIT_FAILED


def print_settings() -> None:
    """Every setting: a table, a list on a narrow terminal, tab-separated on none."""
    rows = describe(TrainConfig)
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    columns = shutil.get_terminal_size().columns
    if columns < _TABLE_COLUMNS:
        for key, kind, default, bounds, unit, meaning in rows:
            more = ", ".join(text for text in (bounds, unit) if text)
            print(f"{key}: {kind} = {default}{f'  ({more})' if more else ''}")
            for line in textwrap.wrap(meaning, columns - 4):
                print(f"    {line}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    # Key and meaning tell most: on a narrow screen the others fold first.
    widths = {"key": None, "type": 16, "default": 14, "range": 10, "unit": 7}
    for name, width in widths.items():
        table.add_column(name, overflow="fold", max_width=width, no_wrap=not width)
    table.add_column("meaning", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)  # a meaning may hold [PATH]


def _machine_failure(error: Exception) -> str | None:
    """One line on what a machine lacks, memory or a file; None for anything else."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        line = next((x for x in text.splitlines() if "RESOURCE_EXHAUSTED" in x), "")
        asked = line.partition("RESOURCE_EXHAUSTED: ")[2].rstrip(".")[:200]
        return (
            f"OutOfMemory: {asked or 'no memory left'}. Lower global_batch_seqs or "
            "data.seq_len, raise grad_accum_steps, set model.remat=full, or split over "
            "more devices (mesh.fsdp, mesh.tensor)"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"DiskFull: {error.strerror}{where}; make room and run the same again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{type(error).__name__}: {error.filename}: {error.strerror}"
    return None


def say(line: str) -> None:
    """A line for the user, beside what a command prints."""
    print(line, file=sys.stderr)


def _read_config_file(path: str) -> dict[str, Any]:
    """The settings of a config file as plain dicts, unchecked."""
    expected = "expected a Python file with get_config(), or the config.json of a run"
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        folder = file if file.is_dir() else file.parent
        raise ConfigError(
            f"config file {path!r} {what}; {expected}{_near(folder, file)}"
        )
    if file.suffix == ".json":
        try:
            tree = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(tree, dict) or "model" not in tree:
            raise ConfigError(f"{path} holds no settings; {expected}")
        return with_defaults(TrainConfig, tree)
    if file.suffix != ".py":
        raise ConfigError(f"{path} is no config file; {expected}")
    found = run_config_file(path, "get_config", "configs/base.py")
    if isinstance(found, TrainConfig):
        return to_json_dict(found)
    if not hasattr(found, "to_dict"):
        raise ConfigError(
            f"{path}: get_config() returned {type(found).__name__}; expected a "
            "TrainConfig, or a ConfigDict made of one"
        )
    return found.to_dict()


def run_config_file(path: str, function: str, example: str) -> Any:
    """What a function of a Python file returns. Raises ConfigError, naming the line."""
    if not Path(path).is_file():
        raise ConfigError(
            f"{path} does not exist; expected a Python file with {function}(), as "
            f"{example} is"
        )
    spec = importlib.util.spec_from_file_location("podium_config_file", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise ConfigError(f"has no {function}(); see {example} for one")
        return getattr(module, function)()
    except Exception as error:
        where = _line_in(path, error)
        linecache.checkcache(path)
        message = mistake_in_file(TrainConfig, error, linecache.getline(path, where))
        if message is None:
            text = error.msg if isinstance(error, SyntaxError) else str(error)
            message = " ".join(text.split())
            if len(message) > 300:
                message = message[:300] + " …"
            if not isinstance(error, ConfigError):
                message = f"{type(error).__name__}: {message}"
        place = f"{path}:{where}" if where else path
        raise ConfigError(f"{place}: {message}") from error


def _near(folder: Path, file: Path) -> str:
    """The config files of a folder, those of a similar name first."""
    names = sorted(p.name for p in folder.glob("*.py"))
    near = difflib.get_close_matches(file.name, names, n=_MOST_NAMES)
    names = [*near, *(name for name in names if name not in near)]
    more = " …" if len(names) > _MOST_NAMES else ""
    shown = ", ".join(str(folder / name) for name in names[:_MOST_NAMES])
    return f". There: {shown}{more}" if names else ""


def _line_in(path: str, error: Exception) -> int:
    """The line of a config file that an error comes from, or 0."""
    if isinstance(error, SyntaxError) and (error.filename or "").endswith(path):
        return error.lineno or 0
    line = 0
    frame = error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename.endswith(path):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
