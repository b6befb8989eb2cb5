# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Tensors of another format -> a run folder that holds them as checkpoint 0.

Everything is checked before anything is written; then the tensors go one after the
other. The folder gets its name when it is whole.
"""

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from podium import resume
from podium.config import DataConfig, OptimConfig, TrainConfig
from podium.config_dict import from_json_dict, to_json_dict
from podium.config_model import ModelConfig
from podium.errors import ConfigError, DataError
from podium.models.bind import abstract
from podium.pretrained import side_files
from podium.pretrained.rows import Tensor
from podium.pretrained.stored_params import Pieces, write_checkpoint
from podium.starts import IMPORTED

_ROW_TOKENS = 2048  # of the rows that the run folder's config asks for, at most
_START_LR = 2e-5  # of further training


class Stored(Protocol):
    """A tensor that can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        ...

    @property
    def dtype(self) -> str:
        """As its format names it."""
        ...

    def read(self) -> np.ndarray:
        """The tensor."""
        ...


class Source(NamedTuple):
    """A model that was found in another format, and checked."""

    family: str
    cfg: ModelConfig
    max_tokens: int  # that it was trained on at once
    stored: Mapping[str, Stored]
    tensors: Sequence[Tensor]
    origin: str  # a path


def check_tensors(
    stored: Mapping[str, Stored],
    wanted: Sequence[Tensor],
    dtypes: Collection[str],
    where: str,
) -> None:
    """Every tensor that the model has is there, as it should be, and no other.

    Raises DataError that names the first that is not.
    """
    names = {tensor.name for tensor in wanted}
    if missing := [t for t in wanted if t.name not in stored]:
        first = missing[0]
        raise DataError(
            f"{where}: tensor {first.name} {list(first.shape)} is missing"
            f"{_more(len(missing))}; the config says that the model has it"
        )
    if left := sorted(stored.keys() - names):
        raise DataError(
            f"{where}: tensor {left[0]} {list(stored[left[0]].shape)} has no place in "
            f"this model{_more(len(left))}; the config does not speak of it"
        )
    for tensor in wanted:
        entry = stored[tensor.name]
        if tuple(entry.shape) != tensor.shape:
            raise DataError(
                f"{where}: tensor {tensor.name} has shape {list(entry.shape)}; the "
                f"config says {list(tensor.shape)}"
            )
        if entry.dtype not in dtypes:
            raise DataError(
                f"{where}: tensor {tensor.name} has type {entry.dtype}; supported: "
                f"{', '.join(sorted(dtypes))}"
            )


def _more(number: int) -> str:
    return f" (and {number - 1} more)" if number > 1 else ""


def check_output(output: Path) -> None:
    """Nothing is written over. Raises ConfigError."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(
            f"--output={output} is there already; remove it, or choose another name"
        )
    above = next(p for p in output.absolute().parents if os.path.lexists(p))
    if not (above.is_dir() and os.access(above, os.W_OK)):
        what = "cannot be written to" if above.is_dir() else "is no folder"
        raise ConfigError(f"--output={output}: {above} {what}; choose another place")


@contextlib.contextmanager
def under_way(output: Path) -> Iterator[Path]:
    """A folder beside `output` to write in, which takes its name at the end."""
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a command that was stopped
    try:
        part.mkdir(parents=True)
        yield part
        if output.exists():
            output.rmdir()
        part.rename(output)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_run(
    part: Path,
    output: Path,
    source: Source,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Writes weights, config and tokenizer into `part`, a run folder called `output`.

    D/pretrained is there already. `advance` is told of bytes that are read.
    """
    cfg = source.cfg
    train = TrainConfig(
        model=cfg,
        init_from=str(output.absolute()),
        data=DataConfig(seq_len=min(source.max_tokens, _ROW_TOKENS)),
        optim=OptimConfig(peak_lr=_START_LR, weight_decay=0.0),
    )
    tree = to_json_dict(train)
    run = {
        "step": 0,
        "seed": 0,
        "config": tree,
        "fingerprints": [],
        "skipped_batches": [],
    }
    write_checkpoint(part, _pieces(source, advance), run)
    data: dict[str, Any] = {"paths": [], "fingerprints": []}
    tokenizer = side_files.read_tokenizer(part / side_files.FOLDER)
    if tokenizer is not None:
        tokenizer.save(part)
        data["tokenizer"] = dataclasses.asdict(tokenizer.info)
    side_files.write_json(part / "data.json", data)
    side_files.write_json(part / "config.json", tree)
    note = {"from": source.origin, "family": source.family}
    side_files.write_json(part / IMPORTED, note)


def _pieces(source: Source, advance: Callable[[int], None]) -> dict[str, Any]:
    """The tree of parameters, each made of its tensors when its turn comes."""
    parts: dict[str, list[tuple[tuple[int, ...], Tensor, int]]] = {}
    for tensor in source.tensors:
        for place, leaf in enumerate(tensor.leaves):
            parts.setdefault(leaf.path, []).append((leaf.index, tensor, place))

    def make(path: str) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        for index, tensor, place in parts[path]:
            array = source.stored[tensor.name].read()
            yield index, tensor.to_ours(array)[place]
            if place == 0:
                advance(4 * math.prod(tensor.shape))

    def tree(shapes: dict[str, Any], path: str) -> dict[str, Any]:
        out = {}
        for key, value in shapes.items():
            name = f"{path}/{key}" if path else key
            if isinstance(value, dict):
                out[key] = tree(value, name)
            else:
                leading = len(parts[name][0][0])
                out[key] = Pieces(value.shape, leading, lambda name=name: make(name))
        return out

    return tree(abstract(source.cfg).shapes, "")


def model_of(workdir: str | Path, step: int) -> TrainConfig:
    """The config of the run that saved a checkpoint."""
    folder = resume.checkpoints_folder(workdir)
    tree = side_files.parse(folder.read(f"{step}/run/metadata"), f"{folder}/{step}/run")
    return from_json_dict(TrainConfig, tree["config"])
