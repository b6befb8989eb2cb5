# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Small gold data sets, written from lists of token ids."""

import hashlib

import numpy as np
import pytest

from podium.input.manifest import (
    ChatInfo,
    Manifest,
    Shard,
    SourceRange,
    TokenizerInfo,
    save_manifest,
)
from podium.input.records import INDEX_DTYPE, encode_record

VOCAB_SIZE = 1000


def _write_shard(folder, name, documents, dtype, masks) -> Shard:
    frames, index, offset = [], [], 0
    for number, tokens in enumerate(documents):
        mask = bytes(masks[number]) if masks else None
        frame, payload = encode_record(np.asarray(tokens, dtype).tobytes(), mask)
        index.append((offset, offset + payload, len(tokens)))
        frames.append(frame)
        offset += len(frame)
    data = b"".join(frames)
    (folder / f"{name}.tfrecord").write_bytes(data)
    np.save(folder / f"{name}.index.npy", np.array(index, INDEX_DTYPE))
    index_bytes = (folder / f"{name}.index.npy").read_bytes()
    # Two sources a shard, so that lineage has something to tell apart.
    half = len(documents) // 2
    sources = [SourceRange(0, half, 0, f"file:///{name}/a.txt")] if half else []
    rest = len(documents) - half
    sources.append(SourceRange(half, rest, 10, f"file:///{name}/b.txt"))
    return Shard(
        file=f"{name}.tfrecord",
        index=f"{name}.index.npy",
        records=len(documents),
        documents=len(documents),
        tokens=sum(map(len, documents)),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        index_sha256=hashlib.sha256(index_bytes).hexdigest(),
        sources=tuple(sources),
    )


def write_gold(
    folder,
    train,
    eval=(),
    *,
    num_shards=2,
    vocab_size=VOCAB_SIZE,
    tokenizer="t",
    masks=None,
    records="conversations",
):
    """A gold data set in `folder` with the given documents (lists of ids) per split.

    `masks` of the training documents make `records` of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "uint16" if vocab_size <= 65536 else "uint32"
    splits = {}
    for split, documents in (("train", train), ("eval", eval)):
        n = min(num_shards, len(documents))
        cuts = np.linspace(0, len(documents), n + 1).astype(int)
        splits[split] = tuple(
            _write_shard(
                folder,
                f"{split}-{i:05d}-of-{n:05d}",
                documents[cuts[i] : cuts[i + 1]],
                dtype,
                masks[cuts[i] : cuts[i + 1]] if masks else None,
            )
            for i in range(n)
        )
    tokenizer_file = folder / "tokenizer.json"
    tokenizer_file.write_text(tokenizer)
    info = TokenizerInfo(
        kind="bpe",
        vocab_size=vocab_size,
        sha256=hashlib.sha256(tokenizer.encode()).hexdigest(),
        file="tokenizer.json",
        bos_id=None,
        eos_id=0,
    )
    manifest = Manifest(
        tokenizer=info,
        token_dtype=dtype,
        splits=splits,
        created_by={},
        chat=ChatInfo(records=records, template_sha256="x") if masks else None,
    )
    save_manifest(folder, manifest)
    return folder


def make_documents(seed, count, max_tokens, vocab_size=VOCAB_SIZE):
    """Random documents that end in token 0 and hold no other 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, max_tokens + 1, count)
    return [[*rng.integers(1, vocab_size, n - 1).tolist(), 0] for n in lengths]


@pytest.fixture(scope="session")
def gold(tmp_path_factory):
    """A function (train, eval, **options) -> folder of a new gold data set."""

    def write(train, eval=(), **options):
        return write_gold(tmp_path_factory.mktemp("gold"), train, eval, **options)

    return write


@pytest.fixture(scope="session")
def documents():
    """A function (seed, count, max_tokens) -> random documents."""
    return make_documents
