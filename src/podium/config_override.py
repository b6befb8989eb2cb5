# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`--config.a.b=text`: one setting of a config tree replaced, by its type.

Not `ml_collections.config_flags`: that cannot write None, switch an optional part on
or off, or change a part's kind, and its errors do not name the dotted key.
"""

import ast
import dataclasses
import types
import typing
from typing import Any

from podium.config_dict import (
    in_words,
    options,
    part_of_kind,
    parts_of,
    shown,
    to_json_dict,
    type_name,
    unknown_key,
)
from podium.errors import ConfigError


def override_all(cls: type, tree: dict[str, Any], overrides: dict[str, str]) -> None:
    """Sets every `key -> text`; kinds first, since a new kind begins at its defaults."""

    def rank(key: str) -> tuple[int, int]:
        return (0, key.count(".")) if key.endswith(".kind") else (1, 0)

    for key in sorted(overrides, key=rank):
        override(cls, tree, key, overrides[key])


def override(cls: type, tree: dict[str, Any], key: str, text: str) -> None:
    """Sets `key` ("a.b.c") of `tree`, the values of config dataclass `cls`, in place.

    Range and contradiction checks come later, in `from_config_dict`, when all
    overrides are in.
    """
    *parents, last = key.split(".")
    path, part, node, may_be_none = "", cls, tree, ""
    for name in parents:
        hint = _hint(cls, part, path + name)
        parts = parts_of(hint)
        may_be_none = path + name if types.NoneType in options(hint) else may_be_none
        if not parts:
            raise ConfigError(f"{path + name} is a single value: {key!r} means nothing")
        if node.get(name) is None:  # an optional part, switched on by its first setting
            node[name] = to_json_dict(parts[0]())
        if not isinstance(node[name], dict):  # in a config.json that was edited
            raise ConfigError(
                f"{path + name} is {shown(node[name])}; expected "
                f"{' or '.join(map(type_name, parts))}"
            )
        if last == "kind" and path + name == ".".join(parents) and len(parts) > 1:
            new = part_of_kind(parts, text, path + name)
            if new is not part_of_kind(parts, node[name].get("kind"), path + name):
                node[name] = to_json_dict(new())
            node[name]["kind"] = text
            return
        part = part_of_kind(parts, node[name].get("kind"), path + name)
        path, node = path + name + ".", node[name]
    hint = _hint(cls, part, key)
    if text == "None" and may_be_none and types.NoneType not in options(hint):
        raise ConfigError(
            f"{key} is None; expected {in_words(type_name(hint))}; to leave "
            f"{may_be_none} out, set --config.{may_be_none}=None"
        )
    node[last] = parse(hint, text, key)


def parse(hint: Any, text: str, key: str) -> Any:
    """The value that `text` spells for a type hint; a wrong type is left to the checks."""
    kinds = options(hint)
    if text == "None" and types.NoneType in kinds:
        return None
    if text == "None" and typing.get_origin(kinds[0]) is tuple:
        raise ConfigError(f"{key} is None; expected {type_name(hint)}, or () for none")
    if parts := parts_of(hint):
        raise ConfigError(
            f"{key} is a group of settings ({' or '.join(map(type_name, parts))}); "
            f"set one of them, e.g. --config.{key}.{dataclasses.fields(parts[0])[0].name}="
            f"{', or None to leave it out' if types.NoneType in kinds else ''}"
        )
    want = next(k for k in kinds if k is not types.NoneType)
    if typing.get_origin(want) is tuple:
        return _tuple(typing.get_args(want)[0], text)
    return _single(want, text)


def _single(want: Any, text: str) -> Any:
    if want is str or typing.get_origin(want) is typing.Literal:
        return text
    if want is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if want is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e6 steps
    return value


def _tuple(want: Any, text: str) -> Any:
    inner = text.strip().removeprefix("(").removesuffix(")")
    items = [item.strip().strip("'\"") for item in inner.split(",")]
    return tuple(_single(want, item) for item in items if item)


def _hint(root: Any, part: Any, key: str) -> Any:
    hints, name = typing.get_type_hints(part), key.rpartition(".")[2]
    if name not in hints:
        raise ConfigError(unknown_key(root, key))
    return hints[name]
