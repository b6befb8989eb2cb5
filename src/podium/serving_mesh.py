# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""On which mesh a checkpoint generates: the rules of its run, for rows of one token."""

import dataclasses

import jax

from podium.config import MeshConfig, ShardingConfig
from podium.config_model import ModelConfig
from podium.decoding import state_layout, weights_layout
from podium.errors import ShardingError
from podium.mesh_name import mesh_of
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules


def serving_rules(sharding: ShardingConfig, mesh: jax.sharding.Mesh) -> ShardingRules:
    """A run's rules for a program whose rows are one token long, and not a pipeline.

    Positions are not split, and layers neither: the axes that did it split what else
    the rules say, as `stage` the rows.
    """
    whole = {"length": (), "act_length": (), "layers": ()}
    return ShardingRules(dataclasses.replace(sharding, **whole), mesh)


def one_device() -> ShardingRules:
    """Rules for the first device alone."""
    return serving_rules(ShardingConfig(), make_mesh(mesh_of({}), jax.devices()[:1]))


def choose_mesh(
    model: ModelConfig, sharding: ShardingConfig, asked: MeshConfig | None
) -> ShardingRules:
    """Rules on the mesh that was asked for, of all devices.

    None: heads are split over as many devices as they divide by, for then a weight
    stays where it is; over the rest the model width, or else the rows alone. Raises
    ShardingError where the model does not fit the mesh asked for.
    """
    if asked is not None:
        rules = serving_rules(sharding, make_mesh(asked))
        check_layout(model, rules)
        return rules
    num = jax.device_count()
    sizes = [n for n in range(num, 0, -1) if num % n == 0]
    shapes = [{"tensor": n, rest: num // n} for rest in ("fsdp", "data") for n in sizes]
    for shape in shapes:
        rules = serving_rules(sharding, make_mesh(mesh_of(shape)))
        try:
            check_layout(model, rules)
        except ShardingError:
            continue
        return rules
    return serving_rules(sharding, make_mesh(mesh_of({"data": num})))


def check_layout(model: ModelConfig, rules: ShardingRules) -> None:
    """Raises ShardingError where weights or cache do not divide."""
    weights_layout(model, rules)
    state_layout(model, rules, rules.num_shards("batch"), 1)
