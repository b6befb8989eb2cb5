# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Why inputs hold no text at all."""

import json
from collections.abc import Sequence

from podium.preparation.readers import read_unit
from podium.preparation.sources import Unit


def why_none(
    units: Sequence[Unit], *, text_key: str, max_document_bytes: int, listed_in: str
) -> str:
    """How many items were rejected for which reason, each with an example.

    All of them are listed in the file `listed_in`, as in rejects.jsonl.
    """
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    items: dict[str, int] = {}  # of a source, in its units so far
    with open(listed_in, "w", encoding="utf-8") as out:
        for unit in units:
            first = (
                items.get(unit.uri, 0) if unit.first_item is None else unit.first_item
            )
            for item in read_unit(
                unit, text_key=text_key, max_document_bytes=max_document_bytes
            ):
                items[unit.uri] = first + item.number + 1
                reason = item.reason or "blank"
                counts[reason] = counts.get(reason, 0) + 1
                if item.detail:
                    examples.setdefault(reason, item.detail)
                row = {
                    "uri": unit.uri,
                    "item": first + item.number,
                    "reason": reason,
                    "detail": item.detail,
                }
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return _shown(counts, examples, listed_in)


def why_none_of_chats(listed_in: str) -> str:
    """The same, read from that file."""
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    with open(listed_in, encoding="utf-8") as file:
        for row in map(json.loads, file):
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
            # The item of a line is its number from 0.
            detail = f"{row['uri']}: line {row['item'] + 1}: {row['detail']}"
            examples.setdefault(row["reason"], detail)
    return _shown(counts, examples, listed_in)


def _shown(counts: dict[str, int], examples: dict[str, str], listed_in: str) -> str:
    shown = [
        f"{count:,} {reason}" + (f" ({examples[reason]})" if reason in examples else "")
        for reason, count in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    ]
    return f"{', '.join(shown)}; see {listed_in}"
