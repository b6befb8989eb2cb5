# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokens of raw text, known before it is prepared: no jax, no pass over the text."""

from podium.config import TrainConfig
from podium.errors import ConfigError
from podium.tokenizer_name import BYTES_AND_EOS, bpe_size, check_name, is_path


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
    check_name(name, f"--config.data.tokenizer={name}")
    if is_path(name):
        from podium.tokenizer import huggingface_tokenizer

        return huggingface_tokenizer(name).vocab_size
    return bpe_size(name) or BYTES_AND_EOS
