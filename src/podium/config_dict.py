# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Dataclass <-> ml_collections.ConfigDict, with every mistake named by its dotted key.

Three gates stop a typo: the ConfigDict is locked, so a misspelt line in a config file
raises there; `ml_collections.config_flags` refuses an unknown `--config.a.b`; and
`from_config_dict` refuses unknown, missing, mistyped and out-of-range values. The
third is needed because a ConfigDict lets None replace anything.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from typing import Any

import ml_collections
from ml_collections import config_dict

from podium.errors import ConfigError

_MOST = 1 << 63  # no setting counts further, and no array of ours
_MOST_SHOWN = 80  # characters of a value in a message


def to_config_dict(cfg: Any) -> ml_collections.ConfigDict:
    """A locked ConfigDict with the values of a config dataclass."""
    out = ml_collections.ConfigDict()
    hints = typing.get_type_hints(type(cfg))
    for f in dataclasses.fields(cfg):
        value = getattr(cfg, f.name)
        if dataclasses.is_dataclass(value):
            out[f.name] = to_config_dict(value)
        elif value is None and (scalar := _optional_scalar(hints[f.name])):
            out[f.name] = config_dict.placeholder(scalar)  # keeps the type for the CLI
        else:
            out[f.name] = value
    return out.lock()


def from_config_dict(cls: type, cfg: Any, path: str = "") -> Any:
    """The dataclass `cls` with the values of `cfg`, each checked. Raises ConfigError."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in cfg:
        if key not in fields:
            raise ConfigError(unknown_key(cls, key, path))
    if missing := [path + name for name in fields if name not in cfg]:
        raise ConfigError(f"missing config keys {', '.join(missing)}")
    values = {
        name: _value(hints[name], cfg[name], path + name, f.metadata)
        for name, f in fields.items()
    }
    return cls(**values)


def unknown_key(cls: type, key: str, path: str = "") -> str:
    """The message for a dotted key that `cls`, at `path`, lacks: with the nearest one."""
    full = path + key
    rows = describe(cls, path)
    known = [row[0] for row in rows]
    if full in known:  # of another kind than the one that is set
        kinds = _kinds(cls, key.split("."))
        part = full.rpartition(".")[0]
        return f"unknown config key {full!r}: it goes with {part}.kind={kinds}"
    docs = {row[0]: row[-1] for row in rows}
    near = max(docs, key=lambda name: _likeness(full, name, docs[name]))
    parent = full.rpartition(".")[0]
    beside = [k for k in known if k.rpartition(".")[0] == parent]
    if _likeness(full, near, docs[near]) >= 0.6:
        text = f"unknown config key {full!r}. Did you mean {near!r}?"
        if parent and near not in beside and beside:  # as mesh.pipeline, for mesh.stage
            text += f" Beside it are {', '.join(beside)}"
        return text
    here = [k for k in beside or known if "." not in k or beside]
    return f"unknown config key {full!r}. Known here: {', '.join(here)}"


def mistake_in_file(cls: type, error: Exception, line: str) -> str | None:
    """What a line of a config file did wrong, said as the command line says it.

    None where it is no misspelt or mistyped setting. ml_collections knows the last
    part of a key only; the rest stands in the line.
    """
    text = str(error)
    wrong = re.search(r"Could not override field '(\w+)' \(reference\)\. (.*) is of "
                      r"original type <class '(\w+)'>", text, re.DOTALL)  # fmt: skip
    unknown = re.search(r"""Key "(\w+)" does not exist|^["']?\\?'(\w+)\\?'""", text)
    if wrong:
        name = wrong[1]
    elif unknown and isinstance(error, AttributeError | KeyError):
        name = unknown[1] or unknown[2]
    elif keyword := re.search(r"^(\w+)\.__init__\(\) got an unexpected keyword "
                              r"argument '(\w+)'", text):  # fmt: skip
        return unknown_key(cls, _path_of(cls, keyword[1]) + keyword[2])
    else:
        return None
    chain = re.search(rf"\b\w+\.((?:\w+\.)*{name})\b", line)
    key = chain[1] if chain else name
    if not wrong:
        return unknown_key(cls, key)
    hints = {row[0]: row[1] for row in describe(cls)}
    expected = f"; expected {in_words(hints[key])}" if key in hints else ""
    value = repr(wrong[2]) if wrong[3] == "str" else wrong[2]
    return f"{key} is {value[:60]} ({wrong[3]}){expected}"


def to_json_dict(cfg: Any) -> dict[str, Any]:
    """Plain dicts and lists, as written to config.json."""
    return typing.cast(dict, _plain(dataclasses.asdict(cfg)))


def from_json_dict(cls: type, tree: dict[str, Any]) -> Any:
    """Inverse of `to_json_dict`; what an earlier version did not know is its default."""
    return from_config_dict(cls, with_defaults(cls, tree))


def with_defaults(cls: type, tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`tree` and, for the fields of `cls` that it lacks, their defaults.

    A new field's default must mean what was done before there was one, so that runs
    saved then go on as they began.
    """
    out, hints = dict(tree), typing.get_type_hints(cls)
    for name, default in to_json_dict(cls()).items():
        if name not in out:
            out[name] = default
        elif isinstance(out[name], dict) and (parts := parts_of(hints[name])):
            part = part_of_kind(parts, out[name].get("kind"), path + name)
            out[name] = with_defaults(part, out[name], path + name + ".")
    return out


def describe(cls: type, path: str = "") -> list[tuple[str, str, str, str, str, str]]:
    """Rows of (dotted key, type, default, range, unit, doc) for every setting of `cls`."""
    rows = []
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint, name = hints[f.name], path + f.name
        default = (
            f.default_factory()
            if f.default_factory is not dataclasses.MISSING
            else f.default
        )
        parts = parts_of(hint)
        shown = type(default).__name__ if dataclasses.is_dataclass(default) else default
        doc, unit = f.metadata.get("doc", ""), f.metadata.get("unit", "")
        rows.append((name, type_name(hint), str(shown), _bounds(f.metadata), unit, doc))
        for part in parts:
            rows += describe(typing.cast(type, part), name + ".")
    return rows


def type_name(hint: Any) -> str:
    """A short name of a type hint, as a user reads it."""
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(type_name(t) for t in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"({type_name(typing.get_args(hint)[0])}, ...)"
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))


def options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def parts_of(hint: Any) -> list[Any]:
    """The config dataclasses among the members of a union."""
    return [t for t in options(hint) if dataclasses.is_dataclass(t)]


def part_of_kind(parts: list[Any], kind: Any, path: str) -> Any:
    """The one of several dataclasses whose `kind` this is. Raises ConfigError."""
    if len(parts) == 1:
        return parts[0]
    kinds = {k: p for p in parts for k in typing.get_type_hints(p)["kind"].__args__}
    if not isinstance(kind, str) or kind not in kinds:
        near = difflib.get_close_matches(str(kind), kinds, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{path}.kind is {shown(kind)}; expected one of "
            f"{', '.join(map(repr, kinds))}{hint}"
        )
    return kinds[kind]


def shown(value: Any) -> str:
    """A value as a message names it: cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, endless nesting
        return f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def _bounds(metadata: typing.Mapping) -> str:
    """A range in words: `0.0 to 1.0`, `from 1`, `above 0.0`, `from 0.0, below 1.0`."""
    low, high, above, below = map(metadata.get, ("low", "high", "above", "below"))
    if low is not None and high is not None:
        return f"{low} to {high}"
    words = {"above": above, "from": low, "below": below, "at most": high}
    return ", ".join(f"{word} {end}" for word, end in words.items() if end is not None)


def _none_means(metadata: typing.Mapping) -> str:
    """What the meaning of a setting says of None, in parentheses."""
    found = re.search(r"None: ([^;,]+)", metadata.get("doc", ""))
    return f" ({found[1]})" if found else ""


def _is_in_range(value: float, metadata: typing.Mapping) -> bool:
    low, high, above, below = map(metadata.get, ("low", "high", "above", "below"))
    return (
        (abs(value) < _MOST if isinstance(value, int) else math.isfinite(value))
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def in_words(type_text: str) -> str:
    """What a type name asks a user for."""
    words = {"bool": "true or false", "int": "a whole number", "float": "a number"}
    return " or ".join(words.get(word, word) for word in type_text.split(" or "))


def _likeness(typed: str, known: str, doc: str) -> float:
    """How likely it is that who typed one key meant the other: 1 is the same name.

    The last parts are compared, by letters or by whole words ("lr" is in "peak_lr");
    the same parents, and the words of the documentation, count a little.
    """
    *parents, name = typed.split(".")
    *others, leaf = known.split(".")
    ratio = difflib.SequenceMatcher(None, name, leaf).ratio()
    words, leaf_words = set(name.split("_")), set(leaf.split("_"))
    if words < leaf_words:
        ratio = max(ratio, 0.8 + 0.1 * len(words) / len(leaf_words))
    if name.replace("_", " ") in doc:
        ratio = max(ratio, 0.7)
    shared = sum(a == b for a, b in zip(parents, others, strict=False))
    near = shared / len(parents) if parents else 1 / (1 + len(others))
    return ratio + 0.2 * near if ratio >= 0.6 else ratio


def _path_of(cls: type, name: str, path: str = "") -> str:
    """Where in `cls` the part lies whose class has that name, with a dot behind it."""
    hints = typing.get_type_hints(cls)
    parts = [(key, part) for key in hints for part in parts_of(hints[key])]
    for key, part in parts:
        found = f"{path}{key}."
        if part.__name__ == name or (found := _path_of(part, name, found)):
            return found
    return ""


def _kinds(cls: type, key: list[str]) -> str:
    """The kinds of the part before a key's last name that have that name."""
    parts = [cls]
    for parent in key[:-1]:
        hints = [typing.get_type_hints(part) for part in parts]
        parts = [p for h in hints if parent in h for p in parts_of(h[parent])]
    return " or ".join(p.kind for p in parts if key[-1] in typing.get_type_hints(p))


def _optional_scalar(hint: Any) -> type | None:
    choices = [t for t in options(hint) if t is not types.NoneType]
    return choices[0] if choices[0] in (int, float, str) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _value(hint: Any, value: Any, path: str, metadata: typing.Mapping) -> Any:
    choices = options(hint)
    if value is None:
        if types.NoneType in choices:
            return None
        raise ConfigError(f"{path} is None; expected {in_words(type_name(hint))}")
    if parts := parts_of(hint):
        return _part(parts, value, path)
    want = next(t for t in choices if t is not types.NoneType)
    none = f", or None{_none_means(metadata)}" if types.NoneType in choices else ""
    value = _scalar(want, value, path, none)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not _is_in_range(value, metadata):
        expected = f"a number {_bounds(metadata)}".rstrip() + none
        raise ConfigError(f"{path} is {shown(value)}; expected {expected}")
    return value


def _part(parts: list[Any], value: Any, path: str) -> Any:
    """One of several dataclasses, told apart by their `kind`."""
    if not isinstance(value, typing.Mapping | ml_collections.ConfigDict):
        raise ConfigError(
            f"{path} is {shown(value)}; expected {' or '.join(map(type_name, parts))}"
        )
    kind = value["kind"] if "kind" in value else None  # noqa: SIM401 (ConfigDict)
    return from_config_dict(part_of_kind(parts, kind, path), value, path + ".")


def _scalar(want: Any, value: Any, path: str, none: str) -> Any:
    """`none` says in a message that None would do, or is empty."""
    if typing.get_origin(want) is typing.Literal:
        choices = typing.get_args(want)
        if value in choices:
            return value
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{path} is {shown(value)}; expected one of "
            f"{', '.join(map(repr, choices))}.{hint}"
        )
    if typing.get_origin(want) is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(
                f"{path} is {shown(value)}; expected a tuple such as ('a', 'b')"
            )
        inner = typing.get_args(want)[0]
        return tuple(_value(inner, v, f"{path}[{i}]", {}) for i, v in enumerate(value))
    if want is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < _MOST else value  # refused by its range
    if not isinstance(value, want) or (isinstance(value, bool) and want is not bool):
        raise ConfigError(
            f"{path} is {shown(value)} ({type(value).__name__}); expected "
            f"{in_words(type_name(want))}{none}"
        )
    return value
