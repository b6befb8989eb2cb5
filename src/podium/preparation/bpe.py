# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a preparation: named, read from a file, or learned from a sample.

The sample is the whole training split up to 1 KiB of text a token of vocabulary, at
most 64 MiB; beyond that, up to that much from all over the corpus. More text changes
the last few merges only. It depends on the inputs' order and contents, not on where
they lie.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

from podium.errors import DataError
from podium.input.manifest import TokenizerInfo
from podium.preparation.readers import read_unit
from podium.preparation.rejects import why_none
from podium.preparation.shard import document_hash
from podium.preparation.sources import Unit
from podium.tokenizer import TOKENIZER_FILE, train_bpe

_MAX_SAMPLE_CHARS = 64 << 20
_SAMPLE_CHARS_PER_TOKEN = 1024
_MIN_UNIT_CHARS = 1 << 20  # below this a sampled file is read whole
_INFO_FILE = "tokenizer-info.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BpeTask:
    """All that the worker that learns a tokenizer needs to know."""

    folder: str  # where tokenizer.json goes
    vocab_size: int
    is_at_most: bool = False  # a text that gives fewer tokens is no mistake
    units: Sequence[Unit]
    text_key: str
    max_document_bytes: int
    eval_below: int  # held-out documents teach the tokenizer nothing
    rejects_file: str  # written if there is no text

    def sample_chars(self) -> int:
        """Length of the sample."""
        wanted = self.vocab_size * _SAMPLE_CHARS_PER_TOKEN
        total = sum(unit.size_bytes for unit in self.units)
        return min(_MAX_SAMPLE_CHARS, wanted, total)


def load_or_train(task: BpeTask, report: Callable[[int], None]) -> TokenizerInfo:
    """Learns a BPE and saves it, unless an earlier run of the same recipe has."""
    info_path = pathlib.Path(task.folder, _INFO_FILE)
    if info_path.exists():
        return TokenizerInfo(**json.loads(info_path.read_bytes()))
    texts = list(sample(task, report)) or list(sample(task, report, held_out=True))
    if not texts:
        reasons = why_none(
            task.units,
            text_key=task.text_key,
            max_document_bytes=task.max_document_bytes,
            listed_in=task.rejects_file,
        )
        raise DataError(f"no usable text: {reasons}")
    tokenizer = train_bpe(texts, task.vocab_size, is_at_most=task.is_at_most)
    tokenizer.save(task.folder)
    own = info_path.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(dataclasses.asdict(tokenizer.info)))
    report(0)  # raises if our parent is gone
    own.replace(info_path)  # last: says that tokenizer.json is whole
    assert tokenizer.info.file == TOKENIZER_FILE
    return tokenizer.info


def sample(
    task: BpeTask, report: Callable[[int], None], *, held_out: bool = False
) -> Iterator[str]:
    """Texts to learn from; `held_out` takes held-out documents too."""
    units = [unit for unit in task.units if unit.size_bytes]
    left = limit = task.sample_chars()
    if sum(unit.size_bytes for unit in units) > limit:
        units = [units[i] for i in sorted(range(len(units)), key=_scatter)]
    per_unit = max(_MIN_UNIT_CHARS, -(-limit // max(1, len(units))))
    for unit in units:
        unit_left = min(left, per_unit)
        for item in read_unit(
            unit, text_key=task.text_key, max_document_bytes=task.max_document_bytes
        ):
            if unit_left <= 0:
                break
            if item.text is None:
                continue
            if not held_out and document_hash(item.text) < task.eval_below:
                continue
            text = item.text[:unit_left]
            unit_left -= len(text)
            left -= len(text)
            report(len(text))
            yield text
        if left <= 0:
            return


def _scatter(i: int) -> bytes:
    return hashlib.blake2b(str(i).encode(), digest_size=8).digest()
