# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model's chat template: messages -> the text that it was trained on.

Templates are written for `transformers` (apply_chat_template), in Jinja. They see what
it shows them: messages, add_generation_prompt, tools and documents (None here), the
special tokens by name; raise_exception, strftime_now, tojson, loop controls and the tag
{% generation %}. They are code of strangers and run in Jinja's sandbox.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from podium.errors import ConfigError

Message = Mapping[str, Any]  # role, content, and what else a template may know
Span = tuple[int, int]  # of characters: first, one behind the last

# What strftime_now says to data: the date that Llama 3's template falls back on. The
# same conversations give the same bytes on any day.
DATE_OF_DATA = datetime.datetime(2024, 7, 26)

# Around what {% generation %} holds. Unicode's noncharacters: no text has them.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"[{_OPEN}{_CLOSE}]")

_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_TOKENS_OF_FILES = tuple(f"{name}_token" for name in _TOKENS)
_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
_PRETRAINED = "pretrained"  # where an imported run folder keeps a model's files


class TemplateRefusalError(Exception):
    """The template cannot say these messages: its own words, one line."""


class ChatTemplate:
    """A template that is parsed. `sha256` is of its text and its special tokens."""

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str],
        *,
        where: str = "chat template",
        now: Callable[[], datetime.datetime] = lambda: DATE_OF_DATA,
    ):
        """special_tokens: as bos_token, eos_token. Raises ConfigError."""
        self.text, self.special_tokens = text, dict(special_tokens)
        stated = json.dumps([text, self.special_tokens], sort_keys=True)
        self.sha256 = hashlib.sha256(stated.encode()).hexdigest()
        self.has_generation = bool(re.search(r"\{%-?\s*generation\s*-?%\}", text))
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as e:
            raise ConfigError(f"{where}: line {e.lineno}: {e.message}") from e

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation, or of one that the assistant is to answer.

        Raises TemplateRefusalError.
        """
        return _MARK.sub("", self._render(messages, add_generation_prompt))

    def render_spans(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The text, and what of it stands inside {% generation %}."""
        spans, parts, at, begin = [], [], 0, 0
        marked = self._render(messages, False)
        for part in re.split(f"({_MARK.pattern})", marked):
            if part == _OPEN:
                begin = at
            elif part == _CLOSE:
                spans.append((begin, at))
            else:
                parts.append(part)
                at += len(part)
        return "".join(parts), spans

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        # What is null is absent: many templates would write "None".
        plain = [{k: v for k, v in m.items() if v is not None} for m in messages]
        if any(_MARK.search(str(value)) for m in plain for value in m.values()):
            raise TemplateRefusalError("a message holds U+FDD0 or U+FDD1, no character")
        try:
            return self._template.render(
                messages=plain,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except Exception as e:  # whatever its expressions raise
            line = str(e).strip().split("\n")[0] or type(e).__name__
            raise TemplateRefusalError(line) from e


def find_chat_template(
    tokenizer: str | Path, now: Callable[[], datetime.datetime] = lambda: DATE_OF_DATA
) -> ChatTemplate | None:
    """The template of the model whose tokenizer.json, or whose folder, is named.

    It lies beside the tokenizer, or in pretrained/ of an imported run folder. Raises
    ConfigError for one that is no template.
    """
    folder = _folder(tokenizer)
    for place in (folder, folder / _PRETRAINED):
        for name in _FILES:
            path = place / name
            if path.is_file() and (text := _read(path)):
                tokens = _special_tokens(folder / _PRETRAINED)
                tokens |= _special_tokens(folder)
                return ChatTemplate(text, tokens, where=str(path), now=now)
    return None


def no_template(tokenizer: str | Path) -> str:
    """What to say where `find_chat_template` finds none."""
    return (
        f"{_folder(tokenizer)} holds no chat template: no chat_template.jinja and no "
        f"chat_template in tokenizer_config.json, there or in {_PRETRAINED}/; name the "
        "tokenizer.json of a chat model, or put a chat_template.jinja beside yours"
    )


def _folder(tokenizer: str | Path) -> Path:
    path = Path(tokenizer)
    return path if path.is_dir() else path.parent


def _read(path: Path) -> str | None:
    if path.suffix == ".jinja":
        return _text(path)
    found = _tree(path).get("chat_template")
    if isinstance(found, list):  # several by name
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_tokens(folder: Path) -> dict[str, str]:
    trees = [
        _tree(folder / name)
        for name in ("special_tokens_map.json", "tokenizer_config.json")
    ]
    found = {}
    for name, value in ((k, v) for tree in trees for k, v in tree.items()):
        value = value.get("content") if isinstance(value, dict) else value
        if name in _TOKENS_OF_FILES and isinstance(value, str):
            found[name] = value
    return found


def _tree(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        tree = json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path} is no valid JSON: {e}") from e
    return tree if isinstance(tree, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from e


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call: Any = self.call_method("_marked")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}"


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
