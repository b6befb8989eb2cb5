# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a compile for an absent slice leaves for maxtext_compare.py, whoever made it.

Imports neither project, so that both environments can.
"""

import collections
import gzip
import importlib.metadata
import json
import os
import resource
from collections.abc import Iterable
from typing import Any


def without_tpus() -> None:
    """Settles what libtpu asks its surroundings about. Before jax is imported."""
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",  # no metadata server here
        TPU_ACCELERATOR_TYPE="v5litepod-16",  # any; the topology decides
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # no chip to fight over
        TF_CPP_MIN_LOG_LEVEL="2",
    )


def versions(*packages: str) -> dict[str, str]:
    return {p: importlib.metadata.version(p) for p in packages}


def places(devices: Iterable[Any]) -> list[tuple[int, list[int]]]:
    """(slice, coordinates) of every device, in the mesh's order."""
    return [(getattr(d, "slice_index", 0) or 0, list(d.coords)) for d in devices]


def count(params: Any) -> int:
    """Numbers in the floating-point leaves of a tree; keys and counters are none."""
    import jax
    import jax.numpy as jnp

    leaves = jax.tree.leaves(params)
    return sum(x.size for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


def dtypes(state: Any) -> dict[str, int]:
    """Elements of a training state by type."""
    import jax

    found: collections.Counter = collections.Counter()
    for leaf in jax.tree.leaves(state):
        if leaf.size > 1:
            found[str(leaf.dtype)] += leaf.size
    return dict(found)


def cpu_secs() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def sizes(compiled: Any) -> dict[str, int]:
    """Bytes of one device, of a program that has nothing in its host's memory."""
    memory = compiled.memory_analysis()
    return {
        "argument_bytes": int(memory.argument_size_in_bytes),
        "temporary_bytes": int(memory.temp_size_in_bytes),
        "peak_bytes": int(memory.peak_memory_in_bytes),
        "host_bytes": 0,
    }


def write(out: str, hlo: str, sizes: dict[str, int], facts: dict[str, Any]) -> None:
    """OUT.hlo.gz and OUT.json; the latter last, so that it stands for both."""
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts |= {"cpu_secs": cpu_secs(), "peak_rss_bytes": peak_rss, **sizes}
    with gzip.open(f"{out}.hlo.gz", "wt") as file:
        file.write(hlo)
    with open(f"{out}.json", "w") as file:
        json.dump(facts, file)
