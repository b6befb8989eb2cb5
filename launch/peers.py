# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which host of a job this is, from what Vertex AI gives its containers.

With GPUs each replica is a process, and CLUSTER_SPEC names them all; jax has no class
for that. The hosts of a TPU slice find each other through libtpu's own variables or the
metadata server, which jax reads.
"""

import json
import os
from collections.abc import Mapping

from podium.errors import ConfigError


def flags(hosts: int, env: Mapping[str, str] | None = None) -> list[str]:
    """podium.train's flags about the processes of a run. Raises ConfigError."""
    env = os.environ if env is None else env
    pools = _pools(env.get("CLUSTER_SPEC"))
    count = sum(len(replicas) for replicas in pools.values())
    if count > 1:
        if count != hosts:
            raise ConfigError(
                f"CLUSTER_SPEC names {count} replicas, the job was submitted with {hosts}"
            )
        return [
            f"--coordinator={_coordinator(pools, env)}",
            f"--num_processes={count}",
            f"--process_id={_index(pools, env['CLUSTER_SPEC'])}",
        ]
    return [f"--num_processes={hosts}"] if hosts > 1 else []


def _pools(spec: str | None) -> dict[str, list[str]]:
    """Worker pools, the primary one first. `job` inside may be text or a tree: unread."""
    try:
        tree = json.loads(spec or "{}")
        pools = {
            str(k): [str(a) for a in v] for k, v in tree.get("cluster", {}).items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"CLUSTER_SPEC is {spec!r:.200}; expected what Vertex AI gives a container"
        ) from error
    return dict(sorted(pools.items()))


def _coordinator(pools: dict[str, list[str]], env: Mapping[str, str]) -> str:
    host, _, port = next(iter(pools.values()))[0].rpartition(":")
    return f"{host}:{env.get('JAX_COORDINATOR_PORT') or port}"


def _index(pools: dict[str, list[str]], spec: str) -> int:
    try:
        task = json.loads(spec)["task"]
        pool, index = task["type"], int(task["index"])
        before = sum(len(pools[name]) for name in pools if name < pool)
        pools[pool][index]  # there is one
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(
            f"CLUSTER_SPEC does not say which replica this is: {spec:.200}"
        ) from error
    return before + index
