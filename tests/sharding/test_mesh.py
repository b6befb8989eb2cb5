# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from podium.config import MeshConfig
from podium.config_mesh import SlicesConfig
from podium.errors import ConfigError, ShardingError
from podium.sharding.mesh import fit, make_mesh


def ids(mesh) -> np.ndarray:
    return np.vectorize(lambda d: d.id)(mesh.devices).squeeze()


def test_only_the_named_axis_leaves_a_slice():
    # 2 slices of 4 devices: 0-3 and 4-7.
    mesh = make_mesh(
        MeshConfig(data=2, fsdp=4, slices=SlicesConfig(data=2)), jax.devices()
    )
    np.testing.assert_array_equal(ids(mesh), [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_an_axis_may_lie_partly_across_slices_the_slice_outermost():
    mesh = make_mesh(
        MeshConfig(data=2, fsdp=4, slices=SlicesConfig(data=1, fsdp=2)), jax.devices()
    )
    got = ids(mesh)
    # Along fsdp the first half lies in slice 0, the second in slice 1.
    assert (got[:, :2] < 4).all()
    assert (got[:, 2:] >= 4).all()


def test_slices_default_to_the_data_axis():
    _, across = fit(MeshConfig(data=8, fsdp=1), 8, 4)
    assert across["data"] == 4


def test_an_axis_that_does_not_divide_by_its_slices_says_so():
    with pytest.raises(
        ShardingError, match=r"mesh.data \(1\) does not divide by mesh.sl"
    ):
        make_mesh(MeshConfig(slices=SlicesConfig(data=2)), jax.devices())


def test_a_mesh_for_one_slice_is_told_along_which_axis_several_lie():
    with pytest.raises(ShardingError, match=r"there are 256. Set .*mesh.data=-1"):
        fit(MeshConfig(fsdp=128), 256, 2)


def test_slices_that_do_not_exist_are_an_error():
    with pytest.raises(ShardingError, match="takes 3 slices, but there are 4"):
        fit(MeshConfig(slices=SlicesConfig(data=3)), 8, 4)
    with pytest.raises(ConfigError, match="sizes are 1 or more"):
        SlicesConfig(data=0)
