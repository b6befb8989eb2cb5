# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A line of JSONL -> messages, or a pair of answers, or why it is none.

{"messages": [{"role": "user", "content": "…"}, …]}            as OpenAI writes them
{"conversations": [{"from": "human", "value": "…"}, …]}         as ShareGPT does
{"prompt": …, "chosen": …, "rejected": …}                       as TRL does, see `pair_of`
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from podium.chat_template import Message

_ROLES = ("system", "developer", "user", "assistant")
_FROM = {"system": "system", "human": "user", "user": "user"}
_FROM |= {"gpt": "assistant", "assistant": "assistant"}
_TOOL_KEYS = ("tools", "functions")
_CALL_KEYS = ("tool_calls", "function_call")


class RefusedError(Exception):
    """A line that cannot be used: the reason that is counted, and a detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Pair(NamedTuple):
    """A prompt and two answers, each as messages or as text."""

    prompt: list[Message] | str
    chosen: list[Message] | str
    rejected: list[Message] | str


def conversation_of(value: dict[str, Any]) -> list[Message]:
    """The messages of a line. Raises RefusedError."""
    _check_no_tools(value)
    for key in ("messages", "conversations"):
        if key in value:
            return _messages(value[key], key)
    if {"chosen", "rejected"} <= set(value):
        raise RefusedError(
            "no conversation", "a pair of answers; prepare it with --chat=preferences"
        )
    keys = ", ".join(map(repr, value)) or "none"
    raise RefusedError(
        "no conversation",
        f"no key 'messages' or 'conversations'; there are {keys}"[:200],
    )


def pair_of(value: dict[str, Any]) -> Pair:
    """The pair of a line, in the forms of TRL. Raises RefusedError.

    Messages: the prompt is `prompt` (or `messages`), else what both answers begin with.
    Texts: `prompt` is needed; no template is put around them.
    """
    _check_no_tools(value)
    for key in ("chosen", "rejected"):
        if key not in value:
            keys = ", ".join(map(repr, value)) or "none"
            raise RefusedError("no pair", f"no key {key!r}; there are {keys}"[:200])
    prompt = value.get("prompt", value.get("messages"))
    parts: list[Any] = [prompt, value["chosen"], value["rejected"]]
    if all(isinstance(part, str) for part in parts):
        return Pair(*parts)
    if any(isinstance(part, str) for part in parts):
        raise RefusedError(
            "no pair", "prompt, chosen and rejected are neither all texts nor messages"
        )
    chosen = _messages(value["chosen"], "chosen")
    rejected = _messages(value["rejected"], "rejected")
    if prompt is not None:
        return Pair(_messages(prompt, "prompt"), chosen, rejected)
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if not same:
        raise RefusedError("no pair", "no prompt, and chosen and rejected begin apart")
    return Pair(chosen[:same], chosen[same:], rejected[same:])


def _check_no_tools(value: dict[str, Any]) -> None:
    for key in _TOOL_KEYS:
        if value.get(key):
            raise RefusedError("tools", f"{key!r}: tools are not supported")


def _messages(value: Any, key: str) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        found = f"a {type(value).__name__}" if not isinstance(value, list) else "empty"
        raise RefusedError("no conversation", f"{key!r} is {found}; expected messages")
    return [_message(each, f"{key}[{i}]") for i, each in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        found = type(value).__name__
        raise RefusedError("no conversation", f"{where} is a {found}, no object")
    if "from" in value and "role" not in value:
        speaker = value["from"]
        if speaker not in _FROM:
            raise RefusedError(
                "bad role", f"{where}: from {speaker!r}; expected {', '.join(_FROM)}"
            )
        value = {"role": _FROM[speaker], "content": value.get("value")}
    for name in _CALL_KEYS:
        if value.get(name):
            raise RefusedError("tools", f"{where}: {name!r}: tools are not supported")
    role, content = value.get("role"), value.get("content")
    if role in ("tool", "function"):
        raise RefusedError("tools", f"{where}: role {role!r}: tools are not supported")
    if role not in _ROLES:
        raise RefusedError(
            "bad role", f"{where}: role {role!r}; expected {', '.join(_ROLES)}"
        )
    if not isinstance(content, str):
        raise RefusedError(
            "no conversation",
            f"{where}: content is a {type(content).__name__}; expected a text",
        )
    if value.get("weight", 1) not in (0, 1):
        raise RefusedError(
            "no conversation", f"{where}: weight {value['weight']!r}; expected 0 or 1"
        )
    try:
        content.encode()
    except UnicodeEncodeError:
        raise RefusedError("not UTF-8", f"{where}: half a surrogate pair") from None
    return value
