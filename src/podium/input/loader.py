# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The batch of a step, read from disk: a pure function of (spec, step).

Everything is NumPy over all rows of a batch at once, except one copy per chunk.
"""

import threading

import numpy as np

from podium.errors import DataError
from podium.input.batch import PADDING, Batch
from podium.input.damage import SKIPS, Damage, raise_damage
from podium.input.manifest import has_pairs
from podium.input.order import Order, open_datasets
from podium.input.packing import Chunks
from podium.input.pairs import split_pairs
from podium.input.records import SCORED
from podium.input.spec import StreamInfo, StreamSpec

_ORDER_BLOCK_ROWS = 4096  # their order is computed at once: 0.2 us a row, not 20
_MOST_DAMAGED = 0.1  # of the chunks read: beyond, it is not single records that broke
_FEW_CHUNKS = 1000  # say nothing about a share
_NO_CHUNKS = Chunks(*[np.zeros(0, np.int64)] * len(Chunks._fields))


class Loader:
    """Reads the batches of one stream. Safe to use from several threads.

    Attributes:
        shape: (4, rows, T) of a batch, the fields of `Batch` in their order.
        stop_step: the first step that the stream does not have; None if endless.
    """

    def __init__(self, spec: StreamSpec):
        self.spec = spec
        self.datasets = open_datasets(spec.data, spec.split)
        self.order = Order(spec.data, self.datasets, spec.seed)
        self.shape = (len(Batch._fields), len(spec.rows), spec.data.seq_len)
        manifests = [d.documents.manifest for d in self.datasets]
        self._has_masks = any(d.documents.has_masks for d in self.datasets)
        self._has_pairs = any(map(has_pairs, manifests))
        self.stop_step = self._stop_step()
        self._block_steps = max(1, _ORDER_BLOCK_ROWS // len(spec.rows))
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None
        self._scratch = threading.local()
        self._damaged: dict[int, list[Damage]] = {}
        self._num_read = self._num_damaged = 0  # chunks; threads may lose a few counts

    def info(self) -> StreamInfo:
        """The size of the data."""
        num_tokens = sum(int(d.documents.first_token[-1]) for d in self.datasets)
        positions = self.order.num_rows * self.spec.data.seq_len
        return StreamInfo(
            num_rows=self.order.num_rows,
            num_tokens=num_tokens,
            padding_share=1 - num_tokens / positions,
            first_step=self.spec.first_step,
            stop_step=self.stop_step,
        )

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(data set, row in it) of each of this stream's rows at `step`."""
        number, at = divmod(step, self._block_steps)
        block = self._block
        if block is None or block[0] != number:
            steps = number * self._block_steps + np.arange(self._block_steps)
            slots = steps[:, None] * self.spec.global_batch_seqs + self.spec.rows
            order = self.order
            look_up = order.one_pass if self.spec.is_one_pass else order.epochs
            dataset, row = look_up(slots.reshape(-1))
            block = number, dataset.reshape(slots.shape), row.reshape(slots.shape)
            self._block = block
        return block[1][at], block[2][at]

    def chunks(self, step: int) -> tuple[np.ndarray, Chunks]:
        """(data set [C], chunks) of a step; `Chunks.row` counts this stream's rows."""
        dataset, row = self.rows(step)
        parts = []
        for k, (_, packing) in enumerate(self.datasets):
            mine = np.flatnonzero(dataset == k)
            if len(mine):
                chunks = packing.chunks(row[mine])
                parts.append(chunks._replace(row=mine[chunks.row]))
        merged = parts[0] if parts else _NO_CHUNKS
        if len(parts) > 1:
            merged = Chunks(*map(np.concatenate, zip(*parts, strict=True)))
            in_order = np.argsort(merged.row, kind="stable")
            merged = Chunks(*(field[in_order] for field in merged))
        return dataset[merged.row], merged

    def read(self, step: int, out: np.ndarray | None = None) -> np.ndarray:
        """The fields of `Batch` at `step`, int32 [4, rows, T], into `out` if given.

        A damaged record raises DataError, or under `data.on_damage=skip` leaves padding
        where its tokens would be: every other token stands where it stands without.
        """
        if out is None:
            out = np.empty(self.shape, np.int32)
        dataset, chunks = self.chunks(step)
        is_cut, damaged = self._read_tokens(dataset, chunks, out)
        _lay_out(chunks, is_cut, out, self._positions())
        if self._has_pairs:
            split_pairs(out, self._masks()[:, :-1])
        if damaged:
            self._leave_out(step, dataset, chunks, damaged, out)
        self._num_read += len(chunks.row)
        return out

    def take_damaged(self, step: int) -> list[Damage]:
        """The records that `read` left out of `step`, asked for once."""
        return self._damaged.pop(step, [])

    def batch(self, step: int) -> Batch:
        """The batch of `step` as NumPy arrays."""
        return Batch(*self.read(step))

    def _stop_step(self) -> int | None:
        spec = self.spec
        stops = []
        if spec.is_one_pass:
            stops.append(-(-self.order.num_rows // spec.global_batch_seqs))
        if spec.num_steps is not None:
            stops.append(spec.first_step + spec.num_steps)
        return min(stops, default=None)

    def _read_tokens(
        self, dataset: np.ndarray, chunks: Chunks, out: np.ndarray
    ) -> tuple[np.ndarray, list[int]]:
        """Fills tokens and targets.

        Returns which chunks stop inside their document, and the numbers of those whose
        document is damaged.
        """
        _, num_rows, seq_len = self.shape
        # One column more than a row has: the token after a cut, a target only.
        staged, flat = self._staging(num_rows, seq_len + 1)
        at = chunks.row * (seq_len + 1) + chunks.column
        is_cut = np.empty(len(at), bool)
        damaged: list[int] = []
        masks = self._masks() if self._has_masks else None
        if masks is not None:
            masks.fill(SCORED)  # of a text
        for k, (documents, _) in enumerate(self.datasets):
            mine = slice(None) if len(self.datasets) == 1 else dataset == k
            document, start = chunks.document[mine], chunks.start[mine]
            length = chunks.length[mine]
            is_cut[mine] = cut = start + length < documents.tokens[document]
            mask = None
            if masks is not None and documents.has_masks:
                mask = masks.reshape(-1).data
            found = documents.copy(flat, at[mine], document, start, length + cut, mask)
            if found:
                damaged += np.arange(len(at))[mine][found].tolist()
        out[0] = staged[:, :-1]
        out[1] = staged[:, 1:]
        if masks is not None:
            out[1][masks[:, 1:] != SCORED] = PADDING.targets
        return is_cut, damaged

    def _leave_out(
        self,
        step: int,
        dataset: np.ndarray,
        chunks: Chunks,
        damaged: list[int],
        out: np.ndarray,
    ) -> None:
        """Makes padding of the chunks numbered in `damaged`, or raises DataError."""
        records = {}
        for i in damaged:
            k, document = int(dataset[i]), int(chunks.document[i])
            records[k, document] = self.datasets[k].documents.damage(document)
            begin = int(chunks.column[i])
            span = int(chunks.row[i]), slice(begin, begin + int(chunks.length[i]))
            for field, padding in zip(out, PADDING, strict=True):
                field[span] = padding
        found = list(records.values())
        if self.spec.data.on_damage == "error":
            raise_damage(found, SKIPS)
        self._num_damaged += len(damaged)
        read = self._num_read + len(chunks.row)
        if read >= _FEW_CHUNKS and self._num_damaged > _MOST_DAMAGED * read:
            raise DataError(
                f"{found[0]}, and with it {self._num_damaged:,} of the {read:,} stretches "
                f"of documents read: more than {_MOST_DAMAGED:.0%} are not skipped; copy "
                "the data again"
            )
        self._damaged[step] = found

    def _staging(self, num_rows: int, width: int) -> tuple[np.ndarray, memoryview]:
        """This thread's buffer [rows, T + 1] in the stored token type, and its bytes."""
        if not hasattr(self._scratch, "staged"):
            dtype = self.datasets[0].documents.manifest.token_dtype
            self._scratch.staged = np.zeros((num_rows, width), dtype)
        staged = self._scratch.staged
        return staged, staged.reshape(-1).view(np.uint8).data

    def _masks(self) -> np.ndarray:
        """This thread's loss masks [rows, T + 1] uint8 of the tokens that it stages."""
        if not hasattr(self._scratch, "masks"):
            _, num_rows, seq_len = self.shape
            self._scratch.masks = np.zeros((num_rows, seq_len + 1), np.uint8)
        return self._scratch.masks

    def _positions(self) -> np.ndarray:
        """0, 1, 2.. over all positions of the batch."""
        if not hasattr(self._scratch, "positions"):
            _, num_rows, seq_len = self.shape
            self._scratch.positions = np.arange(num_rows * seq_len, dtype=np.int32)
        return self._scratch.positions


def _lay_out(
    chunks: Chunks, is_cut: np.ndarray, out: np.ndarray, positions: np.ndarray
) -> None:
    """Fills segment ids and positions, and what tokens and targets have at the ends."""
    _, num_rows, seq_len = out.shape
    begin = chunks.row * seq_len + chunks.column
    out[1].reshape(-1)[(begin + chunks.length - 1)[~is_cut]] = -1
    if len(begin):
        number = np.arange(len(begin))
        first = np.maximum.accumulate(np.where(chunks.column == 0, number, 0))
        reach = np.diff(begin, append=out[0].size)  # padding counts to the chunk before
        segment = (number - first + 1).astype(np.int32)
        out[2] = np.repeat(segment, reach).reshape(num_rows, seq_len)
        origin = np.repeat(begin.astype(np.int32), reach)
        np.subtract(positions, origin, out=out[3].reshape(-1))
    used = np.bincount(chunks.row, chunks.length, num_rows).astype(np.int64)
    for row in np.flatnonzero(used < seq_len):
        for field, padding in zip(out, PADDING, strict=True):
            field[row, used[row] :] = padding
