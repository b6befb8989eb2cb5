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
import types
import typing
from typing import Any

import ml_collections
from ml_collections import config_dict

from podium.errors import ConfigError


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
            raise ConfigError(unknown_key(path, key, list(fields)))
    if missing := [path + name for name in fields if name not in cfg]:
        raise ConfigError(f"missing config keys {', '.join(missing)}")
    values = {
        name: _value(hints[name], cfg[name], path + name, f.metadata)
        for name, f in fields.items()
    }
    return cls(**values)


def unknown_key(path: str, key: str, known: list[str]) -> str:
    """The message for a key that is none of `known`, with the nearest one."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    fix = (
        f"Did you mean {path + near[0]!r}?"
        if near
        else f"Known here: {', '.join(known)}"
    )
    return f"unknown config key {path + key!r}. {fix}"


def to_json_dict(cfg: Any) -> dict[str, Any]:
    """Plain dicts and lists, as written to config.json."""
    return typing.cast(dict, _plain(dataclasses.asdict(cfg)))


def from_json_dict(cls: type, tree: dict[str, Any]) -> Any:
    """Inverse of `to_json_dict`."""
    return from_config_dict(cls, tree)


def describe(cls: type, path: str = "") -> list[tuple[str, str, str, str, str]]:
    """Rows of (dotted key, type, default, unit, doc) for every setting below `cls`."""
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
        rows.append((name, type_name(hint), str(shown), unit, doc))
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
    if kind not in kinds:
        near = difflib.get_close_matches(str(kind), kinds, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{path}.kind is {kind!r}; expected one of "
            f"{', '.join(map(repr, kinds))}{hint}"
        )
    return kinds[kind]


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
        raise ConfigError(f"{path} is None; expected {type_name(hint)}")
    if parts := parts_of(hint):
        return _part(parts, value, path)
    want = next(t for t in choices if t is not types.NoneType)
    value = _scalar(want, value, path)
    low, high = metadata.get("low"), metadata.get("high")
    if isinstance(value, int | float) and not isinstance(value, bool):
        too_low = low is not None and value < low
        too_high = high is not None and value > high
        if too_low or too_high or not math.isfinite(value):
            bounds = f"from {low}" if high is None else f"{low} to {high}"
            raise ConfigError(f"{path} is {value}; expected a number {bounds}")
    return value


def _part(parts: list[Any], value: Any, path: str) -> Any:
    """One of several dataclasses, told apart by their `kind`."""
    if not isinstance(value, typing.Mapping | ml_collections.ConfigDict):
        raise ConfigError(
            f"{path} is {value!r}; expected {' or '.join(map(type_name, parts))}"
        )
    kind = value["kind"] if "kind" in value else None  # noqa: SIM401 (ConfigDict)
    return from_config_dict(part_of_kind(parts, kind, path), value, path + ".")


def _scalar(want: Any, value: Any, path: str) -> Any:
    if typing.get_origin(want) is typing.Literal:
        choices = typing.get_args(want)
        if value in choices:
            return value
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{path} is {value!r}; expected one of {', '.join(map(repr, choices))}.{hint}"
        )
    if typing.get_origin(want) is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(
                f"{path} is {value!r}; expected a tuple such as ('a', 'b')"
            )
        inner = typing.get_args(want)[0]
        return tuple(_value(inner, v, f"{path}[{i}]", {}) for i, v in enumerate(value))
    if want is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, want) or (isinstance(value, bool) and want is not bool):
        raise ConfigError(
            f"{path} is {value!r} ({type(value).__name__}); expected {type_name(want)}"
        )
    return value
