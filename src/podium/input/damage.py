# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A record that cannot be used, and how it is named wherever it is met."""

from collections.abc import Sequence
from typing import NamedTuple

from podium.errors import DataError


class Damage(NamedTuple):
    """Equal for the same record with the same fault, whichever process met it."""

    file: str  # path of the shard
    record: int  # in it, from 0
    byte: int  # where the record begins
    fault: str

    def __str__(self) -> str:
        return (
            f"{self.file}: record {self.record} at byte {self.byte} is damaged "
            f"({self.fault})"
        )


SKIPS = "; data.on_damage=skip trains without such records"  # advice


def raise_damage(damages: Sequence[Damage], advice: str = "") -> None:
    """Raises DataError naming the first, if there are any."""
    if damages:
        raise DataError(
            f"{damages[0]}; copy the file again or prepare the data again{advice}"
        )
