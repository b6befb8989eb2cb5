# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Bits that flip: in what one device holds, and in what a step computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podium.config import FaultsConfig
from podium.errors import HardwareError
from podium.trainer import verify
from podium.trainer.digest import digest
from podium.trainer.events import Events, read_events
from podium.trainer.step import batch_sharding
from tests.trainer.tiny import EIGHT, batch, config, start

CFG = config(EIGHT, faults=FaultsConfig(verify_every_steps=2))


@pytest.fixture(scope="module")
def run(standard_promotion):
    parts, state = start(CFG)
    return parts, state, jax.device_put(batch(0), batch_sharding(parts.rules))


@pytest.fixture
def verifier(run, tmp_path):
    with Events(tmp_path) as events:
        yield verify.Verifier(run[0], tmp_path, events, 0)


def flipped(x: jax.Array, device: int, bit: int = 0) -> jax.Array:
    """The array with one bit changed in what one device holds."""

    def part(shard):
        data = np.array(shard.data)
        if shard.device.id == device:
            data.reshape(-1).view(np.uint32)[-1] ^= np.uint32(1 << bit)
        return jax.device_put(data, shard.device)

    parts = [part(shard) for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


def with_leaf(state, name, change):
    return jax.tree.map_with_path(
        lambda path, x: (
            change(x)
            if jax.tree_util.keystr(path, simple=True, separator="/") == name
            else x
        ),
        state,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_any_changed_element_changes_the_digest(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2, (3, 5, 4)), dtype)
    seen = {int(digest(x))}
    for at in np.ndindex(x.shape):
        other = x.at[at].set((1 - x[at].astype(jnp.int32)).astype(dtype))
        seen.add(int(digest(other)))
    assert len(seen) == x.size + 1


def test_a_digest_knows_the_order():
    x = jnp.arange(6.0).reshape(2, 3)
    assert int(digest(x)) != int(digest(x[::-1]))


@pytest.mark.parametrize("bit", [0, 31])
def test_a_replica_that_differs_is_named_with_its_device(run, verifier, bit, tmp_path):
    _, state, _ = run
    verifier.check_replicas(4, state)
    # Norms' scales lie on all 8 devices: who differs from the 7 others is known.
    bad = with_leaf(state, "params/final_norm/scale", lambda x: flipped(x, 5, bit))
    with pytest.raises(HardwareError) as error:
        verifier.check_replicas(4, bad)
    line = str(error.value)
    assert "after step 4, params/final_norm/scale is not the same" in line
    assert "cpu 5 of process 0 differs" in line
    assert "The last check that found nothing was of step 0" in line
    [fault] = read_events(tmp_path)
    assert fault["what"] == "silent data corruption"
    assert (fault["tensor"], fault["step"]) == ("params/final_norm/scale", 4)


def test_of_two_replicas_both_are_named(run, verifier):
    _, state, _ = run
    name = "params/stack/block_0/mlp/up"
    # Split over fsdp and tensor, the same along data: devices 1 and 5 hold this part.
    bad = with_leaf(state, name, lambda x: flipped(x, 5))
    with pytest.raises(HardwareError, match=r"cpu 1 of .* or cpu 5 of .* is wrong"):
        verifier.check_replicas(4, bad)


def test_a_sound_step_comes_out_the_same_and_leaves_the_state(run, verifier, tmp_path):
    _, state, rows = run
    before = jax.device_get(state)
    verifier.check(2, state, rows)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state))
    [event] = read_events(tmp_path)
    assert (event["event"], event["step"]) == ("verify", 2)
    assert [verifier.is_due(step) for step in range(1, 5)] == [False, True] * 2
    # Of several that differ from most the first is named, and what was known sound.
    bad = with_leaf(
        state, "params/final_norm/scale", lambda x: flipped(flipped(x, 6), 5)
    )
    with pytest.raises(HardwareError) as error:
        verifier.check_replicas(3, bad)
    line = str(error.value)
    assert "alike: cpu 5 of process 0 differs" in line
    assert "The last check that found nothing was of step 1 " in line


class Flaky:
    """A step that changes the last bit of one weight, every other time."""

    def __init__(self, real):
        self.real, self.calls = real, 0

    def __call__(self, *parts):
        step = self.real(*parts)

        def wrapped(state, rows):
            new, metrics, grads = step(state, rows)
            shape = jax.ShapeDtypeStruct((), jnp.float32)
            off = jax.pure_callback(self.error, shape, state.step)
            params = with_leaf(new.params, "final_norm/scale", lambda x: x + off)
            return dataclasses.replace(new, params=params), metrics, grads

        return wrapped

    def error(self, _):
        self.calls += 1
        return np.float32(1e-6 if self.calls > 1 else 0.0)


def test_a_step_that_comes_out_in_two_ways_ends_the_run(run, verifier, monkeypatch):
    parts, state, rows = run
    flaky = Flaky(verify.step_with_gradients)
    monkeypatch.setattr(verify, "step_with_gradients", flaky)
    with pytest.raises(HardwareError) as error:
        verifier.check(2, state, rows)
    line = str(error.value)
    assert "step 2 on the same inputs came out in two ways" in line
    assert "first in params/final_norm/scale: a device that its self-test" in line

    def sums():  # device 6 fails on its own too
        return jnp.uint32(7) + _is_device(parts.mesh, 6).astype(jnp.uint32)

    flaky.calls = 0
    monkeypatch.setattr(verify, "_sums", sums)
    with pytest.raises(
        HardwareError, match="cpu 6 of process 0, which a self-test shows,"
    ):
        verifier.check(2, state, rows)


def test_who_is_not_known_for_certain_is_not_named_alone(run, verifier, monkeypatch):
    def words(*places):
        is_other = np.zeros((*run[0].mesh.devices.shape, 40), bool)
        for place in places:
            is_other[*place, 0] = True
        with pytest.raises(HardwareError) as error:
            verifier._differs(2, is_other)
        return str(error.value)

    first, second, *_ = np.ndindex(run[0].mesh.devices.shape)
    assert ": cpu 0 of process 0 computes wrongly" in words(first)
    both = ": cpu 0 of process 0 or cpu 1 of process 0"
    assert f"{both} computes wrongly" in words(first, second)
    # Half of the devices fail on their own, so which half is not known either.
    monkeypatch.setattr(verify, "_sums", lambda: _number(run[0].mesh) // 4)
    line = words(first, second)
    assert (
        f"{both} or cpu 2 of process 0 or cpu 3 of process 0 or 4 more, which" in line
    )


def _number(mesh):
    ids = jnp.asarray(np.vectorize(lambda d: d.id)(mesh.devices)).astype(jnp.uint32)
    return ids[tuple(jax.lax.axis_index(axis) for axis in mesh.axis_names)]


def _is_device(mesh, number):
    ids = jnp.asarray(np.vectorize(lambda d: d.id)(mesh.devices))
    at = tuple(jax.lax.axis_index(axis) for axis in mesh.axis_names)
    return ids[at] == number


def test_replicas_of_split_arrays_are_compared_within_their_part():
    found = np.zeros((2, 2, 3), np.uint32)  # axes a, b; three arrays
    found[:, 1, 0] = 9  # split over b: its parts differ, replicas along a do not
    specs = [P("b"), P(None, ("a", "b")), P()]
    assert verify.odd_replicas(found, specs, ("a", "b")) is None
    found[..., 1] = [[1, 2], [3, 4]]  # split over both: nothing to compare
    assert verify.odd_replicas(found, specs, ("a", "b")) is None
    found[1, 0, 2] = 1
    assert verify.odd_replicas(found, specs, ("a", "b")) == (2, [(1, 0)], True)
