# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The errors a user can cause. A message says where, what was found, what was
expected and what to do; the command lines print it on one line and exit with 2, or
with 1 where the work had begun (`at_work`)."""

import contextlib
from collections.abc import Iterator


class PodiumError(Exception):
    """Base of every error that a user's input, data or hardware can cause."""

    is_met_at_work = False  # True: no mistake in the command, it failed on the way


class ConfigError(PodiumError):
    """A configuration that cannot mean anything: unknown key, wrong type, contradiction."""


class ShardingError(PodiumError):
    """A mesh or a rule that does not fit the devices or the arrays."""


class DataError(PodiumError):
    """A data set that is missing, damaged, or not the one a run was started with."""


class CheckpointError(PodiumError):
    """A checkpoint that cannot be read or does not belong to this model or data."""


class StorageError(PodiumError):
    """A bucket that refuses, or a disk that is full."""


class CloudError(PodiumError):
    """A service of Google Cloud that refuses, or something that failed there."""


class DivergedError(PodiumError):
    """A run whose loss or weights are no longer numbers."""


class HardwareError(PodiumError):
    """Devices that disagree where they must be equal to the bit."""


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """What goes wrong in here went wrong on the way: the command exits with 1, not 2."""
    try:
        yield
    except PodiumError as error:
        error.is_met_at_work = True
        raise
