# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to the documents of a gold data set: any token span by its number.

The index beside each shard says where a document's tokens begin, so a row is read
straight out of the file without parsing a record. When a process first touches a
record, it reads the whole of it, verifies its checksums and its token ids, and
remembers the verdict. Files are read, never mapped: a mapped file that is cut short
kills the process that looks at it.
"""

import functools
import hashlib
import os

import numpy as np

from podium.errors import DataError
from podium.input.damage import Damage, raise_damage
from podium.input.files import open_files
from podium.input.manifest import Manifest, Shard, load_manifest
from podium.input.records import FOOTER_BYTES, frame_fault, parse_index
from podium.storage import Folder, open_folder

_UNREAD, _SOUND, _DAMAGED = range(3)


class Documents:
    """The documents of one split, numbered 0.. in the order of shards and records.

    Holds 33 bytes of memory a document. Safe to use from several threads.

    Attributes:
        manifest: of the folder.
        tokens: [n] int64, tokens in each document.
        first_token: [n + 1] int64, tokens in all documents before.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        self.folder, self.split = open_folder(folder), split
        self.manifest: Manifest = load_manifest(folder)
        self.shards = self.manifest.splits[split]
        self._dtype = np.dtype(self.manifest.token_dtype).newbyteorder("<")
        self.token_bytes = self._dtype.itemsize
        self._vocab_size = self.manifest.tokenizer.vocab_size
        indexes = [read_index(self.folder, self.manifest, s) for s in self.shards]
        counts = [len(index) for index in indexes]
        self._first_document = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        if not self._first_document[-1]:
            raise DataError(
                f"{self.folder}: the {split} split holds no documents; prepare the data "
                "with a larger or another share held out"
            )
        self._offset = np.concatenate([i["offset"] for i in indexes]).astype(np.int64)
        self._payload = np.concatenate([i["payload"] for i in indexes]).astype(np.int64)
        self.tokens = np.concatenate([i["tokens"] for i in indexes]).astype(np.int64)
        self.first_token = np.concatenate([[0], np.cumsum(self.tokens)])
        self._state = np.full(len(self.tokens), _UNREAD, np.uint8)
        self._faults: dict[int, str] = {}
        names = [shard.file for shard in self.shards]
        self._files = open_files(self.folder, names)
        self._map = self._files.map

    def __len__(self) -> int:
        return len(self.tokens)

    def locate(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard, record in the shard) of each document."""
        shard = np.searchsorted(self._first_document, documents, side="right") - 1
        return shard, documents - self._first_document[shard]

    def copy(
        self,
        out: memoryview,
        at: np.ndarray,
        document: np.ndarray,
        start: np.ndarray,
        length: np.ndarray,
    ) -> list[int]:
        """out[at[i]:][:length[i]] = tokens start[i].. of document[i], for every i.

        `out` is a flat memoryview of bytes; `at`, `start` and `length` count tokens of
        `manifest.token_dtype`. Returns the i whose documents are damaged: their tokens
        in `out` are 0. A document is damaged as a whole, whatever part is asked for.
        """
        shard = np.searchsorted(self._first_document, document, side="right") - 1
        size = self.token_bytes
        source = self._payload[document] + start * size
        at, length = at * size, length * size
        spans = (document, self._state[document], shard, source, at, at + length)
        columns = [s.tolist() for s in spans]
        sound = self._map(functools.partial(self._copy_span, out), *columns)
        return [i for i, is_sound in enumerate(sound) if not is_sound]

    def _copy_span(
        self, out: memoryview, d: int, state: int, file: int, a: int, b: int, c: int
    ) -> bool:
        """out[b:c] = bytes from a on of a file; 0s, and False, if d is damaged."""
        if state == _SOUND:
            # Reading lets other threads run while the disk works.
            try:
                if self._files.read_into(file, out[b:c], a) == c - b:
                    return True
                fault = "the file was cut short while it was read"
            except OSError as e:
                fault = f"cannot be read: {e.strerror}"
            self._condemn(d, fault)
        elif state == _UNREAD and (frame := self._first_read(d, file)):
            a -= int(self._offset[d])
            out[b:c] = frame[a : a + c - b]
            return True
        out[b:c] = bytes(c - b)
        return False

    def damage(self, document: int) -> Damage:
        """What is wrong with a document that `copy` found damaged."""
        (shard,), (record,) = self.locate(np.array([document]))
        file = f"{self.folder}/{self.shards[shard].file}"
        byte, fault = int(self._offset[document]), self._faults[document]
        return Damage(file, int(record), byte, fault)

    def read_range(self, first: int, stop: int) -> np.ndarray:
        """All tokens of documents first..stop-1 on end, in the stored type.

        Raises DataError at a damaged one.
        """
        base = self.first_token[first]
        out = np.empty(int(self.first_token[stop] - base), self.manifest.token_dtype)
        documents = np.arange(first, stop)
        length = self.tokens[first:stop]
        at = self.first_token[first:stop] - base
        start = np.zeros_like(length)
        damaged = self.copy(out.view(np.uint8).data, at, documents, start, length)
        raise_damage([self.damage(first + i) for i in damaged])
        return out

    def _first_read(self, document: int, shard: int) -> bytes | None:
        """The whole frame of a record, found sound; None if it is damaged."""
        offset = int(self._offset[document])
        tokens, payload = int(self.tokens[document]), int(self._payload[document])
        num_bytes = payload + tokens * self.token_bytes + FOOTER_BYTES - offset
        try:
            frame = self._files.read(shard, num_bytes, offset)
        except OSError as e:
            return self._condemn(document, f"cannot be read: {e.strerror}")
        if fault := frame_fault(frame, num_bytes):
            return self._condemn(document, fault)
        # Every id, also those that this step does not ask for: a verdict that hung on
        # what was read first would make a resumed run another one.
        ids = np.frombuffer(frame, self._dtype, tokens, payload - offset)
        highest = np.maximum.reduce(ids)  # what ids.max() calls, by a detour
        if highest >= self._vocab_size:
            beyond = f"beyond the vocabulary of {self._vocab_size}"
            return self._condemn(document, f"token id {highest} is {beyond}")
        self._state[document] = _SOUND
        return frame

    def _condemn(self, document: int, fault: str) -> None:
        self._faults[document] = fault
        self._state[document] = _DAMAGED  # last: who sees it finds the fault


def read_index(folder: Folder, manifest: Manifest, shard: Shard) -> np.ndarray:
    """The index of a shard, [records] of INDEX_DTYPE; it is the one that was written.

    Its entries lie in the file, without gaps. Raises DataError.
    """
    path = f"{folder}/{shard.index}"
    try:
        raw = folder.read(shard.index)
    except OSError as e:
        raise DataError(f"{path}: cannot read the index: {e.strerror}") from e
    index = parse_index(
        raw,
        path,
        token_bytes=np.dtype(manifest.token_dtype).itemsize,
        records=shard.records,
        file_bytes=shard.bytes,
    )
    num_tokens = int(index["tokens"].sum(dtype=np.int64))
    if num_tokens != shard.tokens:
        raise DataError(
            f"{path}: {num_tokens} tokens, the manifest says {shard.tokens}; copy "
            "the folder again or prepare the data again"
        )
    if not index["tokens"].all():
        raise DataError(
            f"{path}: record {int(index['tokens'].argmin())} has no tokens; each "
            "must end in eos: write the data again"
        )
    actual = hashlib.sha256(raw).hexdigest()
    if actual != shard.index_sha256:  # last: what is wrong with it says more
        raise DataError(
            f"{path}: SHA-256 is {actual}, the manifest says {shard.index_sha256}; copy "
            "it again or prepare the data again"
        )
    return index
