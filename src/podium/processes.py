# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one run: one on a laptop, one a host on a slice.

Each runs the same command. On TPU slices, under Slurm and under Open MPI they find
each other; anywhere else the command says where the first one listens:

    --coordinator=HOST:PORT --num_processes=2 --process_id=0

Where they find each other, --num_processes=N alone says how many there must be.

What one must decide for all (where a run continues, whether its data is there) the
first process decides, the others take over its answer. No jax unless there are several.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from podium import errors
from podium.cli import EXIT_FAILED, Parser, call_at_end
from podium.errors import ConfigError, PodiumError
from podium.lost_peers import leave_when_lost
from podium.platforms import has_tpu_devices

T = TypeVar("T")

_POLL_SECS = 30
_FAILED_SECS = 5
_LEAVE_SECS = 3600  # the first process may still be at its report


@dataclasses.dataclass
class Processes:
    """Which of how many this is."""

    index: int = 0
    count: int = 1
    _asked: int = 0

    @property
    def is_first(self) -> bool:
        """The one that writes and speaks."""
        return self.index == 0

    def decide(self, fn: Callable[[], T]) -> T:
        """What `fn` returns on the first process, a plain value; or its PodiumError.

        All processes must ask the same things in the same order.
        """
        if self.count == 1:
            return fn()
        self._asked += 1
        key = f"podium/decision/{self._asked}"
        if not self.is_first:
            return _answer(json.loads(_wait_for(key)))
        try:
            value = fn()
        except PodiumError as error:
            told = {"error": type(error).__name__, "message": str(error)}
            client().key_value_set(key, json.dumps(told))
            raise
        client().key_value_set(key, json.dumps({"value": value}))
        return value

    def leave(self) -> None:
        """Waits for the others: who is gone sooner is taken for dead by them."""
        if self.count > 1:
            import jax

            jax.distributed.shutdown()


def meet(where: str) -> None:
    """Waits until all processes of the run have come there.

    Gloo, which joins CPUs, waits half a minute for the others at a first collective; one
    that has its program from the compile cache may be there minutes before them.
    """
    import jax

    if jax.process_count() > 1:
        client().wait_at_barrier(f"podium/{where}", _LEAVE_SECS * 1000)


def add_flags(parser: Parser) -> None:
    """Adds the flags that say who the other processes are."""
    group = parser.add_argument_group(
        "several processes", "found out on TPU slices, under Slurm and Open MPI"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--num_processes", type=int, metavar="N", help="of the run")
    group.add_argument("--process_id", type=int, metavar="I", help="this one, from 0")


def join(args: argparse.Namespace, peer_secs: int) -> Processes:
    """Waits until all processes of the run are there. Raises ConfigError.

    One that sends no sign of life for `peer_secs` is lost to the others.
    """
    flags = (args.coordinator, args.num_processes, args.process_id)
    if flags == (None, args.num_processes, None):
        found = _found(peer_secs) if _may_be_one_of_many() else Processes()
        if args.num_processes not in (None, found.count):
            raise ConfigError(
                f"--num_processes={args.num_processes}, but {found.count} found each "
                "other here; say who they are: --coordinator=HOST:PORT --process_id=I"
            )
        return found
    coordinator, count, index = _checked(*flags)
    if count == 1:
        return Processes()
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=peer_secs,
            shutdown_timeout_seconds=_LEAVE_SECS,
        )
    except RuntimeError as error:
        why = str(error).split("\n")[0][:150]
        raise ConfigError(
            f"process {index} of {count} found no others at --coordinator={coordinator} "
            f"({why}); start all {count}, each with its own --process_id"
        ) from error
    _prepare_for_the_end()
    return Processes(index, count)


def _checked(
    coordinator: str | None, count: int | None, index: int | None
) -> tuple[str, int, int]:
    given = dict(coordinator=coordinator, num_processes=count, process_id=index)
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if coordinator is None or count is None or index is None:
        raise ConfigError(
            f"{' and '.join(missing)} missing: --coordinator, --num_processes and "
            "--process_id go together"
        )
    if count < 1 or not 0 <= index < count:
        raise ConfigError(
            f"--process_id={index} of --num_processes={count}; expected 0 to "
            f"{max(count, 1) - 1}"
        )
    if not coordinator.rpartition(":")[2].isdigit() or ":" not in coordinator:
        raise ConfigError(
            f"--coordinator={coordinator}; expected HOST:PORT of process 0, e.g. "
            "10.0.0.1:8476"
        )
    return coordinator, count, index


def _may_be_one_of_many() -> bool:
    """Whether it is worth asking jax, which takes a second to import."""
    names = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
    if any(os.environ.get(name) for name in names):
        return True
    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    if any(int(os.environ.get(name, "1")) > 1 for name in sizes):
        return True
    return has_tpu_devices()


def _found(peer_secs: int) -> Processes:
    import jax

    # jax says so where it sees no cluster: this process is alone.
    with contextlib.suppress(ValueError):
        jax.distributed.initialize(
            heartbeat_timeout_seconds=peer_secs, shutdown_timeout_seconds=_LEAVE_SECS
        )
        if jax.process_count() > 1:
            _prepare_for_the_end()
        return Processes(jax.process_index(), jax.process_count())
    return Processes()


def _prepare_for_the_end() -> None:
    leave_when_lost()
    call_at_end(_leave_failed)


def _leave_failed(code: int) -> None:
    """Who failed alone ends at once, which the others notice; jax would first wait for
    them, who wait for this process."""
    if code != EXIT_FAILED:
        return
    # Where all failed alike they end together, each with its own words.
    with contextlib.suppress(Exception):
        client().wait_at_barrier("podium/failed", _FAILED_SECS * 1000)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wait_for(key: str) -> str:
    """Preparing data may take hours; a process that is gone ends the wait."""
    while True:
        try:
            return client().blocking_key_value_get(key, _POLL_SECS * 1000)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _answer(told: dict[str, Any]) -> Any:
    if "error" in told:
        kind = getattr(errors, told["error"])
        raise kind(f"on process 0: {told['message']}")
    return told["value"]


def client() -> Any:
    """The key-value store that all processes of the run share."""
    # The store behind jax.distributed, which jax and Orbax use for such things. jax has
    # no public name for it; its public broadcasts run on the devices, which do not
    # wait for hours, and cannot be used before the devices are set up.
    from jax._src import distributed

    return distributed.global_state.client
