# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import numpy as np
import pytest

from podium.checkpoint import Checkpoints, restore_params
from podium.config import CheckpointConfig, MeshConfig
from podium.errors import CheckpointError
from podium.trainer.setup import setup
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")
FSDP = MeshConfig(data=1, fsdp=8, tensor=1)


def save(folder, steps, *, losses=(), cfg=None, keep=None):
    cfg = cfg or tiny.config(tiny.EIGHT)
    _, state = tiny.start(cfg)
    checkpoints = Checkpoints(folder, keep or CheckpointConfig())
    for i, step in enumerate(steps):
        checkpoints.save(
            state,
            step=step,
            cfg=cfg,
            fingerprints=["f"],
            eval_loss=losses[i] if losses else None,
        )
    checkpoints.wait()
    return checkpoints, state


def assert_same(want, got):
    jax.tree.map(lambda w, g: np.testing.assert_array_equal(w, g), want, got)


def test_a_state_is_restored_bit_for_bit_onto_another_mesh(tmp_path):
    checkpoints, state = save(tmp_path, [3])
    layout = setup(tiny.config(FSDP)).layout
    restored = checkpoints.restore(3, layout)
    assert_same(state, restored)
    table = restored.params["embed"]["table"]
    assert table.sharding == layout.shardings.params["embed"]["table"]
    checkpoints.close()


def test_restoring_another_model_names_the_tensors_that_differ(tmp_path):
    checkpoints, _ = save(tmp_path, [3])
    model = dataclasses.replace(
        tiny.MODEL, mlp=dataclasses.replace(tiny.MODEL.mlp, dim=128)
    )
    layout = setup(tiny.config(tiny.EIGHT, model=model)).layout
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(3, layout)
    shown = "mlp/down: saved float32[2, 64, 32], this config float32[2, 128, 32]"
    assert f"stack/block_0/{shown}" in str(error.value)
    assert "embed/table" not in str(error.value)
    checkpoints.close()


def test_retention_keeps_the_last_the_best_and_every_nth(tmp_path):
    keep = CheckpointConfig(keep_last=2, keep_every_steps=10, keep_best=1)
    losses = [5.0, 1.0, 4.0, 3.0, 2.0, 2.5]
    checkpoints, _ = save(tmp_path, [5, 7, 10, 15, 18, 19], losses=losses, keep=keep)
    assert checkpoints.steps() == [7, 10, 18, 19]
    assert checkpoints.best_step() == 7
    checkpoints.close()


def test_weights_alone_are_restored_with_their_config(tmp_path):
    optim = dataclasses.replace(tiny.config().optim, ema_decay=0.9)
    cfg = tiny.config(tiny.EIGHT, optim=optim)
    checkpoints, state = save(tmp_path, [4, 8], cfg=cfg)
    checkpoints.close()
    found, params = restore_params(tmp_path, 4)
    assert found == cfg
    assert_same(state.ema, params)


@pytest.mark.parametrize(("step", "message"), [(5, r"no checkpoint 5 .* found \[3\]")])
def test_a_checkpoint_that_is_not_there_is_named(tmp_path, step, message):
    checkpoints, _ = save(tmp_path, [3])
    checkpoints.close()
    with pytest.raises(CheckpointError, match=message):
        restore_params(tmp_path, step)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        restore_params(tmp_path)
