# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One setting: a dataclass field that carries its help text, unit and range."""

import dataclasses
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with its help text, unit and range.

    `low` and `high` are in the range, `above` and `below` are its excluded ends.
    """
    ends = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"doc": doc, "unit": unit, **ends}
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return dataclasses.field(
            default_factory=lambda: dataclasses.replace(default), metadata=metadata
        )
    return dataclasses.field(default=default, metadata=metadata)
