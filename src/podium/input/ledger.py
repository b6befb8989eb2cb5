# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Lineage: from a training step back to the documents it held and their sources."""

import dataclasses

from podium.config import DataConfig
from podium.input.loader import Loader
from podium.input.spec import StreamSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A stretch of a document in a row of a step."""

    row: int  # of the global batch
    column: int  # of the row, where the stretch begins
    start: int  # first token of the document
    length: int  # tokens
    dataset: str  # gold folder
    shard: str  # file in that folder
    record: int  # in the shard
    source: str  # URI of what the document was made from
    item: int  # line, row, example or piece of the source, from 0


def documents_of_step(
    data: DataConfig, *, seed: int, global_batch_seqs: int, step: int
) -> list[LedgerEntry]:
    """What the batch of a training step is made of, in the order of rows and columns."""
    spec = StreamSpec(
        data=data,
        split="train",
        seed=seed,
        global_batch_seqs=global_batch_seqs,
        rows=range(global_batch_seqs),
    )
    loader = Loader(spec)
    datasets, chunks = loader.chunks(step)
    entries = []
    for k, row, column, document, start, length in zip(
        datasets.tolist(), *(field.tolist() for field in chunks), strict=True
    ):
        documents = loader.datasets[k].documents
        number, record = documents.locate(document)
        shard = documents.shards[number]
        source, item = shard.source(int(record))
        entries.append(
            LedgerEntry(
                row=row,
                column=column,
                start=start,
                length=length,
                dataset=data.paths[k],
                shard=shard.file,
                record=int(record),
                source=source,
                item=item,
            )
        )
    return entries
