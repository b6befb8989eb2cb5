# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run folder's weights, written and read in pieces: they need not fit in memory.

`write_checkpoint` makes checkpoint 0, which holds weights alone, through Orbax, whose
handlers of arrays want them whole; the handler here is given pieces instead. `Params`
reads shares of the arrays of any checkpoint of ours.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from podium import checksums
from podium.pretrained.rows import Leaf
from podium.resume import checkpoints_folder

_CHUNK_BYTES = 1 << 26  # of an array in a checkpoint, and of a piece on its way there
_MOST_PENDING_BYTES = 2 * _CHUNK_BYTES  # of pieces that are being written


@dataclasses.dataclass(frozen=True)  # no tuple: Orbax would take it for a tree
class Pieces:
    """A float32 array that is made a piece at a time."""

    shape: tuple[int, ...]
    num_leading: int  # axes of layers and experts: a chunk holds one index of them
    make: Callable[[], Iterator[tuple[tuple[int, ...], np.ndarray]]]
    """Yields, for each index into the leading axes, what lies there: any float type,
    and a view of any strides."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """Of one index into the leading axes some rows, up to 64 MiB."""
        inner = self.shape[self.num_leading :]
        leading = (1,) * self.num_leading
        row = math.prod(inner[1:]) * 4
        rows = min(inner[0], max(1, _CHUNK_BYTES // max(1, row)))
        return (*leading, rows, *inner[1:])


def write_checkpoint(
    workdir: str | Path, params: dict[str, Any], run: dict[str, Any]
) -> None:
    """Writes D/checkpoints/0 with the weights `params`, a tree of Pieces, alone.

    Memory: some chunks of 64 MiB, however large the arrays are.
    """
    with _without_warning():
        handlers = ocp.type_handlers.create_type_handler_registry(
            (Pieces, _PiecesHandler())
        )
        folder = checkpoints_folder(workdir)
        manager = ocp.CheckpointManager(
            epath.Path(folder.path),
            options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(
                    use_compression=False, type_handler_registry=handlers
                ),
                "run": ocp.JsonCheckpointHandler(),
            },
        )
        state = ocp.args.PyTreeSave({"params": params})
        manager.save(
            0, args=ocp.args.Composite(state=state, run=ocp.args.JsonSave(run))
        )
    manager.close()
    checksums.write(folder.inside("0"), has_late=True)


@contextlib.contextmanager
def _without_warning() -> Iterator[None]:
    """Orbax says that it keeps no list of chunk shapes, which the arrays themselves say."""

    def is_news(record: logging.LogRecord) -> bool:
        return "ArrayMetadata persistence" not in record.getMessage()

    log = logging.getLogger("absl")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


class _PiecesHandler(ocp.type_handlers.TypeHandler):
    """Writes Pieces so that they are read as jax.Arrays."""

    def typestr(self) -> str:
        return "jax.Array"

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError("Pieces are written only")

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Any:
        raise NotImplementedError("Pieces are written only")

    def memory_size(self, values: Sequence[Pieces]) -> Sequence[tuple[int, int]]:
        return [(math.prod(value.shape) * 4, 0) for value in values]

    async def serialize(
        self, values: Sequence[Pieces], infos: Sequence[Any], args: Any = None
    ) -> Sequence[Any]:
        writing = _Writing()
        for value, info, arg in zip(values, infos, args, strict=True):
            await info.await_path_creation()
            spec = ocp.type_handlers.get_json_tspec_write(
                info,
                use_ocdbt=True,
                global_shape=value.shape,
                local_shape=value.shape,
                dtype=np.dtype(np.float32),
                process_index=0,
                arg=arg,
            )
            spec["metadata"]["chunks"] = list(value.chunk)
            store = await ts.open(
                ts.Spec(spec), create=True, open=True, context=info.ts_context
            )
            (rows,) = value.chunk[value.num_leading :][:1]
            for index, array in value.make():
                for start in range(0, len(array), rows):
                    part = np.ascontiguousarray(array[start : start + rows], np.float32)
                    at = (*index, slice(start, start + len(part)))
                    await writing.add(store[at].write(part), part.nbytes)
        await writing.end()
        return []


class _Writing:
    """Writes under way, up to so many bytes; small ones are committed together."""

    def __init__(self):
        self._writes: list[Any] = []
        self._num_bytes = 0

    async def add(self, write: Any, num_bytes: int) -> None:
        self._writes.append(write)
        self._num_bytes += num_bytes
        if self._num_bytes >= _MOST_PENDING_BYTES or len(self._writes) >= 1000:
            await self.end()

    async def end(self) -> None:
        await asyncio.gather(*self._writes)
        self._writes, self._num_bytes = [], 0


class Params:
    """The weights of a checkpoint, read in shares; the averaged ones if there are any."""

    def __init__(self, workdir: str | Path, step: int):
        self._base = checkpoints_folder(workdir).inside(f"{step}/state").path
        self._open: dict[str, Any] = {}
        self._name = "ema" if self._has("ema.") else "params"

    def read(self, leaves: Sequence[Leaf]) -> list[np.ndarray]:
        """Shares of some parameters, float32, whose arrays alone stay open."""
        self._open = {
            leaf.path: self._open.get(leaf.path) or self._store(leaf.path)
            for leaf in leaves
        }
        return [
            self._open[leaf.path][self._inside(leaf)].read().result() for leaf in leaves
        ]

    def shape(self, path: str) -> tuple[int, ...]:
        """Of a whole parameter."""
        return tuple(self._store(path).shape)

    @staticmethod
    def _inside(leaf: Leaf) -> tuple[int | slice, ...]:
        # A vocabulary that is padded has more rows than the share.
        return (*leaf.index, *(slice(0, n) for n in leaf.shape))

    def _store(self, path: str) -> Any:
        name = f"{self._name}.{path.replace('/', '.')}"
        store = ts.open(
            {"driver": "zarr", "kvstore": self._kvstore(f"{name}/")}
        ).result()
        chunk = math.prod(n or 1 for n in store.chunk_layout.read_chunk.shape or ()) * 4
        if chunk <= 2 * _CHUNK_BYTES:
            return store
        # A chunk holds many layers: it is kept until the next array is opened.
        context = ts.Context({"cache_pool": {"total_bytes_limit": 2 * chunk}})
        return ts.open(store.spec(), context=context).result()

    def _has(self, prefix: str) -> bool:
        store = ts.KvStore.open(self._kvstore("")).result()
        # The next string that does not begin so.
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return bool(store.list(ts.KvStore.KeyRange(prefix, end)).result())

    def _kvstore(self, path: str) -> dict[str, Any]:
        base = self._base if "://" in self._base else f"file://{self._base}"
        return {"driver": "ocdbt", "base": f"{base}/", "path": path}
