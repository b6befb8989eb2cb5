# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import ctypes
import dataclasses
import gc
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import podium.checkpoint
import podium.restore_limit
from podium import checksums, resume
from podium.checkpoint import Checkpoints, restore_params
from podium.config import CheckpointConfig, MeshConfig
from podium.errors import CheckpointError, StorageError
from podium.restore_limit import groups, largest_read_bytes
from podium.storage import open_folder
from podium.trainer.setup import setup
from tests import gcs
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


def test_a_restore_takes_little_more_memory_than_the_state(tmp_path, monkeypatch):
    """Orbax by itself takes 1.5 times the state: it holds all that it read, too."""
    for module in (podium.checkpoint, podium.restore_limit):
        monkeypatch.setattr(module, "LEAST_GROUP_BYTES", 1 << 20)
    # 21 large arrays of one size, weights and moments: of each, what a device reads
    # twice (its part of a chunk, and the array) is a tenth of the state.
    mlp = dataclasses.replace(tiny.MODEL.mlp, dim=1024)
    heads = dataclasses.replace(
        tiny.MODEL.attention, num_heads=16, num_kv_heads=16, head_dim=64
    )
    model = dataclasses.replace(
        tiny.MODEL, num_layers=8, embed_dim=1024, mlp=mlp, attention=heads
    )
    checkpoints, state = save(tmp_path, [3], cfg=tiny.config(tiny.EIGHT, model=model))
    layout = setup(tiny.config(FSDP, model=model)).layout
    first = checkpoints.restore(3, layout)  # what is loaded and started once
    jax.tree.map(lambda x: x.delete(), (state, first))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    before = memory("VmRSS")
    restored = checkpoints.restore(3, layout)
    peak = memory("VmHWM") - before
    shards = [s.data for x in jax.tree.leaves(restored) for s in x.addressable_shards]
    num_bytes = sum(shard.nbytes for shard in shards)  # replicas count too
    assert 4e8 < num_bytes < peak < 1.25 * num_bytes
    assert restored.step.sharding.mesh == layout.shardings.step.mesh
    checkpoints.close()


def memory(name: str) -> float:
    """Of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", status)[1])


def test_arrays_are_read_in_groups_of_a_share_of_all(monkeypatch):
    assert groups([]) == []
    assert groups([1 << 20, 1 << 20]) == [slice(0, 2)]  # little: at once
    monkeypatch.setattr(podium.restore_limit, "LEAST_GROUP_BYTES", 1)
    sizes = [2] * 10 + [60] + [10, 11]  # a twentieth of all: 5
    at_once = [sizes[group] for group in groups(sizes)]
    assert at_once == [[2, 2]] * 5 + [[60], [10], [11]]


def test_what_is_read_at_once_are_the_chunks_that_a_shard_touches():
    mesh = jax.make_mesh((4,), ("a",))
    sharding = jax.NamedSharding(mesh, jax.P("a"))
    want = {"w": jax.ShapeDtypeStruct((16, 10), "float32", sharding=sharding)}

    def largest(*chunk):
        storage = types.SimpleNamespace(chunk_shape=chunk)
        saved = {"w": types.SimpleNamespace(storage=storage), "other": None}
        return largest_read_bytes(want, saved)

    assert largest(4, 10) == 4 * 10 * 4  # as the shards
    assert largest(16, 10) == 16 * 10 * 4  # all of it
    assert largest(8, 5) == 8 * 10 * 4  # half of them, all columns
    assert largest(3, 10) == 6 * 10 * 4  # rows 4 to 7 lie in 3 to 8


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


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_named_and_the_one_before_used(
    tmp_path,
):
    checkpoints, _ = save(tmp_path, [3, 6])
    checkpoints.close()
    folder = open_folder(tmp_path / "checkpoints" / "6")
    assert checksums.find_damage(folder) is None
    assert set(checksums.LATE) < set(folder.files())
    for name in folder.files():
        path = tmp_path / "checkpoints" / "6" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        said = []
        resume._damage.cache_clear()  # as another process
        assert resume.find_checkpoint(tmp_path, None, said.append) == 3
        assert f"6/{name}" in said[0]
        path.write_bytes(whole)
    resume._damage.cache_clear()
    assert resume.find_checkpoint(tmp_path) == 6


def test_a_save_that_a_kill_cut_short_is_no_checkpoint_and_is_cleared(tmp_path):
    checkpoints, _ = save(tmp_path, [3])
    checkpoints.close()
    folder = tmp_path / "checkpoints"
    (folder / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert resume.latest_step(tmp_path) == 3
    resume.clear_unfinished(open_folder(folder))
    assert [p.name for p in folder.iterdir()] == ["3"]


def test_a_removal_that_a_kill_cut_short_is_made_up_for(tmp_path):
    keep = CheckpointConfig(keep_last=2)
    checkpoints, state = save(tmp_path, [3, 6], keep=keep)
    checkpoints.close()
    folder = tmp_path / "checkpoints"
    for path in (folder / "3").iterdir():
        if path.is_file():
            path.unlink()
    again = Checkpoints(tmp_path, keep)
    save_one(again, state, 9)
    again.close()
    assert resume.newest_good(open_folder(folder)) == (9, {})
    assert sorted(p.name for p in folder.iterdir()) == ["6", "9"]


def test_saving_restoring_and_retention_in_a_bucket(tmp_path):
    where = f"gs://{gcs.BUCKET}/run/checkpoints"
    keep = CheckpointConfig(folder=where, keep_last=2, keep_best=0)
    with gcs.bucket(tmp_path / "served") as refusals:
        checkpoints, state = save(tmp_path, [3], keep=keep)
        layout = setup(tiny.config(FSDP)).layout
        for step, busy in ((6, 503), (9, 429)):
            refusals.next(3, busy)  # tensorstore and gcsfs ask again
            save_one(checkpoints, state, step)
        refusals.next(3, 429)
        assert_same(state, checkpoints.restore(9, layout))
        assert refusals.left == 0
        assert resume.whole_steps(open_folder(where)) == [6, 9]
        refusals.next(10**6, 403)
        with pytest.raises(OSError, match="Forbidden"):
            save_one(checkpoints, state, 12)
        with pytest.raises(StorageError, match=r"checkpoints/9: .*role Storage Object"):
            checkpoints.restore(9, layout)  # not damaged
        refusals.next(0, 200)
        folder = open_folder(where)
        assert resume.whole_steps(folder) == [6, 9]
        assert_same(state, checkpoints.restore(9, layout))
        checkpoints.close()
        folder.remove("9/commit_success.txt")  # killed just before its last file
        assert resume.newest_good(folder) == (6, {})
        resume.clear_unfinished(folder)
        assert folder.names() == ["6"]
        folder.remove("6/checksums.json")  # finished, and damaged since
        resume.clear_unfinished(folder)
        resume._damage.cache_clear()  # as another process
        good = resume.newest_good(folder)
        assert good.step is None
        assert good.damaged[6].endswith("checkpoints/6/checksums.json is missing")


def save_one(checkpoints, state, step):
    checkpoints.save(
        state, step=step, cfg=tiny.config(), fingerprints=["f"], eval_loss=None
    )
    checkpoints.wait()
