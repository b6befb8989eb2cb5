# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How a flag or a setting names a tokenizer: bytes, bpe:SIZE, or a tokenizer.json."""

import os

from podium.errors import ConfigError

BYTES_AND_EOS = 257  # the tokens that every text needs


def bpe_size(name: str) -> int | None:
    """SIZE of bpe:SIZE; None for another tokenizer."""
    kind, _, size = name.partition(":")
    return int(size) if kind == "bpe" and size.isdecimal() else None


def is_path(name: str) -> bool:
    """Whether it names a file, or a folder that holds one."""
    return name != "bytes" and not name.startswith("bpe:")


def check_name(name: str, given: str) -> None:
    """Raises ConfigError for what is no tokenizer. `given`: the flag, as it was typed."""
    size = bpe_size(name)
    if size is None and name.startswith("bpe:"):
        raise ConfigError(f"{given}: expected a size, e.g. bpe:8192")
    if size is not None and size < BYTES_AND_EOS:
        raise ConfigError(
            f"{given}: at least {BYTES_AND_EOS}, for 256 bytes and the end of a document"
        )
    if is_path(name) and not os.path.exists(name):
        raise ConfigError(
            f"{given}: no such file; expected bytes, bpe:SIZE or the path of a "
            "tokenizer.json"
        )
