# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Looks for hardware that computes wrongly and says nothing (faults.verify_every_steps).

Two questions, answered by digests of what each device holds (`trainer.digest`):

Do replicas agree? What the layout says several devices hold alike must be alike, to the
bit. Asked every so many steps and before every save, so that no checkpoint is written of a
state in which they differ.

Does a step come out the same twice? Before a step is done, it is computed twice on its
inputs, without changing the state, and the digests of all that it would produce are
compared. That costs two steps, and no second copy of the state: XLA frees each new
tensor once it is digested.

An error inside a step reaches every device with the next collective, so the results alone
may not tell whose it was. Then each device does the same sums for itself, and who
differs from the others is named.

Hochschild et al. 2021, "Cores that don't count" (HotOS), is on why.
"""

import collections
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from podium.errors import HardwareError
from podium.input.batch import Batch
from podium.resume import latest_step
from podium.trainer.compiler_options import compiler_options
from podium.trainer.digest import digest, digests_of
from podium.trainer.events import Events
from podium.trainer.setup import Setup
from podium.trainer.state import TrainState
from podium.trainer.step import step_with_gradients
from podium.trainer.update import is_on_host

_SELF_TEST_ROUNDS = 4
_SHOWN = 4  # devices in a message


class Verifier:
    """Checks one run's state and steps; every process calls it at the same steps."""

    def __init__(self, setup: Setup, workdir: Path, events: Events, first_step: int):
        """`first_step` is the checkpoint that the run continues from, or 0."""
        self._setup, self._workdir, self._events = setup, workdir, events
        self._every_steps = setup.cfg.faults.verify_every_steps
        self._sound_until = first_step  # for all that is known
        self._is_first = jax.process_index() == 0
        mesh, shardings = setup.mesh, setup.layout.shardings
        leaves = jax.tree_util.tree_leaves_with_path(shardings)
        self._names = [
            jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves
        ]
        # What lies in the host's memory passes no device that could compute it.
        self._kept = [not hosted for hosted in jax.tree.leaves(is_on_host(shardings))]
        self._names = self._of_devices(self._names)
        self._specs = self._of_devices([sharding.spec for _, sharding in leaves])
        state_digests = digests_of(mesh, self._specs)
        self._digest = jax.jit(
            lambda state: state_digests(self._of_devices(jax.tree.leaves(state))),
            in_shardings=(shardings,),
        )
        self._metrics: list[str] = []
        self._again: Any = None

    def _of_devices(self, leaves: list[Any]) -> list[Any]:
        return [
            leaf for leaf, is_kept in zip(leaves, self._kept, strict=True) if is_kept
        ]

    def is_due(self, step: int) -> bool:
        """Whether a step is to be computed twice before it is done."""
        return self._every_steps is not None and step % self._every_steps == 0

    def check(self, step: int, state: TrainState, batch: Batch) -> None:
        """Before a step. Raises HardwareError."""
        start = time.monotonic()
        self.check_replicas(step - 1, state)
        first, second = (self._recomputed(state, batch) for _ in range(2))
        if not np.array_equal(first, second):
            self._differs(step, first != second)
        self._sound_until = step - 1
        secs = round(time.monotonic() - start, 3)
        self._events.add("verify", step=step, secs=secs)

    def check_replicas(self, step: int, state: TrainState) -> None:
        """Of the state after a step; also before it is saved. Raises HardwareError."""
        if self._every_steps is None:
            return
        found = np.asarray(jax.device_get(self._digest(state)))
        if odd := odd_replicas(found, self._specs, self._setup.mesh.axis_names):
            leaf, places, is_sure = odd
            who = self._one_of(places[:1] if is_sure else places)
            self._fail(
                step,
                self._names[leaf],
                who,
                f"after step {step}, {self._names[leaf]} is not the same on the devices "
                f"that hold it alike: {who} {'differs' if is_sure else 'is wrong'}",
            )

    def _recomputed(self, state: TrainState, batch: Batch) -> np.ndarray:
        """Digests of the state and the metrics that the step would produce."""
        if self._again is None:
            self._again = self._compile()
        return np.asarray(jax.device_get(self._again(state, batch)))

    def _compile(self) -> Any:
        setup = self._setup
        step = step_with_gradients(
            *(setup.cfg, setup.model, setup.optimizer),
            *(setup.schedule, setup.rules, setup.layout),
        )
        names = jax.eval_shape(lambda s, b: step(s, b)[1], *setup.arguments())
        self._metrics = [f"metrics/{name}" for name in sorted(names)]
        specs = [P()] * len(names) + self._specs
        digests = digests_of(setup.mesh, specs)

        def again(state: TrainState, batch: Batch) -> Array:
            new, metrics, _ = step(state, batch)
            new = jax.lax.with_sharding_constraint(new, setup.layout.shardings)
            leaves = self._of_devices(jax.tree.leaves(new))
            return digests([*(metrics[n] for n in sorted(metrics)), *leaves])

        options: dict[str, Any] = dict(compiler_options(setup.mesh))
        if (
            setup.mesh.devices.flat[0].platform == "gpu"
        ):  # sums by atomics come out in another order
            options["xla_gpu_exclude_nondeterministic_ops"] = True
        lowered = jax.jit(again).lower(*setup.arguments())
        return lowered.compile(compiler_options=options or None)

    def _differs(self, step: int, is_other: np.ndarray) -> None:
        """Of a step that came out in two ways; bool [*mesh, metrics and state]."""
        leaf = int(np.argmax(is_other.any(axis=tuple(range(is_other.ndim - 1)))))
        name = [*self._metrics, *self._names][leaf]
        places = [tuple(map(int, p)) for p in np.argwhere(is_other.any(axis=-1))]
        who, more = self._one_of(places), ""
        if len(places) > 1 and (odd := self._self_test()):
            who, more = self._one_of(odd), ", which a self-test shows,"
        elif len(places) == self._setup.mesh.devices.size:
            who = "a device that its self-test does not show"
        self._fail(
            step,
            name,
            who,
            f"step {step} on the same inputs came out in two ways, first in {name}: {who}"
            f"{more} computes wrongly",
        )

    def _self_test(self) -> list[tuple[int, ...]]:
        """The first device that differs from most, in sums that it does alone; all where
        there is no majority; none where they agree."""
        mesh = self._setup.mesh
        specs = P(*mesh.axis_names)

        def local() -> Array:
            return _sums().reshape((1,) * len(mesh.axis_names))

        test = jax.jit(
            jax.shard_map(local, mesh=mesh, in_specs=(), out_specs=specs),
            out_shardings=jax.sharding.NamedSharding(mesh, P()),
        )
        for _ in range(_SELF_TEST_ROUNDS):
            found = np.asarray(jax.device_get(test()))
            if (found == found.flat[0]).all():
                continue
            places = list(np.ndindex(found.shape))
            return _odd(places, [int(found[p]) for p in places])[0]
        return []

    def _one_of(self, places: list[tuple[int, ...]]) -> str:
        shown = " or ".join(self._device(place) for place in places[:_SHOWN])
        rest = len(places) - _SHOWN
        return f"{shown} or {rest} more" if rest > 0 else shown

    def _device(self, place: tuple[int, ...]) -> str:
        device = self._setup.mesh.devices[place]
        where = getattr(device, "coords", None)
        at = f" at {tuple(where)}" if where is not None else ""
        return f"{device.device_kind} {device.id}{at} of process {device.process_index}"

    def _fail(self, step: int, tensor: str, device: str, what: str) -> None:
        if self._is_first:
            self._events.add(
                "fault",
                what="silent data corruption",
                step=step,
                device=device,
                tensor=tensor,
            )
        saved = latest_step(self._workdir)
        raise HardwareError(
            f"{what}. The last check that found nothing was of step {self._sound_until} "
            f"(newest checkpoint: {'none' if saved is None else saved}): delete "
            "checkpoints after it, replace that host, and run the same command again"
        )


def odd_replicas(
    found: np.ndarray, specs: list[P], axes: tuple[str, ...]
) -> tuple[int, list[tuple[int, ...]], bool] | None:
    """The first array whose replicas differ: its number, the places that hold something
    else than most, in the mesh's order, and whether that is known, which it is not of two.

    `found` is uint32 [*mesh, arrays], `specs` say which axes split each array.
    """
    for leaf, spec in enumerate(specs):
        split = {
            a
            for part in spec
            if part
            for a in (part if isinstance(part, tuple) else (part,))
        }
        same = tuple(i for i, axis in enumerate(axes) if axis not in split)
        values = found[..., leaf]
        if not same or (values == values.max(axis=same, keepdims=True)).all():
            continue
        return leaf, *_who_differs(values, same)
    return None


def _who_differs(
    values: np.ndarray, same: tuple[int, ...]
) -> tuple[list[tuple[int, ...]], bool]:
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in np.ndindex(values.shape):
        key = tuple(-1 if i in same else at for i, at in enumerate(place))
        groups.setdefault(key, []).append(place)
    for members in groups.values():
        found = [int(values[m]) for m in members]
        if len(set(found)) > 1:
            return _odd(members, found)
    raise AssertionError("no group differs")


def _odd(
    places: list[tuple[int, ...]], values: list[int]
) -> tuple[list[tuple[int, ...]], bool]:
    """Those that hold something else than most, and whether there is a most."""
    counts = collections.Counter(values).most_common()
    usual, is_sure = counts[0][0], counts[0][1] > counts[1][1]
    pairs = zip(places, values, strict=True)
    return [p for p, value in pairs if not is_sure or value != usual], is_sure


def _sums() -> Array:
    """Matmuls and what vector units do, always the same: a digest of them."""
    i = jax.lax.broadcasted_iota(jnp.float32, (512, 512), 0)
    j = jax.lax.broadcasted_iota(jnp.float32, (512, 512), 1)
    w = jnp.sin(i * 0.37 + j * 1.13).astype(jnp.bfloat16) * jnp.bfloat16(0.1)

    def body(_: Any, x: Array) -> Array:
        y = jnp.dot(x, w, preferred_element_type=jnp.float32)
        return jnp.tanh(y * jax.lax.rsqrt(jnp.mean(jnp.square(y)))).astype(jnp.bfloat16)

    return digest(jax.lax.fori_loop(0, 64, body, jnp.cos(j + i).astype(jnp.bfloat16)))
