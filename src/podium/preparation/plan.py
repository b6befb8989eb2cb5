# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Units -> shards of about equal size, in order.

The plan depends on the inputs and the settings and not on the number of workers, so
neither does the output.
"""

import dataclasses
from collections.abc import Sequence

from podium.preparation.sources import Unit

_SMALL_SHARD_BYTES = 8 << 20  # of text: enough shards for the cores of one machine ...
_MANY_SHARDS = 64
_LARGE_SHARD_BYTES = 512 << 20  # ... and no more than needed where there is much


def default_num_shards(total_bytes: int) -> int:
    """8 MiB of text a shard up to 64 shards, from 32 GiB on 512 MiB a shard."""
    small = -(-total_bytes // _SMALL_SHARD_BYTES)
    large = -(-total_bytes // _LARGE_SHARD_BYTES)
    return max(1, min(small, _MANY_SHARDS), large)


def plan_shards(units: Sequence[Unit], num_shards: int | None) -> list[list[Unit]]:
    """Units of every shard; none is empty, so there may be fewer than asked for.

    A JSONL file is cut wherever a shard ends: its lines belong to the shard in which
    they start.
    """
    total = sum(unit.size_bytes for unit in units)
    count = num_shards or default_num_shards(total)
    shards: list[list[Unit]] = [[] for _ in range(count)]
    at = 0
    for unit in units:
        if unit.kind == "jsonl" and unit.size_bytes:
            for shard in range(_shard(at, total, count), count):
                # Clipped to the file: where the shards begin and end in it.
                start = max(0, -(-shard * total // count) - at)
                stop = min(unit.stop, -(-(shard + 1) * total // count) - at)
                if start >= unit.stop:
                    break
                if start < stop:
                    shards[shard].append(
                        dataclasses.replace(
                            unit, start=start, stop=stop, size_bytes=stop - start
                        )
                    )
        else:
            middle = at + unit.size_bytes // 2
            shards[_shard(middle, total, count)].append(unit)
        at += unit.size_bytes
    return [shard for shard in shards if shard]


def _shard(at: int, total: int, count: int) -> int:
    return min(at * count // total, count - 1) if total else 0
