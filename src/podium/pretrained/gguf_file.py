# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file: its metadata, and its tensors, each dequantised when it is read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf`
(the extra of that name) reads headers and knows the quantisations.
"""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from podium.errors import ConfigError, DataError
from podium.pretrained.safetensors_files import DTYPES

_BLOCK_BYTES = 1 << 24  # of float32 that are dequantised at once
_MAGIC = b"GGUF"


class GgufTensor(NamedTuple):
    """A tensor in a file."""

    path: Path
    dtype: str  # "Q4_1"
    shape: tuple[int, ...]  # rows first, as in numpy: the file's order reversed
    offset: int  # of its first byte in the file
    num_bytes: int

    def read(self) -> np.ndarray:
        """The tensor: where it lies if it is of floats, else dequantised to float32.

        Memory: the tensor and some buffers of 16 MiB.
        """
        if self.dtype in DTYPES:
            dtype = DTYPES[self.dtype]
            return np.memmap(self.path, dtype, "r", self.offset, self.shape)
        from gguf import GGMLQuantizationType, quants

        kind, width = GGMLQuantizationType[self.dtype], self.shape[-1]
        num_rows = math.prod(self.shape[:-1])
        row_bytes = self.num_bytes // num_rows
        out = np.empty((num_rows, width), np.float32)
        step = max(1, _BLOCK_BYTES // (4 * width))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, num_rows, step):
                part = out[start : start + step]
                raw = np.fromfile(file, np.uint8, len(part) * row_bytes)
                part[:] = quants.dequantize(raw.reshape(len(part), row_bytes), kind)
        return out.reshape(self.shape)


class GgufFile(NamedTuple):
    """What a file holds beside the numbers."""

    path: Path
    metadata: dict[str, Any]  # "llama.block_count" -> 30; float32 as it prints
    tensors: dict[str, GgufTensor]


def read_gguf_file(path: str | Path) -> GgufFile:
    """The header of a file.

    Raises ConfigError without the package or a file, DataError for a file that is no
    GGUF, is cut short or is one of several parts.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"--input={path} is no file; expected one in GGUF")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != _MAGIC:
        raise DataError(
            f"{path} is no GGUF: it begins with {head[:4]!r}, not {_MAGIC!r}"
        )
    if len(head) == 8 and not struct.unpack("<I", head[4:])[0] & 0xFFFF:
        raise DataError(f"{path} is big-endian; expected a little-endian GGUF")
    package = _package()
    try:
        reader = package.GGUFReader(path)
        metadata = {key: _value(field) for key, field in reader.fields.items()}
        tensors = {
            tensor.name: GgufTensor(
                path,
                tensor.tensor_type.name,
                tuple(int(n) for n in reversed(tensor.shape)),
                int(tensor.data_offset),
                int(tensor.n_bytes),
            )
            for tensor in reader.tensors
        }
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        if package.GGMLQuantizationType.__name__ in str(error):  # the enum's own error
            raise DataError(
                f"{path} has a tensor of a type that the package gguf does not know: "
                f"{error}; a newer gguf may"
            ) from error
        raise DataError(
            f"{path} is cut short at {size:,} bytes, or damaged; fetch it again ({error})"
        ) from error
    if (parts := metadata.get("split.count", 0)) > 1:
        raise DataError(
            f"{path} is one of {parts} parts; join them first: llama-gguf-split --merge"
        )
    return GgufFile(path, metadata, tensors)


def supported_types() -> set[str]:
    """The types of tensors that can be read: floats, and what `gguf` dequantises."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    found = set(DTYPES)
    for kind in GGMLQuantizationType:
        _, num_bytes = GGML_QUANT_SIZES[kind]
        try:
            quants.dequantize(np.zeros((1, num_bytes), np.uint8), kind)
        except NotImplementedError:  # the package's word for a type it can only name
            continue
        found.add(kind.name)
    return found


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(
            "--from=gguf needs the package gguf; install podium with the extra: "
            "uv sync --extra gguf"
        ) from error
    return gguf


def _value(field: Any) -> Any:
    value = field.contents()
    if isinstance(value, float) and field.types[0].name == "FLOAT32":
        return float(str(np.float32(value)))  # 1e-05, not 9.999999747378752e-06
    return value
