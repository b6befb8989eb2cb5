# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What lies beside the weights of a model elsewhere: tokenizer, generation settings.

An imported run folder keeps these files as they came in D/pretrained, and a run that
starts from it takes them along, so that an export has them again, to the byte.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from podium.errors import ConfigError, DataError
from podium.input.manifest import TokenizerInfo
from podium.starts import PRETRAINED as FOLDER
from podium.tokenizer import TOKENIZER_FILE, Tokenizer, huggingface_tokenizer

CONFIG, GENERATION = "config.json", "generation_config.json"
TENSORS = "tensors.json"  # ours: types and names of the tensors as they came
TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = (
    *(TOKENIZER_FILE, TOKENIZER_CONFIG, "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"),
    *("chat_template.jinja", "chat_template.json"),
)
_OTHERS = (GENERATION, "LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt")


def read_json(path: Path, *, is_needed: bool = False) -> dict[str, Any]:
    """An object in a file; empty where there is no file. Raises DataError."""
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        if not is_needed:
            return {}
        raise DataError(f"{path} is missing; expected a model folder") from error


def parse(text: bytes, where: str) -> dict[str, Any]:
    """An object in JSON. Raises DataError."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{where}: expected an object")
    return tree


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """An object, for people to read."""
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


def copy_in(source: Path, workdir: Path) -> None:
    """Keeps the files of a model folder in D/pretrained."""
    (workdir / FOLDER).mkdir()
    _copy(source, workdir / FOLDER, (CONFIG, *_TOKENIZER_FILES, *_OTHERS))


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a model folder; None where there is no tokenizer.json.

    The token that ends a document is the one that tokenizer_config.json names, else
    generation_config.json or config.json, else as `huggingface_tokenizer` finds it.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    eos = read_json(folder / TOKENIZER_CONFIG).get("eos_token")
    if isinstance(eos, dict):
        eos = eos.get("content")
    if not isinstance(eos, str):
        eos = None
        tokens = {
            t["id"]: t["content"] for t in read_json(path).get("added_tokens", ())
        }
        eos = next((tokens[i] for i in eos_ids(folder) if i in tokens), None)
    return huggingface_tokenizer(path, eos)


def eos_ids(folder: Path) -> list[int]:
    """The tokens that end a text, as a model folder's settings say; maybe none."""
    for name in (GENERATION, CONFIG):
        found = read_json(folder / name).get("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        if ids := [i for i in ids if isinstance(i, int)]:
            return ids
    return []


def write_tokenizer(workdir: Path, info: TokenizerInfo | None, target: Path) -> None:
    """The tokenizer of a run: its files as they came, or those that say the same.

    Raises ConfigError where a run was trained on bytes.
    """
    if (workdir / FOLDER).is_dir():
        _copy(workdir / FOLDER, target, (*_TOKENIZER_FILES, *_OTHERS))
        return
    if info is None:
        return
    if info.file is None:
        raise ConfigError(
            f"{workdir} was trained on bytes: there is no tokenizer.json that says so; "
            "export the weights alone with --no_tokenizer"
        )
    tokens = read_json(workdir / info.file, is_needed=True)
    names = {t["id"]: t["content"] for t in tokens.get("added_tokens", ())}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for key, token in (("bos_token", info.bos_id), ("eos_token", info.eos_id)):
        if token in names:
            config[key] = names[token]
    shutil.copyfile(workdir / info.file, target / TOKENIZER_FILE)
    write_json(target / TOKENIZER_CONFIG, config)
    write_json(target / GENERATION, ends(info))


def ends(info: TokenizerInfo) -> dict[str, int]:
    """The ids that begin and end a document, as config.json names them."""
    bos = {} if info.bos_id is None else {"bos_token_id": info.bos_id}
    return {**bos, "eos_token_id": info.eos_id}
