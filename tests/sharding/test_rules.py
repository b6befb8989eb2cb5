# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import pytest
from jax.sharding import PartitionSpec as P

from podium.config import MeshConfig, ShardingConfig
from podium.errors import ShardingError
from podium.sharding.mesh import fit, make_mesh
from podium.sharding.rules import ShardingRules


def rules(mesh=None, **changes) -> ShardingRules:
    mesh = mesh or MeshConfig(data=2, fsdp=2, tensor=2)
    return ShardingRules(ShardingConfig(**changes), make_mesh(mesh))


def test_specs_follow_the_table():
    assert rules().spec("embed", "mlp") == P("fsdp", "tensor")
    assert rules().spec("batch", "length", "act_embed") == P(
        ("data", "fsdp"), None, None
    )


def test_axes_of_size_one_leave_no_trace_in_a_spec():
    one = rules(MeshConfig(data=1, fsdp=8, tensor=1))
    assert one.spec("embed", "mlp") == P("fsdp", None)


def test_an_unknown_logical_axis_is_an_error():
    with pytest.raises(
        ShardingError, match="unknown logical axis 'emded'; known: batch"
    ):
        rules().spec("emded")


def test_one_mesh_axis_cannot_split_two_dims_of_an_array():
    with pytest.raises(
        ShardingError, match=r"'fsdp' would split two dims.*'batch'.*'embed'"
    ):
        rules().spec("batch", "embed")


def test_a_dim_that_does_not_divide_names_tensor_axis_and_fix():
    with pytest.raises(ShardingError) as error:
        rules().sharding(("embed", "heads", "head_dim"), (64, 3, 8), "params/q")
    assert str(error.value) == (
        "params/q [64, 3, 8]: axis 'heads' (3) does not divide by mesh axis tensor (2). "
        "Use mesh.tensor=1 and 2 times as many of another axis, or "
        "model.attention.num_heads=4, or sharding.heads=()."
    )


def test_mesh_takes_what_is_left():
    assert fit(MeshConfig(data=2, fsdp=-1, tensor=2), 8)[0] == {
        "stage": 1,
        "data": 2,
        "fsdp": 2,
        "expert": 1,
        "context": 1,
        "tensor": 2,
    }


def test_layers_are_not_to_be_repeated_on_every_stage():
    eight = rules(MeshConfig(stage=8, fsdp=1))
    with pytest.raises(ShardingError) as error:
        eight.sharding(("layers",), (12,), "stack")
    assert str(error.value).endswith("or model.num_layers=16.")


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (MeshConfig(data=3), "8 devices do not divide by 3"),
        (MeshConfig(data=2, fsdp=2), "takes 4 devices, but there are 8"),
        (MeshConfig(data=4, fsdp=4), "takes 16 devices, but there are 8"),
    ],
)
def test_no_chip_is_left_over_and_none_is_invented(mesh, message):
    with pytest.raises(ShardingError, match=message):
        make_mesh(mesh)


def test_the_mesh_uses_every_device_once():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}
