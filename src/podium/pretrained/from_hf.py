# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model folder of transformers -> a run folder: `podium.convert --from=hf`."""

import collections
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.config_model import ModelConfig
from podium.errors import ConfigError, DataError
from podium.pretrained import side_files
from podium.pretrained.configs import read_config
from podium.pretrained.families import BUFFERS, prefix_of, rows_of
from podium.pretrained.fields import Tree
from podium.pretrained.new_run import (
    Source,
    check_output,
    check_tensors,
    under_way,
    write_run,
)
from podium.pretrained.rows import tensors
from podium.pretrained.safetensors_files import DTYPES, Stored, read_folder

_HEAD = "lm_head.weight"


class Found(NamedTuple):
    """A checked model folder."""

    folder: Path
    source: Source
    notes: list[str]  # what is left out
    tensors: Tree  # what `to_hf` needs to write the same files


def read_hf(folder: str | Path) -> Found:
    """Reads and checks all but the numbers. Raises ConfigError or DataError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"--input={folder} is no folder; expected one with config.json and "
            "safetensors"
        )
    tree = side_files.read_json(folder / side_files.CONFIG, is_needed=True)
    if (folder / "checkpoints").is_dir():
        raise ConfigError(
            f"--input={folder} is a run folder of Podium's own; --to=hf exports it"
        )
    try:
        family, cfg = read_config(tree)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    stored, prefix = read_folder(folder), prefix_of(family)
    is_bare = not any(name.startswith(prefix) for name in stored)
    if is_bare:  # of the model without its head, as GPT-2 was published
        stored = {n if n == _HEAD else prefix + n: s for n, s in stored.items()}
    stored, notes = _without_extras(stored, tree, cfg)
    if cfg.tie_embeddings:
        stored = _without_copy_of_embedding(stored, prefix)
    wanted = tensors(cfg, rows_of(family, cfg))
    check_tensors(stored, wanted, DTYPES, str(folder))
    usual = collections.Counter(s.dtype for s in stored.values()).most_common(1)[0][0]
    others = {name: s.dtype for name, s in stored.items() if s.dtype != usual}
    cfg = dataclasses.replace(cfg, dtype="float32" if usual == "F32" else "bfloat16")
    side_files.read_tokenizer(folder)  # or says now that it is damaged
    max_tokens = tree.get("max_position_embeddings", tree.get("n_positions", 2048))
    return Found(
        folder,
        Source(family, cfg, max_tokens, stored, wanted, str(folder.absolute())),
        notes,
        {"dtype": usual, "others": others, "is_bare": is_bare},
    )


def import_hf(
    found: Found,
    output: str | Path,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Makes the run folder `output` of a model that `read_hf` found."""
    check_output(Path(output))
    with under_way(Path(output)) as part:
        side_files.copy_in(found.folder, part)
        kept = part / side_files.FOLDER / side_files.TENSORS
        side_files.write_json(kept, found.tensors)
        write_run(part, Path(output), found.source, advance)


def _without_extras(
    stored: dict[str, Stored], tree: Tree, cfg: ModelConfig
) -> tuple[dict[str, Stored], list[str]]:
    """Without buffers that are made anew, and layers that predict further tokens."""
    extra, notes = tree.get("num_nextn_predict_layers") or 0, []
    further = tuple(f"model.layers.{cfg.num_layers + i}." for i in range(extra))
    if left := [name for name in stored if extra and name.startswith(further)]:
        notes = [
            f"{len(left)} tensors of {extra} layers that predict further tokens are left "
            f"out ({left[0]} …): the model works without them"
        ]
    kept = {
        name: entry
        for name, entry in stored.items()
        if name not in left and not any(re.fullmatch(p, name) for p in BUFFERS)
    }
    return kept, notes


def _without_copy_of_embedding(
    stored: dict[str, Stored], prefix: str
) -> dict[str, Stored]:
    """Some write a tied output head a second time; it must be the embedding."""
    kept = dict(stored)
    head = kept.pop(_HEAD, None)
    if head is None:
        return kept
    name = f"{prefix}{'wte' if prefix == 'transformer.' else 'embed_tokens'}.weight"
    table = stored.get(name)
    if table is not None and not _are_equal(head, table):
        raise DataError(
            f"{head.path}: tensor {_HEAD} is not {name}, though config.json says "
            "'tie_word_embeddings': set that to false to keep both"
        )
    return kept


def _are_equal(a: Stored, b: Stored) -> bool:
    return (a.shape, a.dtype) == (b.shape, b.dtype) and all(
        np.array_equal(x, y)
        for x, y in zip(a.read(), b.read(), strict=True)  # by rows: no large copies
    )
