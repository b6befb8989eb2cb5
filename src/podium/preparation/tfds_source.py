# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""tfds:NAME[/CONFIG][:VERSION][#SPLIT] -> the TFRecord files TFDS keeps it in.

TFDS finds (or downloads and builds) the data set and says what its features are; the
records are then read without TensorFlow, by as many workers as there are cores.
"""

import contextlib
import importlib
import os
import sys
from typing import Any

from podium.errors import ConfigError
from podium.preparation.sources import Unit


def tfds_units(name: str, *, text_key: str, data_dir: str | None) -> list[Unit]:
    """One unit a file of the split (default: train). Raises ConfigError."""
    # By name: its stubs describe half of what we call.
    tfds: Any = importlib.import_module("tensorflow_datasets")
    wanted, _, split = name.removeprefix("tfds:").partition("#")
    split = split or "train"
    try:
        # It prints what it builds; standard output is for our result.
        with contextlib.redirect_stdout(sys.stderr):
            builder = tfds.builder(wanted, data_dir=data_dir)
            if not builder.info.splits:
                builder.download_and_prepare()
    except Exception as e:  # whatever the builder of that data set raises
        message = str(e).strip().split("\n")[0] or type(e).__name__
        raise ConfigError(
            f"--input={name}: TFDS cannot give this data set: {message}"
            + ("" if data_dir else "; if it is on this machine, pass --data_dir")
        ) from e
    info = builder.info
    if split not in info.splits:
        raise ConfigError(
            f"--input={name}: no split {split!r}; there are {', '.join(info.splits)}"
        )
    features = dict(info.features.items())
    if not isinstance(features.get(text_key), tfds.features.Text):
        raise ConfigError(
            f"--input={name}: {text_key!r} is no text feature; pass --text_key. "
            f"Features: {', '.join(features)}"
        )
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ConfigError(
            f"--input={name}: stored as {info.file_format.value}; prepare it with "
            "file_format='tfrecord'"
        )
    units = []
    for path in map(os.fspath, info.splits[split].filepaths):
        found = os.stat(path)
        units.append(
            Unit(
                kind="tfds",
                path=path,
                uri=f"tfds:{info.full_name}#{split}",
                stop=found.st_size,
                size_bytes=found.st_size,
                version=(found.st_size, found.st_mtime_ns),
            )
        )
    return units
