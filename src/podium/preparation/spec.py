# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What to prepare, from what, how."""

import dataclasses
from typing import Literal

from podium.errors import ConfigError
from podium.tokenizer_name import bpe_size, check_name, is_path

DEFAULT_BPE_SIZE = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """One preparation. Everything but num_workers, strict and overwrite shapes the
    output; the same spec and the same files give the same bytes."""

    inputs: tuple[
        str, ...
    ]  # folders, globs, files, tfds:NAME[/CONFIG][:VERSION][#SPLIT]
    output: str
    # bytes, bpe:SIZE, or the path of a tokenizer.json; None: a BPE of 8192 tokens, or
    # of as many as the text gives
    tokenizer: str | None = None
    eos: str | None = None  # token of a tokenizer.json that ends a document
    eval_fraction: float = 0.02  # share of the documents held out
    text_key: str = "text"  # JSONL key, Parquet column, TFDS feature
    num_shards: int | None = None  # None: by size, see plan.py
    max_document_bytes: int = 64 << 20  # longer documents are cut at line ends
    data_dir: str | None = None  # where TFDS data sets lie
    num_workers: int | None = None  # None: one a core
    strict: bool = False  # the first bad input ends the run
    overwrite: bool = False  # replace an output made from something else
    # Lines of JSONL are conversations, or pairs of answers, in the chat template that
    # lies beside the tokenizer.json; None: texts
    chat: Literal["conversations", "preferences"] | None = None
    max_tokens: int | None = None  # of a conversation or pair; longer ones are left out

    def __post_init__(self):
        if not self.inputs:
            raise ConfigError("no input; name at least one, e.g. --input=docs/")
        if not self.output:
            raise ConfigError("no output folder; name one, e.g. --output=gold/mine")
        if not 0 <= self.eval_fraction <= 0.5:
            raise ConfigError(
                f"--eval_fraction={self.eval_fraction}: expected 0 to 0.5; 0.02 holds "
                "out one document in fifty"
            )
        for name, low in (
            ("num_shards", 1),
            ("num_workers", 1),
            ("max_tokens", 2),
            ("max_document_bytes", 1024),
        ):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"--{name}={value}: expected at least {low}")
        if self.tokenizer is not None:
            check_name(self.tokenizer, f"--tokenizer={self.tokenizer}")
        has_file = self.tokenizer is not None and is_path(self.tokenizer)
        if self.eos is not None and not has_file:
            raise ConfigError("--eos only goes with a tokenizer.json; drop it")
        self._check_chat(has_file)

    def _check_chat(self, has_file: bool) -> None:
        if self.chat is None:
            if self.max_tokens is not None:
                raise ConfigError("--max_tokens only goes with --chat; drop it")
            return
        if not has_file:
            raise ConfigError(
                "--chat needs the tokenizer.json of the model that is to learn, e.g. "
                "--tokenizer=runs/model/tokenizer.json"
            )
        if self.text_key != "text":
            raise ConfigError(
                "--text_key names texts, --chat has none; drop one of them"
            )
        if name := next((n for n in self.inputs if n.startswith("tfds:")), None):
            raise ConfigError(
                f"--input={name}: --chat reads .jsonl and .jsonl.gz files"
            )

    @property
    def bpe_size(self) -> int | None:
        """SIZE of bpe:SIZE; None for another tokenizer."""
        if self.tokenizer is None:
            return DEFAULT_BPE_SIZE
        return bpe_size(self.tokenizer)
