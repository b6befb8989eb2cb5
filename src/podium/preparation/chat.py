# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Conversations and pairs of answers -> token ids and the loss mask over them.

The whole text is tokenized once, special tokens as such, as `transformers` does it. A
token is scored if any character of it is the assistant's, so one that reaches across a
border is. The assistant's characters are those inside the template's {% generation %};
of a template without it, a turn is what the text gains by it after the prompt for it:

    text(messages[: i + 1])  beyond  text(messages[:i], add_generation_prompt)

which holds where either is the beginning of the whole text; anything else is an error.
White space behind the token that ends the turn is the template's own, and not scored.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from podium.chat_template import ChatTemplate, Message, Span, TemplateRefusalError
from podium.input.records import BEGINS_SECOND, SCORED
from podium.preparation.conversations import (
    Pair,
    RefusedError,
    conversation_of,
    pair_of,
)
from podium.tokenizer import template_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatForm:
    """What lines hold and which text becomes of them; pickles."""

    records: Literal["conversations", "preferences"]
    template: str | None  # None: preferences that are texts
    special_tokens: dict[str, str]
    max_tokens: int | None  # longer records are left out


class Encoded(NamedTuple):
    """A record, and the text by whose hash it is held out or not."""

    ids: bytes
    mask: bytes
    key: str


class TemplateMisfitError(Exception):
    """No line can be used until the template is another one."""


class ChatEncoder:
    """Lines -> records, with one tokenizer and one template."""

    def __init__(
        self, form: ChatForm, tokenizer_json: str, *, bos_id: int | None, eos_id: int
    ):
        """bos_id, eos_id: of texts without a template."""
        self._form, self._bos_id, self._eos_id = form, bos_id, eos_id
        self._tokenizer = template_tokenizer(tokenizer_json)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = tuple(t.content for t in added if t.special)
        eos = form.special_tokens.get("eos_token")
        if eos is not None and (found := self._tokenizer.token_to_id(eos)) is not None:
            self._eos_id = found
        self._template = (
            None
            if form.template is None
            else ChatTemplate(form.template, form.special_tokens)
        )

    def encode(self, value: dict[str, Any], dtype: np.dtype) -> Encoded:
        """A record of a line's object. Raises RefusedError, TemplateMisfitError."""
        if self._form.records == "preferences":
            ids, mask, key = self._pair(pair_of(value))
        else:
            messages = conversation_of(value)
            text, spans = self._spans(messages)
            ids, mask = self._scored(text, spans)
            key = text
        limit = self._form.max_tokens
        if limit is not None and len(ids) > limit:
            raise RefusedError("too long", f"{len(ids):,} tokens; --max_tokens={limit}")
        return Encoded(np.array(ids, dtype).tobytes(), mask.tobytes(), key)

    def _pair(self, pair: Pair) -> tuple[list[int], np.ndarray, str]:
        sides, key = [], ""
        for answer in (pair.chosen, pair.rejected):
            if isinstance(pair.prompt, str) and isinstance(answer, str):
                side = self._text(pair.prompt, answer)
                key = pair.prompt
            else:
                assert not isinstance(pair.prompt, str)
                assert not isinstance(answer, str)
                first = len(pair.prompt)
                text, spans = self._spans([*pair.prompt, *answer], first)
                side = self._scored(text, spans)
                key = text[: spans[0][0]]
            sides.append(side)
        (chosen, chosen_mask), (rejected, mask) = sides
        if chosen == rejected:
            raise RefusedError(
                "same answers", "chosen and rejected are the same tokens"
            )
        mask[0] = BEGINS_SECOND
        return chosen + rejected, np.concatenate([chosen_mask, mask]), key

    def _text(self, prompt: str, answer: str) -> tuple[list[int], np.ndarray]:
        """A prompt and an answer without a template, begun and ended as documents are."""
        text = prompt + answer
        ids, mask = self._scored(text, [(len(prompt), len(text))])
        if self._bos_id is not None and ids[0] != self._bos_id:
            ids, mask = [self._bos_id, *ids], np.insert(mask, 0, 0)
        if ids[-1] != self._eos_id:
            ids, mask = [*ids, self._eos_id], np.append(mask, np.uint8(SCORED))
        return ids, mask

    def _scored(self, text: str, spans: Sequence[Span]) -> tuple[list[int], np.ndarray]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        begin, end = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        mask = np.zeros(len(begin), np.uint8)
        for start, stop in spans:
            mask[(end > start) & (begin < stop)] = SCORED
        if not mask[1:].any():  # the first follows on nothing, so nobody predicts it
            raise RefusedError("no answer", "no token of it is the assistant's")
        return encoding.ids, mask

    def _spans(
        self, messages: Sequence[Message], first: int = 0
    ) -> tuple[str, list[Span]]:
        """The text of a conversation, and what of it the assistant says in the messages
        from `first` on. Raises RefusedError, TemplateMisfitError."""
        if self._template is None:
            raise TemplateMisfitError(
                "a line of messages, but there is no chat template beside the tokenizer"
            )
        for i, message in enumerate(messages):
            for token in self._special:
                if token in message["content"]:
                    raise RefusedError("special token", f"{token} in message {i}")
        turns = [
            i
            for i, message in enumerate(messages)
            if message["role"] == "assistant"
            and i >= first
            and message.get("weight", 1)
        ]
        if not turns:
            raise RefusedError("no answer", "no message of the assistant")
        plain = [{k: v for k, v in m.items() if k != "weight"} for m in messages]
        try:
            if self._template.has_generation:
                return self._tagged(plain, turns)
            return self._gained(plain, turns)
        except TemplateRefusalError as e:
            raise RefusedError("template refuses", str(e)) from e

    def _tagged(
        self, messages: Sequence[Message], turns: Sequence[int]
    ) -> tuple[str, list[Span]]:
        assert self._template
        text, spans = self._template.render_spans(messages)
        every = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if turns == every:
            return text, spans
        if len(spans) != len(every):
            raise TemplateMisfitError(
                f"the template has {len(spans)} stretches of {{% generation %}} for "
                f"{len(every)} turns of the assistant, so which belongs to which is open"
            )
        return text, [spans[every.index(i)] for i in turns]

    def _gained(
        self, messages: Sequence[Message], turns: Sequence[int]
    ) -> tuple[str, list[Span]]:
        assert self._template
        text, spans = self._template.render(messages), []
        for i in turns:
            before = self._template.render(messages[:i], add_generation_prompt=True)
            after = self._template.render(messages[: i + 1])
            if not (text.startswith(after) and after.startswith(before)):
                if not any(m["role"] == "user" for m in messages[:i]):
                    raise RefusedError(
                        "no question",
                        f"message {i} answers nothing, no user came before",
                    )
                raise TemplateMisfitError(
                    f"message {i}: the template writes earlier messages in another way "
                    "once there are more, so what the assistant said cannot be told; put "
                    "{% generation %} round its turns in the template"
                )
            stop, said = len(after), after.rstrip()
            if said.endswith(self._special) and len(said) > len(before):
                stop = len(said)
            spans.append((len(before), stop))
        return text, spans
