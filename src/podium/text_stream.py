# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""New tokens as text: shown as it comes, ended by texts that were asked for."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podium.tokenizer import Tokenizer


class Stops:
    """The texts that end what is generated."""

    def __init__(self, tokenizer: "Tokenizer", stops: Sequence[str]):
        self._tokenizer, self._stops = tokenizer, stops

    def are_in(self, tokens: list[int]) -> bool:
        """Whether one of them is in the text of these tokens."""
        return bool(self._stops) and self.cut(self._tokenizer.decode(tokens))[1]

    def up_to(self, tokens: list[int]) -> list[int]:
        """The first tokens whose text has one of them; all where there is none."""
        if not self.are_in(tokens):
            return tokens
        least = (n for n in range(1, len(tokens)) if self.are_in(tokens[:n]))
        return tokens[: next(least, len(tokens))]

    def cut(self, text: str) -> tuple[str, bool]:
        """The text up to the first of them, and whether there is one."""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return (text[: min(found)], True) if found else (text, False)

    def sure(self, text: str) -> str:
        """The text without an end that one of them may begin with."""
        parts = {stop[:n] for stop in self._stops for n in range(1, len(stop))}
        held = max((len(p) for p in parts if text.endswith(p)), default=0)
        return text[: len(text) - held]


class TextStream:
    """Tokens in, printable text out: a character split over tokens waits for its end."""

    def __init__(
        self,
        tokenizer: "Tokenizer",
        *,
        end_ids: Collection[int],
        stops: Sequence[str] = (),
    ):
        self._tokenizer, self._end_ids = tokenizer, end_ids
        self._stops = Stops(tokenizer, stops)
        self._tokens: list[int] = []
        self._shown = ""
        self.is_stopped = False  # by one of `stops`: nothing more is shown

    def add(self, token: int) -> str:
        """The text that this token completes, possibly empty."""
        if token not in self._end_ids:
            self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        # U+FFFD at the end: bytes of a character whose last ones are yet to come.
        return self._advance(text.rstrip("\ufffd"), is_last=False)

    def rest(self) -> str:
        """What was held back, at the end of the stream."""
        return self._advance(self._tokenizer.decode(self._tokens), is_last=True)

    def _advance(self, text: str, *, is_last: bool) -> str:
        text, self.is_stopped = self._stops.cut(text)
        if not (is_last or self.is_stopped):
            text = self._stops.sure(text)
        new, self._shown = text[len(self._shown) :], max(self._shown, text, key=len)
        return new
