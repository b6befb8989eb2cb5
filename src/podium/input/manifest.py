# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a gold data set: what the shards hold, and where it came from.

Format: docs/data-format.md. The fingerprint is the SHA-256 of the manifest's canonical
JSON (RFC 8785) without `fingerprint` and `created_by`. As the shards' own SHA-256s are
inside, two data sets have one fingerprint only if they hold the same bytes.
"""

import bisect
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from podium import storage
from podium.errors import DataError
from podium.storage import is_remote, open_folder

FORMAT = "podium-gold"
_TEXT_VERSION, _CHAT_VERSION = 1, 2  # the lowest that says what there is
_AGAIN = "copy the data set again, or prepare the data again"
SPLITS = ("train", "eval")
MANIFEST_FILE = "manifest.json"

Folder = str | os.PathLike


class SourceRange(NamedTuple):
    """Records of a shard that follow one another both there and in their source."""

    first_record: int  # in the shard
    num_records: int
    first_item: int  # line, row, example or piece of the source, from 0
    uri: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One TFRecord file and the index beside it."""

    file: str  # name inside the data folder
    index: str
    records: int
    documents: int  # records that begin a document; the others continue a long one
    tokens: int
    bytes: int  # size of `file`
    sha256: str
    index_sha256: str
    sources: tuple[SourceRange, ...]

    def source(self, record: int) -> tuple[str, int]:
        """Uri and item that a record of this shard was made from."""
        i = bisect.bisect_right(self.sources, record, key=lambda s: s.first_record) - 1
        found = self.sources[i]
        return found.uri, found.first_item + record - found.first_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerInfo:
    """Which tokenizer the ids belong to."""

    kind: Literal["bytes", "bpe", "huggingface"]
    vocab_size: int
    sha256: str  # of tokenizer.json; of the ASCII text "bytes" for that kind
    file: str | None  # "tokenizer.json"; None for bytes
    bos_id: int | None  # first token of every record, if there is one
    eos_id: int  # last token of every record


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatInfo:
    """Records of a chat template: they hold its tokens alone, and a loss mask."""

    # A preference is a pair: the prompt with the answer that was chosen, then the
    # prompt with the one that was rejected.
    records: Literal["conversations", "preferences"]
    template_sha256: str | None  # see ChatTemplate; None: without a template


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A gold data set without its folder."""

    tokenizer: TokenizerInfo
    token_dtype: Literal["uint16", "uint32"]
    splits: dict[str, tuple[Shard, ...]]
    created_by: dict[str, Any]
    chat: ChatInfo | None = None  # None: texts, of which every token is learnt

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of everything but `created_by`."""
        return _fingerprint(self.to_json())

    def num_tokens(self, split: str) -> int:
        """Tokens in a split, bos and eos included."""
        return sum(s.tokens for s in self.splits[split])

    def num_records(self, split: str) -> int:
        """Records in a split."""
        return sum(s.records for s in self.splits[split])

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values, without the fingerprint."""
        chat = {"chat": dataclasses.asdict(self.chat)} if self.chat else {}
        return {
            "format": FORMAT,
            "format_version": _CHAT_VERSION if self.chat else _TEXT_VERSION,
            **chat,
            "created_by": self.created_by,
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "token_dtype": self.token_dtype,
            "splits": {
                name: [dataclasses.asdict(s) for s in shards]
                for name, shards in self.splits.items()
            },
        }


def has_pairs(manifest: Manifest) -> bool:
    """Whether its records are pairs of answers."""
    return manifest.chat is not None and manifest.chat.records == "preferences"


def token_dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The narrowest type that holds every id of a vocabulary."""
    return "uint16" if vocab_size <= 65536 else "uint32"


def save_manifest(folder: Folder, manifest: Manifest) -> None:
    """Writes manifest.json in one step, so that it is whole or absent."""
    text = json.dumps(
        manifest.to_json() | {"fingerprint": manifest.fingerprint},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",\n", ": "),
    )
    path = pathlib.Path(folder) / MANIFEST_FILE
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_manifest(folder: Folder) -> Manifest:
    """The manifest of the data set in `folder`, checked against what lies there.

    Checks all that is cheap: version, fingerprint, every field, that every file is
    there and has its size. Contents are checked by `podium.prepare --verify`. Raises
    DataError.
    """
    files = open_folder(folder)
    path = f"{files}/{MANIFEST_FILE}"
    try:
        tree = json.loads(files.read(MANIFEST_FILE))
    except FileNotFoundError as e:
        what, raw, output = "does not exist", "TEXT", folder
        names = files.names()
        if names or os.path.isdir(folder):
            what, raw, output = f"holds no {MANIFEST_FILE}", folder, "gold/mine"
        advice = (
            f"make one of raw text with python -m podium.prepare --input={raw} "
            f"--output={output}"
        )
        if is_remote(files.path):
            advice = (
                "copy one made by podium.prepare there: gcloud storage cp -r D gs://…"
            )
        if any(".tfrecord" in name for name in names):
            what += " beside its TFRecords"
            advice = "copy the whole folder again, or prepare the data again"
        raise DataError(
            f"{folder} {what}, so this is no finished data set; {advice}"
        ) from e
    except NotADirectoryError as e:
        raise DataError(
            f"{folder} is a file; expected a folder made by python -m podium.prepare "
            f"--input={folder} --output=gold/mine"
        ) from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: not valid JSON; {_AGAIN}") from e
    manifest = _parse(tree, path)
    _check_files(files, manifest)
    return manifest


def parse_tokenizer(tree: Any, where: str) -> TokenizerInfo:
    """The tokenizer of a manifest, or of a run, from parsed JSON. Raises DataError."""
    return _value(TokenizerInfo, tree, where)


def check_one_tokenizer(paths: Sequence[str], manifests: Sequence[Manifest]) -> None:
    """Data sets that are mixed need one tokenizer. Raises DataError."""
    first = manifests[0].tokenizer
    for path, manifest in zip(paths, manifests, strict=True):
        info = manifest.tokenizer
        if info != first:
            raise DataError(
                f"{path}: tokenizer {info.kind} {info.sha256[:12]} "
                f"({info.vocab_size} tokens), but {paths[0]} has {first.kind} "
                f"{first.sha256[:12]} ({first.vocab_size} tokens); mixed data sets need "
                "one tokenizer: prepare one of them again with the other's"
            )
    chats = [(p, m.chat) for p, m in zip(paths, manifests, strict=True) if m.chat]
    for path, chat in chats:
        if chat.template_sha256 != chats[0][1].template_sha256:
            raise DataError(
                f"{path} was made with another chat template than {chats[0][0]}; mixed "
                "data sets need one: prepare one of them again with the other's"
            )


def _parse(tree: Any, where: str) -> Manifest:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise DataError(
            f"{where}: not a manifest: its format is not {FORMAT!r}; {_AGAIN}"
        )
    version = tree.get("format_version")
    if version not in (_TEXT_VERSION, _CHAT_VERSION) or isinstance(version, bool):
        raise DataError(
            f"{where}: format_version {version!r}; this podium reads {_TEXT_VERSION} and "
            f"{_CHAT_VERSION}: update podium or prepare the data again"
        )
    try:
        actual = _fingerprint(tree)
    except (ValueError, RecursionError) as e:  # lone surrogates, endless nesting
        raise DataError(f"{where}: not valid JSON; {_AGAIN}") from e
    if tree.get("fingerprint") != actual:
        raise DataError(
            f"{where}: was changed after it was written: fingerprint "
            f"{tree.get('fingerprint')}, contents give {actual}; {_AGAIN}"
        )
    values = {
        k: v
        for k, v in tree.items()
        if k not in ("format", "format_version", "fingerprint")
    }
    if version == _TEXT_VERSION and "chat" not in values:
        values["chat"] = None
    manifest = _value(Manifest, values, where)
    if (manifest.chat is None) != (version == _TEXT_VERSION):
        raise DataError(f"{where}: format_version {version} and chat do not agree")
    _check_values(manifest, where)
    return manifest


def _fingerprint(tree: dict[str, Any]) -> str:
    kept = {k: v for k, v in tree.items() if k not in ("fingerprint", "created_by")}
    canonical = json.dumps(
        kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value`, parsed from JSON, as the type `hint`. Raises DataError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        hints = typing.get_type_hints(hint)
        if set(hints) != set(value):
            odd = ", ".join(sorted(map(repr, set(hints) ^ set(value))))
            raise DataError(f"{where}: missing or unknown keys {odd}")
        fields = {k: _value(h, value[k], f"{where}: {k}") for k, h in hints.items()}
        return typing.cast(Any, hint)(**fields)
    if hint is SourceRange and isinstance(value, list) and len(value) == 4:
        kinds = (int, int, int, str)
        return SourceRange(*map(_value, kinds, value, [where] * 4))
    if origin is dict and isinstance(value, dict):
        return {k: _value(args[1], v, f"{where}: {k}") for k, v in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if origin is types.UnionType:
        if value is None:
            return None
        return _value(args[0], value, where)
    if hint is Any:
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint is int and type(value) is int and 0 <= value < 2**53:
        return value
    raise DataError(f"{where}: unexpected value {str(value)[:60]!r}")


def _check_values(manifest: Manifest, where: str) -> None:
    """What the types cannot say."""
    info = manifest.tokenizer
    if set(manifest.splits) != set(SPLITS):
        raise DataError(
            f"{where}: splits are {list(manifest.splits)}, expected {SPLITS}"
        )
    if max(info.eos_id, info.bos_id or 0) >= info.vocab_size:
        raise DataError(f"{where}: eos_id or bos_id is beyond vocab_size")
    if manifest.token_dtype != token_dtype_for(info.vocab_size):
        raise DataError(
            f"{where}: token_dtype is {manifest.token_dtype}, but a vocabulary of "
            f"{info.vocab_size} needs {token_dtype_for(info.vocab_size)}"
        )
    if (info.kind == "bytes") != (info.file is None):
        raise DataError(f"{where}: tokenizer {info.kind} with file {info.file}")
    shards = [s for split in manifest.splits.values() for s in split]
    names = [n for s in shards for n in (s.file, s.index)]
    names += [info.file] if info.file is not None else []
    for name in names:
        if set(name) & set("/\\\0") or name in ("", ".", ".."):
            raise DataError(f"{where}: {name!r} is not a plain file name")
    for shard in shards:
        at = 0
        for source in shard.sources:
            if source.first_record != at or not source.num_records:
                raise DataError(f"{where}: {shard.file}: sources leave out a record")
            at += source.num_records
        if not 0 < at == shard.records >= shard.documents:
            raise DataError(f"{where}: {shard.file}: sources and records disagree")


def _check_files(folder: storage.Folder, manifest: Manifest) -> None:
    shards = [s for split in manifest.splits.values() for s in split]
    expected = [(s.file, s.bytes) for s in shards] + [(s.index, None) for s in shards]
    if manifest.tokenizer.file:
        expected.append((manifest.tokenizer.file, None))
    try:
        found = folder.sizes([name for name, _ in expected])
    except OSError as e:
        raise DataError(
            f"{e.filename}: {e.strerror}, but the manifest lists it; copy the "
            "whole folder again or prepare the data again"
        ) from e
    for (name, size), actual in zip(expected, found, strict=True):
        if size is not None and actual != size:
            other = next((s.file for s in shards if s.bytes == actual), None)
            hint = f" (so many has {other}: were the two exchanged?)" if other else ""
            raise DataError(
                f"{folder}/{name}: {actual} bytes, the manifest says {size}{hint}; copy "
                "it again or prepare the data again"
            )
