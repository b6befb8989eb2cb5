# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokens of raw text, known before it is prepared: no jax, no pass over the text."""

from pathlib import Path

from podium.config import TrainConfig
from podium.errors import ConfigError


def check_text_tokens(cfg: TrainConfig) -> None:
    """Raises ConfigError where `data.text` would get token ids that the model lacks, or
    `data.tokenizer` is none."""
    if cfg.data.paths or cfg.data.text is None:
        return
    name, rows = cfg.data.tokenizer, cfg.model.vocab_size
    tokens = _tokens(name)
    if tokens > rows:
        smaller = f", or --config.data.tokenizer=bpe:{rows}" if rows > 256 else ""
        raise ConfigError(
            f"model.vocab_size is {rows}, but data.tokenizer={name} has token ids up to "
            f"{tokens - 1}; set --config.model.vocab_size={tokens} or more"
            f"{smaller if name.startswith('bpe:') else ''}"
        )


def _tokens(name: str) -> int:
    kind, _, size = name.partition(":")
    if name == "bytes":
        return 257
    if kind == "bpe":
        if not size.isdecimal() or int(size) < 257:
            raise ConfigError(
                f"data.tokenizer is {name}; expected a size of at least 257 (256 bytes "
                "and the end of a document), e.g. bpe:8192"
            )
        return int(size)
    if not Path(name).exists():
        raise ConfigError(
            f"data.tokenizer is {name!r}, and there is no such file; expected bytes, "
            "bpe:SIZE or the path of a tokenizer.json"
        )
    from podium.tokenizer import huggingface_tokenizer

    return huggingface_tokenizer(name).vocab_size
