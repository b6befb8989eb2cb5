# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Text <-> token ids: bytes, a BPE of our own, or a Hugging Face tokenizer.json.

`encode` gives the ids of the text and nothing else: text that spells a special token
("<|endoftext|>") is encoded as ordinary text, so no document can end itself.
`encode_document` adds what a record has: bos (if the tokenizer has one) and eos.
"""

import abc
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from podium.errors import ConfigError, DataError
from podium.input.manifest import TokenizerInfo, load_manifest, token_dtype_for
from podium.storage import open_folder
from podium.tokenizer_name import BYTES_AND_EOS, check_name
from podium.tokenizer_words import WordEncoder, is_byte_level

TOKENIZER_FILE = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"

# Names that public models give the token that ends a document. Those that end a turn of
# a conversation (<|eot_id|>, <|im_end|>, <end_of_turn>) are not among them.
_EOS_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<EOS>", "[EOS]")


_LONG_CHARS = 1 << 20
_PROBE_CHARS = 256
_CUT = re.compile(r"(?<=\w\n)(?=\w)|(?<=\w)(?= \w)")
_PLAIN = {"add_special_tokens": False}


class Tokenizer(abc.ABC):
    """What every tokenizer does. `info` goes into the manifest."""

    info: TokenizerInfo

    @property
    def kind(self) -> str:
        """ "bytes", "bpe" or "huggingface"."""
        return self.info.kind

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return self.info.vocab_size

    @property
    def bos_id(self) -> int | None:
        """The token every document starts with, if the tokenizer has one."""
        return self.info.bos_id

    @property
    def eos_id(self) -> int:
        """The token every document ends with."""
        return self.info.eos_id

    @property
    def sha256(self) -> str:
        """Identity of the tokenizer, as in the manifest."""
        return self.info.sha256

    @property
    def dtype(self) -> np.dtype:
        """Of the ids in a record: little-endian uint16 or uint32."""
        return np.dtype(token_dtype_for(self.vocab_size)).newbyteorder("<")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without bos and eos."""
        return self.encode_batch([text])[0]

    def encode_document(self, text: str) -> list[int]:
        """Ids of `text` as a record holds them, with bos and eos."""
        bos = [] if self.bos_id is None else [self.bos_id]
        return [*bos, *self.encode(text), self.eos_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, without bos and eos."""
        return [np.frombuffer(raw, self.dtype).tolist() for raw in self.to_bytes(texts)]

    @abc.abstractmethod
    def encode_template(self, text: str) -> list[int]:
        """Ids of what a chat template writes: special tokens that it spells are such."""

    @abc.abstractmethod
    def to_bytes(self, texts: Sequence[str]) -> list[bytes]:
        """`encode_batch` as a record holds ids: little-endian, `dtype` wide."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens are left out."""

    @abc.abstractmethod
    def save(self, folder: str | os.PathLike) -> None:
        """Writes tokenizer.json into `folder`, byte for byte what `sha256` is of."""


class _BytesTokenizer(Tokenizer):
    """UTF-8 bytes are ids 0 to 255; eos is 256."""

    info = TokenizerInfo(
        kind="bytes",
        vocab_size=BYTES_AND_EOS,
        sha256=hashlib.sha256(b"bytes").hexdigest(),
        file=None,
        bos_id=None,
        eos_id=256,
    )

    def to_bytes(self, texts: Sequence[str]) -> list[bytes]:
        raw = [np.frombuffer(text.encode(), np.uint8) for text in texts]
        return [ids.astype(self.dtype).tobytes() for ids in raw]

    def encode_template(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def save(self, folder: str | os.PathLike) -> None:
        """A bytes tokenizer has no file."""


class _JsonTokenizer(Tokenizer):
    """A tokenizer.json run by the `tokenizers` library."""

    def __init__(self, text: bytes, info: TokenizerInfo, tok: tokenizers.Tokenizer):
        self.info = info
        self._text = text
        self._tokenizer = tok
        tok.no_truncation()  # files of chat models cut and pad by default
        tok.no_padding()
        tok.encode_special_tokens = True
        self._words = (
            WordEncoder(lambda word: self._pack(tok.encode(word, **_PLAIN).ids))
            if is_byte_level(json.loads(text))
            else None
        )

    def encode_template(self, text: str) -> list[int]:
        return template_tokenizer(self._text.decode()).encode(text, **_PLAIN).ids

    def to_bytes(self, texts: Sequence[str]) -> list[bytes]:
        if self._words:
            return [self._words(text) for text in texts]
        short = [text for text in texts if len(text) <= _LONG_CHARS]
        # The fast form leaves out character offsets, which nothing here needs.
        batch = iter(self._tokenizer.encode_batch_fast(short, **_PLAIN))
        return [
            self._pack(next(batch).ids)
            if len(text) <= _LONG_CHARS
            else b"".join(self._pack(self._ids(part)) for part in self._parts(text))
            for text in texts
        ]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode_batch_fast([text], **_PLAIN)[0].ids

    def _parts(self, text: str) -> Iterator[str]:
        """A long text in parts whose ids, one after the other, are those of the whole.

        The library takes some 125 bytes of memory for a byte of text. A cut is made
        where the text around it gives the same ids with and without it; a tokenizer
        for which that is nowhere so (one that marks the start of a text, say) gets the
        text whole.
        """
        start = 0
        while len(text) - start > _LONG_CHARS:
            places = _CUT.finditer(text, start + _LONG_CHARS)
            stop = next(
                (
                    match.start()
                    for match in itertools.islice(places, 16)
                    if self._is_cut_harmless(text, match.start())
                ),
                len(text),
            )
            yield text[start:stop]
            start = stop
        yield text[start:]

    def _is_cut_harmless(self, text: str, at: int) -> bool:
        start = max(0, at - _PROBE_CHARS)
        before, after = text[start:at], text[at : at + _PROBE_CHARS]
        return self._ids(before) + self._ids(after) == self._ids(before + after)

    def _pack(self, ids: list[int]) -> bytes:
        return np.array(ids, self.dtype).tobytes()

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def save(self, folder: str | os.PathLike) -> None:
        (pathlib.Path(folder) / TOKENIZER_FILE).write_bytes(self._text)


def template_tokenizer(text: str) -> tokenizers.Tokenizer:
    """A tokenizer.json for which text that spells a special token is that token."""
    tok = tokenizers.Tokenizer.from_str(text)
    tok.no_truncation()
    tok.no_padding()
    return tok


def bytes_tokenizer() -> Tokenizer:
    """One token a byte; vocabulary 257."""
    return _BytesTokenizer()


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, is_at_most: bool = False
) -> Tokenizer:
    """A byte-level BPE of `vocab_size` tokens, eos included, learned from `texts`.

    The pre-tokenizer is GPT-2's (Radford et al. 2019). The result depends only on how
    often each word occurs, not on the order of the texts. Raises ConfigError where the
    texts hold too little for so many tokens, unless fewer will do (`is_at_most`).
    """
    check_name(f"bpe:{vocab_size}", f"tokenizer bpe:{vocab_size}")
    tok = tokenizers.Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(_batches(texts), trainer)
    if tok.get_vocab_size() < vocab_size and not is_at_most:
        raise ConfigError(
            f"--tokenizer=bpe:{vocab_size}: the text gives only {tok.get_vocab_size()} "
            f"tokens; use bpe:{tok.get_vocab_size()} or less, or more text"
        )
    return _from_json(tok.to_str(pretty=True).encode(), "bpe", eos=END_OF_TEXT)


def huggingface_tokenizer(
    path: str | os.PathLike, eos: str | None = None, *, else_eos: str | None = None
) -> Tokenizer:
    """The tokenizer of a tokenizer.json, or of a folder that holds one.

    Args:
        path: file or folder.
        eos: the token that ends a document. None: the one the file's post-processor
            appends, else the only special token with a usual name, else the only
            special token; anything less clear is `else_eos`, or raises ConfigError.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / TOKENIZER_FILE
    try:
        text = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"tokenizer {str(path)!r}: {e.strerror}") from e
    try:
        return _from_json(text, "huggingface", eos=eos, where=str(path))
    except ConfigError:
        if eos is not None or else_eos is None:
            raise
    return _from_json(text, "huggingface", eos=else_eos, where=str(path))


def load_tokenizer(folder: str | os.PathLike) -> Tokenizer:
    """The tokenizer of the gold data in `folder`. Raises DataError."""
    return open_tokenizer(folder, load_manifest(folder).tokenizer)


def open_tokenizer(folder: str | os.PathLike, info: TokenizerInfo) -> Tokenizer:
    """The tokenizer that `info` describes, its file in `folder`.

    Raises DataError if the file is not the one `info` was made from.
    """
    if info.file is None:
        return _BytesTokenizer()
    path = f"{folder}/{info.file}"
    try:
        text = open_folder(folder).read(info.file)
    except OSError as e:
        raise DataError(f"{path}: cannot read the tokenizer: {e.strerror}") from e
    if hashlib.sha256(text).hexdigest() != info.sha256:
        raise DataError(f"{path}: not the tokenizer that the manifest names (SHA-256)")
    return _JsonTokenizer(text, info, _parse(text, path, DataError))


def _from_json(
    text: bytes,
    kind: Literal["bpe", "huggingface"],
    *,
    eos: str | None,
    where: str = "tokenizer",
) -> Tokenizer:
    tok = _parse(text, where, ConfigError)
    bos_id, eos_id = _borders(tok, eos, where)
    info = TokenizerInfo(
        kind=kind,
        vocab_size=max(tok.get_vocab(with_added_tokens=True).values()) + 1,
        sha256=hashlib.sha256(text).hexdigest(),
        file=TOKENIZER_FILE,
        bos_id=bos_id,
        eos_id=eos_id,
    )
    return _JsonTokenizer(text, info, tok)


def _parse(text: bytes, where: str, error: type[Exception]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text.decode())
    except Exception as e:  # the library raises bare Exception
        raise error(
            f"{where}: not a tokenizer.json of the tokenizers library: {e}"
        ) from e


def _borders(
    tok: tokenizers.Tokenizer, eos: str | None, where: str
) -> tuple[int | None, int]:
    """Ids of bos (None: no such token) and eos."""
    special = {
        t.content: i for i, t in tok.get_added_tokens_decoder().items() if t.special
    }
    with_borders = tok.encode("a").ids
    plain = tok.encode("a", **_PLAIN).ids
    extra = len(with_borders) - len(plain)
    before = next(
        (n for n in range(extra + 1) if with_borders[n : n + len(plain)] == plain), 0
    )
    if before > 1:
        raise ConfigError(
            f"{where}: starts texts with {before} tokens; expected 0 or 1"
        )
    bos_id = with_borders[0] if before else None
    if eos is not None:
        if (eos_id := tok.token_to_id(eos)) is None:
            raise ConfigError(
                f"{where}: no token {eos!r}; its special tokens: {', '.join(special)}"
            )
        return bos_id, eos_id
    if extra - before == 1:
        return bos_id, with_borders[-1]
    named = [special[name] for name in _EOS_NAMES if name in special]
    for found in (named, list(special.values())):
        if len(found) == 1:
            return bos_id, found[0]
    raise ConfigError(
        f"{where}: which token ends a document is not clear; say it with --eos=TOKEN. "
        f"Special tokens: {', '.join(itertools.islice(special, 20)) or 'none'}"
    )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts: the library works on one list on all cores at a time."""
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, 1000)):
        yield batch
