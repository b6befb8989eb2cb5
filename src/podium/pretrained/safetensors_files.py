# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of safetensors, sharded or not, read and written a tensor at a time.

The format: https://github.com/huggingface/safetensors, 8 bytes of header length, the
header in JSON, the tensors. The library checks what is read; it has no way to write
tensors that are not all in memory at once, so that writing is here.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from podium.errors import DataError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LONG_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BLOCK_BYTES = 1 << 26  # converted and written at once


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    dtype: str  # "BF16"
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file

    def read(self) -> np.ndarray:
        """The tensor where it lies: pages are read when they are used, and given back."""
        dtype = DTYPES[self.dtype]
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype)
        return np.memmap(self.path, dtype, "r", self.offset, self.shape)


def read_folder(folder: str | Path) -> dict[str, Stored]:
    """Every tensor of a folder by its name. Raises DataError.

    Reads the headers alone, each checked by the safetensors library.
    """
    folder = Path(folder)
    found: dict[str, Stored] = {}
    for path, names in _files(folder).items():
        stored = _read_header(path)
        if missing := sorted(set(names or stored) - stored.keys()):
            raise DataError(
                f"{path} lacks tensor {missing[0]!r}, which {folder / INDEX} says it has"
            )
        if twice := sorted(found.keys() & stored.keys()):
            raise DataError(
                f"{path}: tensor {twice[0]!r} is in {found[twice[0]].path} as well"
            )
        found |= stored
    return found


def _files(folder: Path) -> dict[Path, list[str] | None]:
    """The files of a model, and which tensors an index says they have."""
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return {folder / SINGLE: None}
        raise DataError(
            f"{folder} holds neither {SINGLE} nor {INDEX}; expected a model folder as "
            "transformers' save_pretrained writes it"
        )
    try:
        placed = json.loads(index.read_bytes())["weight_map"]
        files: dict[Path, list[str] | None] = {}
        for name, file in placed.items():
            names = files.setdefault(folder / file, [])
            assert names is not None
            names.append(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{index} is damaged: no object with a weight_map") from error
    for path in files:
        if not path.is_file():
            raise DataError(f"{path} is missing, which {index} names")
    return files


def _read_header(path: Path) -> dict[str, Stored]:
    try:
        with safetensors.safe_open(path, "numpy"):
            pass  # checks the header: sizes, overlaps, holes
    except safetensors.SafetensorError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: Stored(path, e["dtype"], tuple(e["shape"]), start + e["data_offsets"][0])
        for name, e in header.items()
    }


class Planned(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """In the file."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def write_folder(
    folder: str | Path,
    plan: Sequence[Planned],
    read: Callable[[Planned], np.ndarray],
    *,
    max_shard_bytes: int,
) -> Iterator[Planned]:
    """Writes tensors in the plan's order, each `read` when its turn comes.

    Yields each when it is written. Files are named as transformers names them.

    Raises DataError for a number beyond a tensor's type.
    """
    folder, shards = Path(folder), _shards(plan, max_shard_bytes)
    placed: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        name = SINGLE if len(shards) == 1 else name
        with (folder / name).open("wb") as file:
            file.write(_header(shard))
            for tensor in shard:
                for block in _blocks(tensor, read(tensor)):
                    block.tofile(file)
                placed[tensor.name] = name
                yield tensor
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.num_bytes for tensor in plan)},
            "weight_map": dict(sorted(placed.items())),
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(plan: Sequence[Planned], max_bytes: int) -> list[list[Planned]]:
    shards: list[list[Planned]] = [[]]
    for tensor in plan:
        used = sum(t.num_bytes for t in shards[-1])
        if shards[-1] and used + tensor.num_bytes > max_bytes:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _header(shard: list[Planned]) -> bytes:
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers insists
    start = 0
    for tensor in shard:
        stop = start + tensor.num_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _blocks(tensor: Planned, array: np.ndarray) -> Iterator[np.ndarray]:
    """The tensor in its type, some rows at a time."""
    dtype = DTYPES[tensor.dtype]
    if array.ndim == 0:
        array = array[None]
    row = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    step = max(1, _BLOCK_BYTES // row)
    for start in range(0, len(array), step):
        rows = np.ascontiguousarray(array[start : start + step])
        with np.errstate(over="ignore"):
            cast = rows.astype(dtype)
        lost = np.isfinite(rows) & ~np.isfinite(cast)
        if lost.any():
            raise DataError(
                f"tensor {tensor.name} has the value {rows[lost][0]:g}, beyond "
                f"{tensor.dtype}; export with --dtype=bfloat16 or float32"
            )
        yield cast
