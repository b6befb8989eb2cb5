# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One shard's units -> TFRecords, index and rejects, for both splits at once.

Runs in a worker process. A part is finished when its .json is there, which is written
last; a run that was killed and started again skips the finished ones.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from podium.errors import DataError
from podium.input.manifest import SPLITS, TokenizerInfo
from podium.input.records import INDEX_DTYPE, encode_record
from podium.preparation.chat import ChatEncoder, ChatForm, TemplateMisfitError
from podium.preparation.conversations import RefusedError
from podium.preparation.readers import Item, line_number, read_unit
from podium.preparation.sources import Unit
from podium.tokenizer import TOKENIZER_FILE, Tokenizer, open_tokenizer

_BATCH_CHARS = 1 << 20  # of text tokenized at a time
_BATCH_TEXTS = 1024

# A folder may well hold pictures: they are listed, but they are nobody's mistake.
NOT_BAD = frozenset({"binary"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """All that a worker needs to know."""

    folder: str  # of the parts; holds tokenizer.json
    number: int
    units: Sequence[Unit]
    tokenizer: TokenizerInfo
    text_key: str
    max_document_bytes: int
    eval_below: int  # a document whose hash is lower is held out
    strict: bool
    chat: ChatForm | None = None  # lines of JSONL that are not texts

    def path(self, name: str) -> str:
        """Of one of the part's files."""
        return os.path.join(self.folder, f"part-{self.number:05d}.{name}")

    def finished(self) -> dict[str, Any] | None:
        """What `write_shard` returned in an earlier run, if its files are all there."""
        try:
            with open(self.path("json"), encoding="utf-8") as file:
                part = json.load(file)
            sizes = [
                os.path.getsize(self.path(f"{split}.tfrecord")) for split in SPLITS
            ]
        except (OSError, ValueError):
            return None
        wanted = [part["splits"][split]["bytes"] for split in SPLITS]
        same = sizes == wanted and part["eval_below"] == self.eval_below
        return part if same else None


class _Record(NamedTuple):
    """A text's ids, and what goes with them."""

    ids: bytes
    mask: bytes | None  # None: a text, that begins and ends as the tokenizer says
    hash: int


class Range(NamedTuple):
    """Records in a row that come from items in a row."""

    first_record: int
    num_records: int
    first_item: int  # within the unit
    unit: int  # within the shard


def document_hash(text: str) -> int:
    """64 bits of the document's content: equal texts always fall into one split."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def write_shard(task: ShardTask, report: Callable[[int], None]) -> dict[str, Any]:
    """Writes the part's files and returns its counts, as JSON values.

    Args:
        task: what to do.
        report: is told how many bytes of the units were dealt with since the last call.
    """
    tokenizer = _tokenizer(task.folder, task.tokenizer)
    chat = _chat_encoder(task)
    own = f".{os.getpid()}"  # a killed run's worker may still be at the same part
    splits = [_SplitWriter(task.path(f"{s}.tfrecord{own}"), tokenizer) for s in SPLITS]
    rejects: dict[str, int] = {}
    unit_items = [0] * len(task.units)
    hashes = [2**64, -1]  # lowest and highest
    text_bytes = 0
    with open(task.path("rejects" + own), "w", encoding="utf-8") as rejected:
        for batch in _batches(task):
            texts = []
            for unit, item in batch:
                unit_items[unit] = item.number + 1
                if item.text is not None:
                    texts.append((unit, item, item.text))
                elif item.reason:
                    _reject(task, unit, item, rejected, rejects)
            plain = [text for *_, text in texts]
            records: Iterable[_Record | RefusedError] = (
                _conversations(task, tokenizer, chat, texts)
                if chat
                else _texts(tokenizer, plain)
            )
            for (unit, item, text), record in zip(texts, records, strict=True):
                if isinstance(record, RefusedError):
                    why = item._replace(reason=record.reason, detail=record.detail)
                    _reject(task, unit, why, rejected, rejects)
                    continue
                hashes = [min(hashes[0], record.hash), max(hashes[1], record.hash)]
                splits[record.hash < task.eval_below].add(unit, item, record)
                text_bytes += len(text.encode())
            report(sum(item.read_bytes for _, item in batch))
    part = {
        "eval_below": task.eval_below,
        "splits": {
            name: split.close() for name, split in zip(SPLITS, splits, strict=True)
        },
        "rejects": rejects,
        "unit_items": unit_items,
        "lowest_hash": hashes[0],
        "highest_hash": hashes[1],
        "text_bytes": text_bytes,
    }
    report(0)  # raises if our parent is gone; another run may then own the folder
    for split in SPLITS:
        os.replace(task.path(f"{split}.tfrecord{own}"), task.path(f"{split}.tfrecord"))
        os.replace(task.path(f"{split}.tfrecord{own}.npy"), task.path(f"{split}.npy"))
    os.replace(task.path("rejects" + own), task.path("rejects"))
    with open(task.path("json" + own), "w", encoding="utf-8") as file:
        json.dump(part, file)
    os.replace(task.path("json" + own), task.path("json"))
    return part


def _texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[_Record]:
    for text, ids in zip(texts, tokenizer.to_bytes(texts), strict=True):
        yield _Record(ids, None, document_hash(text))


def _conversations(
    task: ShardTask,
    tokenizer: Tokenizer,
    chat: ChatEncoder,
    texts: Sequence[tuple[int, Item, str]],
) -> Iterator[_Record | RefusedError]:
    """Raises DataError where the template fits no line."""
    for unit, item, text in texts:
        try:
            found = chat.encode(json.loads(text), tokenizer.dtype)
            yield _Record(found.ids, found.mask, document_hash(found.key))
        except RefusedError as error:
            yield error
        except TemplateMisfitError as error:
            where = task.units[unit]
            line = line_number(where, item.number)
            raise DataError(f"{where.uri}: line {line}: {error}") from error


class _SplitWriter:
    """The records of one split of one shard, and their index."""

    def __init__(self, path: str, tokenizer: Tokenizer):
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._path = path
        self._sha256 = hashlib.sha256()
        width = tokenizer.dtype
        self._token_bytes = width.itemsize
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self._bos = np.array(bos, width).tobytes()
        self._eos = np.array([tokenizer.eos_id], width).tobytes()
        self._index: list[tuple[int, int, int]] = []
        self._sources: list[Range] = []
        self._bytes = self._documents = self._tokens = 0

    def add(self, unit: int, item: Item, record: _Record) -> None:
        payload = record.ids
        if record.mask is None:
            payload = b"".join((self._bos, payload, self._eos))
        frame, token_offset = encode_record(payload, record.mask)
        self._file.write(frame)
        self._sha256.update(frame)
        tokens = len(payload) // self._token_bytes
        self._index.append((self._bytes, self._bytes + token_offset, tokens))
        self._bytes += len(frame)
        self._tokens += tokens
        self._documents += item.starts_document
        last = self._sources[-1] if self._sources else Range(0, 0, 0, -1)
        if unit == last.unit and item.number == last.first_item + last.num_records:
            self._sources[-1] = last._replace(num_records=last.num_records + 1)
        else:
            number = len(self._index) - 1
            self._sources.append(Range(number, 1, item.number, unit))

    def close(self) -> dict[str, Any]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        index_sha256 = write_index(self._path + ".npy", self._index)
        return {
            "records": len(self._index),
            "documents": self._documents,
            "tokens": self._tokens,
            "bytes": self._bytes,
            "sha256": self._sha256.hexdigest(),
            "index_sha256": index_sha256,
            "sources": self._sources,
        }


def write_index(path: str, entries: Any) -> str:
    """Writes an index file; returns its SHA-256."""
    index = np.array(entries, INDEX_DTYPE)
    with open(path, "w+b") as file:
        np.lib.format.write_array(file, index, version=(1, 0))
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(task: ShardTask) -> Iterator[list[tuple[int, Item]]]:
    """Items of all units with the unit they are from, about 1 MiB of text at a time."""
    batch: list[tuple[int, Item]] = []
    chars = 0
    for number, unit in enumerate(task.units):
        key = None if task.chat else task.text_key
        for item in read_unit(
            unit, text_key=key, max_document_bytes=task.max_document_bytes
        ):
            batch.append((number, item))
            chars += len(item.text or "")
            if chars >= _BATCH_CHARS or len(batch) >= _BATCH_TEXTS:
                yield batch
                batch, chars = [], 0
    if batch:
        yield batch


def _reject(
    task: ShardTask, unit: int, item: Item, file: Any, counts: dict[str, int]
) -> None:
    counts[item.reason] = counts.get(item.reason, 0) + 1
    row = [unit, item.number, item.reason, item.detail]
    file.write(json.dumps(row) + "\n")
    if task.strict and item.reason not in NOT_BAD:
        detail = f" ({item.detail})" if item.detail else ""
        where = f"item {item.number}"
        if task.chat and task.units[unit].kind.startswith("jsonl"):
            where = f"line {line_number(task.units[unit], item.number)}"
        raise DataError(
            f"{task.units[unit].uri}: {where}: {item.reason}{detail}; "
            "repair it, or leave out --strict to skip what cannot be used"
        )


def _chat_encoder(task: ShardTask) -> ChatEncoder | None:
    if task.chat is None:
        return None
    path, info = os.path.join(task.folder, TOKENIZER_FILE), task.tokenizer
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return ChatEncoder(task.chat, text, bos_id=info.bos_id, eos_id=info.eos_id)


_open_tokenizers: dict[str, Tokenizer] = {}


def _tokenizer(folder: str, info: TokenizerInfo) -> Tokenizer:
    """One tokenizer a process, so that the words it knows serve every shard."""
    if info.sha256 not in _open_tokenizers:
        _open_tokenizers[info.sha256] = open_tokenizer(folder, info)
    return _open_tokenizers[info.sha256]
