# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.families import FAMILIES
from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimConfig,
)
from podium.config_lora import DoraConfig
from podium.models import adapters
from podium.models.bind import Abstract, abstract
from podium.models.width import Ratios
from podium.trainer.optimizer import make_optimizer
from tests.models.families_tiny import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")  # optax's Muon needs it

KERNELS = {"query", "key", "value", "out", "gate", "up", "down", "kernel", "head"}
KERNELS |= {"kv_down", "query_down", "table", "positions", "a", "b"}
RATE, DECAY = 0.5, 0.25


def decayed(model: Abstract, optimizer, wider: Ratios | None = None) -> dict[str, bool]:
    """By path: whether weights of 1 with gradients of 0 shrink; none does otherwise."""
    cfg = OptimConfig(optimizer=optimizer, weight_decay=DECAY, clip_norm=None)
    tx = make_optimizer(cfg, optax.constant_schedule(RATE), model.axes, wider)

    @jax.jit
    def update():
        params = jax.tree.map(lambda s: jnp.ones(s.shape), model.shapes)
        still = jax.tree.map(jnp.zeros_like, params)
        return tx.update(still, tx.init(params), params)[0]

    found = {}
    for keys, x in jax.tree_util.tree_leaves_with_path(update()):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        found[path] = bool(np.any(x))
        np.testing.assert_allclose(x, -RATE * DECAY * found[path], err_msg=path)
    return found


def is_kernel(path: str) -> bool:
    """By names, which must all be known here: a new parameter is to be thought about."""
    name = path.rpartition("/")[2]
    is_vector = name in ("scale", "magnitude") or name.endswith("bias")
    assert is_vector != (name in KERNELS), f"{path}: is it a vector?"
    return not is_vector


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_and_tables_decay_norms_and_biases_do_not(name):
    model = abstract(tiny(name))
    found = decayed(model, AdamWConfig())
    assert found == {path: is_kernel(path) for path in found}


@pytest.mark.parametrize("wider", [None, Ratios(2.0, 4.0, 3.0)], ids=["plain", "mup"])
@pytest.mark.parametrize(
    "optimizer", [AdafactorConfig(), LionConfig(), MuonConfig()], ids=lambda o: o.kind
)
def test_every_optimizer_decays_the_same_weights(optimizer, wider):
    for name in ("gpt2_124m", "mixtral_8x7b"):
        found = decayed(abstract(tiny(name)), optimizer, wider)
        assert found == {path: is_kernel(path) for path in found}


def test_adapters_decay_and_magnitudes_do_not():
    model = adapters.trained(abstract(tiny("gpt2_124m")), DoraConfig())
    found = decayed(model, AdamWConfig())
    assert "stack/block_0/attention/query/magnitude" in found
    assert found == {path: is_kernel(path) for path in found}
