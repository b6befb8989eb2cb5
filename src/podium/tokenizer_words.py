# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE over words that were seen before: a dictionary, not a merge loop.

GPT-2's pre-tokenizer cuts text into words that are encoded one by one, and text repeats
its words, so nearly all of them are in a dictionary after the first megabyte. Cutting
with Python's `re` and looking up is several times as fast as the `tokenizers` library
(benchmarks/prepare.py), which encodes the words that are new.

`re` knows no Unicode categories, so the pattern follows GPT-2's

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

(Radford et al. 2019, encoder.py) where a word and the character after it are ASCII, and
otherwise takes a longer piece, up to white space. Every cut is then one that GPT-2
makes too, and the library cuts the longer pieces further.
"""

import itertools
import re
from collections.abc import Callable

_SPACE = r" \t\n\v\f\r"
_WIDE_SPACE = r"\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_THEN_ASCII = r"(?![^\x00-\x7f])"
_OTHER_ASCII = r"[^a-zA-Z0-9\x80-\U0010ffff" + _SPACE + "]"
_WORD = re.compile(
    "|".join(
        (
            r" ?[a-zA-Z]++" + _THEN_ASCII,
            r" ?[0-9]++" + _THEN_ASCII,
            r"'(?:[stmd]|re|ve|ll)",
            f" ?{_OTHER_ASCII}++" + _THEN_ASCII,
            # White space with a wide one in it: with the word behind it, uncut.
            f"[{_SPACE}]*+[{_WIDE_SPACE}][{_SPACE}{_WIDE_SPACE}]*"
            f"[^{_SPACE}{_WIDE_SPACE}]*",
            f"[{_SPACE}]+(?![^{_SPACE}])",
            f" ?[^{_SPACE}{_WIDE_SPACE}]+",
            f"[{_SPACE}]",
        )
    )
)

_MAX_WORDS = 1_000_000  # about 150 MB; then the dictionary starts over
_MAX_WORD_CHARS = 64  # longer ones hardly ever come again
_CHUNK_CHARS = 1 << 20  # bounds the list of words of a long document


def is_byte_level(tokenizer_json: dict) -> bool:
    """Whether a tokenizer.json cuts words as GPT-2 does, and changes text in no way."""
    pre = tokenizer_json.get("pre_tokenizer") or {}
    return (
        pre.get("type") == "ByteLevel"
        and not pre.get("add_prefix_space")
        and pre.get("use_regex", True)
        and tokenizer_json.get("normalizer") is None
        and tokenizer_json.get("model", {}).get("type") == "BPE"
        and not tokenizer_json["model"].get("dropout")
        # Tokens that are added but not special are cut out of the text first.
        and all(t.get("special") for t in tokenizer_json.get("added_tokens", ()))
    )


class WordEncoder:
    """Encodes text by its words; the ids are those of the whole text.

    Args:
        encode: ids of a word as bytes, by the library.
    """

    def __init__(self, encode: Callable[[str], bytes]):
        self._words = _Words(encode)

    def __call__(self, text: str) -> bytes:
        """Ids of `text` as bytes."""
        ids_of = self._words.__getitem__
        if len(text) <= _CHUNK_CHARS:
            return b"".join(map(ids_of, _WORD.findall(text)))
        matches = (m.group() for m in _WORD.finditer(text))
        chunks = iter(lambda: list(itertools.islice(matches, _CHUNK_CHARS)), [])
        return b"".join(b"".join(map(ids_of, chunk)) for chunk in chunks)


class _Words(dict[str, bytes]):
    """Word -> ids; one that is missing is encoded, and kept if it is short."""

    def __init__(self, encode: Callable[[str], bytes]):
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        ids = self._encode(word)
        if len(word) <= _MAX_WORD_CHARS:
            if len(self) >= _MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids
