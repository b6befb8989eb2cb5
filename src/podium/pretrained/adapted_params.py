# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of a run with adapters, merged share by share: memory for one tensor."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium import fingerprints
from podium.config import TrainConfig
from podium.config_lora import Lora
from podium.errors import CheckpointError
from podium.models import adapters, bind
from podium.models.adapted import Adapted, as_float
from podium.pretrained.new_run import model_of
from podium.pretrained.rows import Leaf
from podium.pretrained.stored_params import Params
from podium.resume import (
    SavedBase,
    changed_base,
    checkpoints_folder,
    find_base,
    saved_base,
)


def open_params(workdir: str | Path, step: int) -> "Params | AdaptedParams":
    """The weights of any run's checkpoint, to be read in shares."""
    cfg = model_of(workdir, step)
    if cfg.lora is None:
        return Params(workdir, step)
    return AdaptedParams(workdir, step, cfg, cfg.lora)


class AdaptedParams:
    """As `Params`, of a run that trained adapters; they are whole in memory."""

    def __init__(self, workdir: str | Path, step: int, cfg: TrainConfig, lora: Lora):
        """Reads all of the base once, to see that it is what it was. Raises
        CheckpointError."""
        self.cfg, self.lora = cfg, lora
        self.saved: SavedBase = saved_base(checkpoints_folder(workdir), step)
        find_base(self.saved.path, self.saved)
        now = fingerprint(self.saved.path, self.saved.step)
        if now != self.saved.fingerprint:
            raise CheckpointError(changed_base(self.saved, now))
        self.base = open_params(self.saved.path, self.saved.step)
        model = bind.abstract(cfg.model)
        self._freezes: dict[str, Callable[[np.ndarray], Any]] = {}
        self.kernels = {k.name: k for k in adapters.kernels(model)}
        self.targets = {k.name for k in adapters.targets(model, lora)}
        trained = adapters.trained(model, lora).shapes
        own = Params(workdir, step)
        self.own: dict[str, np.ndarray] = {
            name: own.read([Leaf(name, (), shape)])[0]
            for name, shape in leaf_shapes(trained).items()
        }

    def read(self, leaves: Sequence[Leaf]) -> list[np.ndarray]:
        """Shares of some parameters, float32."""
        return [self._merged(leaf) for leaf in leaves]

    def adapted(self, leaf: Leaf) -> Adapted:
        """The share of a parameter that has an adapter, as it was trained."""
        (w,) = self.base.read([leaf])
        kernel = self.kernels[leaf.path]

        def own(name: str, num_in: int) -> np.ndarray | None:
            array = self.own.get(f"{leaf.path}/{name}")
            if array is None:
                return None
            # A vocabulary that is padded has more columns than the share.
            sizes = (*([None] * num_in), *leaf.shape[kernel.num_in :])
            return array[leaf.index][tuple(slice(0, n) for n in sizes)]

        a = self.own[f"{leaf.path}/a"][leaf.index]
        scale = self.lora.alpha / self.lora.rank
        frozen = self._freeze(leaf.path)(w)
        return Adapted(frozen, a, own("b", 1), own("magnitude", 0), scale)

    def _merged(self, leaf: Leaf) -> np.ndarray:
        if leaf.path in self.targets:
            return np.asarray(self.adapted(leaf).merged())
        (w,) = self.base.read([leaf])
        kept = self._freeze(leaf.path)(w)
        return np.asarray(as_float(kept, jnp.dtype(jnp.float32)))

    def _freeze(self, name: str) -> Callable[[np.ndarray], Any]:
        """`adapters.freeze_leaf` of a share, compiled as in training: op by op a quotient
        is rounded otherwise, and one at the border of two eight-bit numbers is another."""
        if name not in self._freezes:
            path, kernel = tuple(name.split("/")), self.kernels.get(name)
            if kernel is not None:
                kernel = kernel._replace(num_leading=0)
            self._freezes[name] = jax.jit(
                functools.partial(adapters.freeze_leaf, self.lora, path, kernel)
            )
        return self._freezes[name]


def fingerprint(workdir: str | Path, step: int) -> str:
    """Of a checkpoint's weights, as `podium.base_weights` finds it on devices."""
    cfg = model_of(workdir, step)
    params, model = Params(workdir, step), bind.abstract(cfg.model)
    if cfg.lora is None:
        return fingerprints.of_weights(_lines(params, leaf_shapes(model.shapes)))
    trained = leaf_shapes(adapters.trained(model, cfg.lora).shapes)
    saved = saved_base(checkpoints_folder(workdir), step)
    find_base(saved.path, saved)
    below = fingerprint(saved.path, saved.step)
    return fingerprints.of_adapters(cfg.lora, below, _lines(params, trained))


def _lines(params: Params, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    found = []
    for path, shape in shapes.items():
        number = 0
        # Layer by layer, as the largest arrays are stacks.
        lead = 1 if len(shape) > 1 and path.count("/") > 1 else 0
        inner = shape[lead:]
        for i, index in enumerate(itertools.product(*map(range, shape[:lead]))):
            (share,) = params.read([Leaf(path, index, inner)])
            number += fingerprints.host_digest(share, i * math.prod(inner))
        found.append(fingerprints.line(path, shape, number))
    return found


def leaf_shapes(shapes: dict, path: str = "") -> dict[str, tuple[int, ...]]:
    """Path -> shape of every leaf of a nested dict."""
    flat: dict[str, tuple[int, ...]] = {}
    for key, value in shapes.items():
        name = f"{path}/{key}" if path else key
        is_tree = isinstance(value, dict)
        flat |= leaf_shapes(value, name) if is_tree else {name: value.shape}
    return flat
