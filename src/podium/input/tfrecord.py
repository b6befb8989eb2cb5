# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to the documents of a gold data set: any token span by its number.

The index beside each shard says where a document's tokens begin, so a row is read
straight out of the file without parsing a record. Nothing is used unverified: a record
is read whole, with its checksums; of a long one that was sound, later readings take the
blocks they need, whose checksums were kept. Files are read, never mapped: a mapped file
that is cut short kills the process that looks at it.
"""

import array
import functools
import hashlib
import os

import google_crc32c
import numpy as np

from podium.errors import DataError
from podium.input.damage import Damage, raise_damage
from podium.input.files import open_files
from podium.input.manifest import Manifest, Shard, load_manifest
from podium.input.records import (
    FOOTER_BYTES,
    HEADER_BYTES,
    frame_fault,
    mask_span,
    parse_index,
)
from podium.storage import Folder, open_folder

_UNREAD, _SOUND, _DAMAGED = range(3)
_BLOCK_BYTES = 1 << 14  # a record of no more is read whole each time


class Documents:
    """The documents of one split, numbered 0.. in the order of shards and records.

    Holds 33 bytes of memory a document, and of each long one that was read some 200, and
    4 a block. Safe to use from several threads.

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
        self._blocks: dict[int, array.array] = {}  # of long records: CRC-32C of each
        self.has_masks = self.manifest.chat is not None
        # Where in its frame a record's loss mask begins, from its first reading on.
        self._mask = np.zeros(len(self.tokens) if self.has_masks else 0, np.int64)
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
        masks: memoryview | None = None,
    ) -> list[int]:
        """out[at[i]:][:length[i]] = tokens start[i].. of document[i], for every i.

        `out` is a flat memoryview of bytes; `at`, `start` and `length` count tokens of
        `manifest.token_dtype`. Returns the i whose documents are damaged: their tokens
        in `out` are 0. A document is damaged as a whole, whatever part is asked for.
        `masks`, a byte a token, is filled like `out` where `has_masks`.
        """
        shard = np.searchsorted(self._first_document, document, side="right") - 1
        size = self.token_bytes
        source = self._payload[document] + start * size
        at, length = at * size, length * size
        begin = self._offset[document]
        stop = self._payload[document] + self.tokens[document] * size + FOOTER_BYTES
        # Vectors here: NumPy's scalars would take longer than the reading.
        spans = (document, self._state[document], shard, begin, stop - begin)
        columns = [s.tolist() for s in (*spans, source - begin, at, at + length)]
        if masks is None:
            copy = functools.partial(self._copy_span, out)
        else:
            copy = functools.partial(self._copy_span_and_mask, out, masks)
        sound = self._map(copy, *columns)
        return [i for i, is_sound in enumerate(sound) if not is_sound]

    def _copy_span(
        self,
        out: memoryview,
        d: int,
        state: int,
        file: int,
        offset: int,
        num_bytes: int,
        start: int,
        b: int,
        c: int,
    ) -> bool:
        """out[b:c] = bytes from `start` on of d's frame, which begins at `offset` of a
        file and has `num_bytes`; 0s, and False, if d is damaged."""
        if state != _DAMAGED:
            if d in self._blocks:
                found = self._from_blocks(d, file, offset, num_bytes, start, c - b)
            else:
                found = self._whole_frame(d, state, file, offset, num_bytes)
                found = found and found[start : start + c - b]
            if found:
                out[b:c] = found
                return True
        out[b:c] = bytes(c - b)
        return False

    def _copy_span_and_mask(
        self,
        out: memoryview,
        masks: memoryview,
        d: int,
        state: int,
        file: int,
        offset: int,
        num_bytes: int,
        start: int,
        b: int,
        c: int,
    ) -> bool:
        """`_copy_span`, and the same stretch of the record's loss mask."""
        size = self.token_bytes
        first = (start - int(self._payload[d]) + offset) // size  # token of d
        count, at = (c - b) // size, slice(b // size, c // size)
        if state != _DAMAGED:
            if d in self._blocks:
                of_file = (d, file, offset, num_bytes)
                found = self._from_blocks(*of_file, start, c - b)
                mask = self._from_blocks(*of_file, int(self._mask[d]) + first, count)
            else:
                frame = self._whole_frame(d, state, file, offset, num_bytes)
                begin = int(self._mask[d]) + first
                found = frame and frame[start : start + c - b]
                mask = frame and frame[begin : begin + count]
            if found and mask:
                out[b:c], masks[at] = found, mask
                return True
        out[b:c], masks[at] = bytes(c - b), bytes(count)
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

    def _whole_frame(
        self, document: int, state: int, file: int, offset: int, num_bytes: int
    ) -> bytes | None:
        """A record's frame, found sound; None if it is damaged."""
        frame = self._read(document, file, num_bytes, offset)
        if frame is None:
            return None
        if fault := frame_fault(frame, num_bytes):
            return self._condemn(document, fault)
        if state == _UNREAD:
            # Every id, also those that this step does not ask for: a verdict that hung
            # on what was read first would make a resumed run another one.
            payload = int(self._payload[document]) - offset
            ids = np.frombuffer(frame, self._dtype, int(self.tokens[document]), payload)
            highest = np.maximum.reduce(ids)  # what ids.max() calls, by a detour
            if highest >= self._vocab_size:
                beyond = f"beyond the vocabulary of {self._vocab_size}"
                return self._condemn(document, f"token id {highest} is {beyond}")
            if self.has_masks:
                data, tokens = (
                    frame[HEADER_BYTES:-FOOTER_BYTES],
                    int(self.tokens[document]),
                )
                try:
                    begin, _ = mask_span(data, tokens, "it")
                except DataError as e:
                    return self._condemn(document, str(e).removeprefix("it: "))
                self._mask[document] = HEADER_BYTES + begin
            self._state[document] = _SOUND
            if num_bytes > _BLOCK_BYTES:
                self._blocks[document] = _block_crcs(frame)
        return frame

    def _from_blocks(
        self,
        document: int,
        file: int,
        offset: int,
        num_bytes: int,
        start: int,
        length: int,
    ) -> bytes | None:
        """Bytes of a long record's frame, as they were when it was found sound."""
        first, last = start // _BLOCK_BYTES, (start + length - 1) // _BLOCK_BYTES
        begin, stop = first * _BLOCK_BYTES, min((last + 1) * _BLOCK_BYTES, num_bytes)
        data = self._read(document, file, stop - begin, offset + begin)
        if data is None:
            return None
        if _block_crcs(data) != self._blocks[document][first : last + 1]:
            what = f"its bytes {begin} to {stop} are not those that were read before"
            return self._condemn(document, what)
        return data[start - begin : start - begin + length]

    def _read(
        self, document: int, file: int, num_bytes: int, offset: int
    ) -> bytes | None:
        try:
            # Reading lets other threads run while the disk works.
            return self._files.read(file, num_bytes, offset)
        except OSError as e:
            return self._condemn(document, f"cannot be read: {e.strerror}")

    def _condemn(self, document: int, fault: str) -> None:
        self._faults[document] = fault
        self._state[document] = _DAMAGED  # last: who sees it finds the fault


def _block_crcs(data: bytes) -> array.array:
    starts = range(0, len(data), _BLOCK_BYTES)
    return array.array(
        "I", (google_crc32c.value(data[a : a + _BLOCK_BYTES]) for a in starts)
    )


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
        has_mask=manifest.chat is not None,
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
