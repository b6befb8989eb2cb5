# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What an output was made from, so that a second run knows what is left to do.

recipe.json lies beside the manifest and is no part of the format. Inputs are known by
name, size and modification time: reading them again would take as long as preparing.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from podium.errors import ConfigError
from podium.input.manifest import MANIFEST_FILE
from podium.preparation.chat import ChatForm
from podium.preparation.sources import Unit
from podium.preparation.spec import PrepareSpec
from podium.tokenizer import TOKENIZER_FILE

RECIPE_FILE = "recipe.json"
_RECIPE_VERSION = 1  # goes up when the same inputs come out as other bytes


def recipe_of(
    spec: PrepareSpec, units: Sequence[Unit], chat: ChatForm | None
) -> dict[str, Any]:
    """Everything that shapes the output, as JSON values."""
    digest = hashlib.sha256()
    for unit in units:
        digest.update(json.dumps(dataclasses.astuple(unit)).encode())
    return {
        "recipe_version": _RECIPE_VERSION,
        "tokenizer": _tokenizer_name(spec),
        "eos": spec.eos,
        "eval_fraction": spec.eval_fraction,
        "text_key": spec.text_key,
        "num_shards": spec.num_shards,
        "max_document_bytes": spec.max_document_bytes,
        "inputs": digest.hexdigest(),
        **({"chat": dataclasses.asdict(chat)} if chat else {}),
    }


def recipe_id(recipe: dict[str, Any]) -> str:
    """A short name of a recipe, for its folder of parts."""
    canonical = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def save_recipe(folder: str, recipe: dict[str, Any], summary: dict[str, Any]) -> None:
    """Writes recipe.json."""
    with open(os.path.join(folder, RECIPE_FILE), "w", encoding="utf-8") as file:
        json.dump({"recipe": recipe, "summary": summary}, file, indent=1)
        file.write("\n")


def finished_summary(output: str, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished output of this recipe; None where there is no output.

    Raises ConfigError, with what differs, for an output of another recipe.
    """
    if not os.path.lexists(output) or (
        os.path.isdir(output) and not os.listdir(output)
    ):
        return None
    what = f"--output={output}"
    if not os.path.exists(os.path.join(output, MANIFEST_FILE)):
        raise ConfigError(
            f"{what} exists, but holds no {MANIFEST_FILE}; choose another name"
        )
    advice = "choose another --output, or replace it with --overwrite"
    try:
        with open(os.path.join(output, RECIPE_FILE), encoding="utf-8") as file:
            found = json.load(file)
        old, summary = found["recipe"], found["summary"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{what} is a data set of unknown origin; {advice}") from None
    if old == recipe:
        return summary
    changes = [
        f"{key} was {old.get(key)!r}, is {value!r}"
        for key, value in recipe.items()
        if key not in ("inputs", "chat") and old.get(key) != value
    ]
    if old.get("chat") != recipe.get("chat"):
        changes.append("--chat, --max_tokens or the chat template was another")
    changes = changes or ["files were added, removed or changed since"]
    raise ConfigError(f"{what} was made differently: {'; '.join(changes)}; {advice}")


def _tokenizer_name(spec: PrepareSpec) -> str:
    if spec.tokenizer is None:
        return f"bpe:{spec.bpe_size} at most"
    if spec.tokenizer == "bytes" or spec.bpe_size is not None:
        return spec.tokenizer
    path = spec.tokenizer
    if os.path.isdir(path):
        path = os.path.join(path, TOKENIZER_FILE)
    try:
        with open(path, "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise ConfigError(f"--tokenizer={spec.tokenizer}: {e.strerror}") from e
