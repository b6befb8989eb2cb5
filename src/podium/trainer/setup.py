# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Config + devices -> everything a run needs, before any memory is taken or compiled.

Training, evaluation, the sharding report and the planner all start here, so what they
say about a run is what the run does.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from podium.config import TrainConfig
from podium.errors import ConfigError, ShardingError
from podium.input.batch import Batch
from podium.models import adapters, bind, pipeline
from podium.models.attention_dispatch import check_implementation
from podium.models.width import ratios
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from podium.trainer.compiler_options import compiler_options
from podium.trainer.optimizer import make_optimizer
from podium.trainer.reference import with_reference
from podium.trainer.schedule import learning_rate
from podium.trainer.state import StateLayout, layout
from podium.trainer.step import StepFn, batch_sharding, make_train_step


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run on one mesh."""

    cfg: TrainConfig
    rules: ShardingRules
    model: bind.Abstract  # shapes and axes of what is trained: of adapters, with `lora`
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    layout: StateLayout
    train_step: Any  # jitted StepFn

    def arguments(self) -> tuple[Any, Batch]:
        """What the step takes, as shapes with their shardings."""
        shape = (self.cfg.global_batch_seqs, self.cfg.data.seq_len)
        rows = jax.ShapeDtypeStruct(
            shape, jnp.int32, sharding=batch_sharding(self.rules)
        )
        return self.layout.abstract(), Batch(rows, rows, rows, rows)

    def compile_step(self) -> StepFn:
        """The step compiled ahead of time; takes no memory, may run in a thread."""
        lowered = self.train_step.lower(*self.arguments())
        options = compiler_options(self.mesh)
        return lowered.compile(compiler_options=options or None)

    @property
    def mesh(self) -> Mesh:
        """The mesh that the rules speak of."""
        return self.rules.mesh


def setup(cfg: TrainConfig, devices: list | None = None) -> Setup:
    """Builds the parts; raises ConfigError or ShardingError where they do not fit."""
    if not isinstance(cfg, TrainConfig):
        raise ConfigError(
            f"setup got a {type(cfg).__name__}; expected a TrainConfig: make one with "
            "podium.config_dict.from_config_dict(TrainConfig, cfg)"
        )
    rules = ShardingRules(cfg.sharding, make_mesh(cfg.mesh, devices))
    check_rules_are_used(rules, bind.abstract(cfg.model).axes)
    check_batch(cfg, rules)
    check_length(cfg, rules)
    check_implementation(cfg.model, cfg.data.seq_len, rules)
    rows = cfg.global_batch_seqs // cfg.grad_accum_steps
    pipeline.schedule(cfg.model.pipeline, rules, rows)
    model, frozen = bind.abstract(cfg.model), None
    if cfg.lora is not None:
        model, frozen = (
            adapters.trained(model, cfg.lora),
            adapters.frozen(model, cfg.lora),
        )
    schedule = learning_rate(cfg.optim, cfg.num_steps)
    wider = ratios(cfg.model) if cfg.model.width_transfer else None
    optimizer = make_optimizer(cfg.optim, schedule, model.axes, wider)
    state_layout = layout(
        model,
        optimizer,
        rules,
        use_ema=cfg.optim.ema_decay is not None,
        state_memory=cfg.optim.state_memory,
        frozen=frozen,
    )
    if cfg.has_reference:
        state_layout = with_reference(state_layout, cfg)
    step = make_train_step(cfg, model, optimizer, schedule, rules, state_layout)
    return Setup(cfg, rules, model, schedule, optimizer, state_layout, step)


OFF_WORK = ("embed", "opt_embed", "expert_embed", "latent", "act_length")
"""Rules that split weights, or what lies between two parts of a block: not work.

Layers are work only as stages of a pipeline."""


def check_batch(cfg: TrainConfig, rules: ShardingRules) -> None:
    """Every device gets the same number of rows of every micro-batch."""
    axes, parts = rules.mesh_axes("batch"), rules.num_shards("batch")
    rows = cfg.global_batch_seqs // cfg.grad_accum_steps
    if rows % parts:
        larger = -(-rows // parts) * parts * cfg.grad_accum_steps
        raise ConfigError(
            f"global_batch_seqs ({cfg.global_batch_seqs}) / grad_accum_steps "
            f"({cfg.grad_accum_steps}) = {rows} rows do not divide over the {parts} "
            f"devices of mesh axes {'*'.join(axes)}. Use global_batch_seqs={larger}, or "
            f"a smaller {' or '.join(f'mesh.{axis}' for axis in axes)}."
        )


def check_length(cfg: TrainConfig, rules: ShardingRules) -> None:
    """Every device gets the same number of positions, in two pieces for a ring."""
    T, devices = cfg.data.seq_len, rules.num_shards("length")
    is_ring = devices > 1 and cfg.model.attention.context == "ring"
    pieces, between = devices * (2 if is_ring else 1), rules.num_shards("act_length")
    both = math.lcm(pieces, between)
    larger = f"Use data.seq_len={-(-T // both) * both}"
    axes = "*".join(rules.mesh_axes("length"))
    if T % pieces:
        why = f"{devices} devices of mesh axis {axes}"
        if is_ring:
            why = (
                f"{pieces} pieces: each of the {why}, a ring, holds an early and a late "
                "one"
            )
        raise ConfigError(
            f"data.seq_len ({T}) does not divide into {why}. {larger}, or a smaller "
            "mesh.context"
        )
    if T % between:
        axes = "*".join(rules.mesh_axes("act_length"))
        raise ConfigError(
            f"data.seq_len ({T}) does not divide over the {between} devices of mesh axes "
            f"{axes}, which split rows between the blocks' parts. {larger}, or "
            "sharding.act_length=()"
        )


def check_rules_are_used(rules: ShardingRules, axes: dict) -> None:
    """A mesh axis that splits nothing, or a rule that touches nothing, is an error."""
    leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
    carried = {name for leaf in leaves for name in leaf}
    carried |= {"batch", "length", "act_length", "act_embed", "opt_embed"}
    used = set()
    for field in dataclasses.fields(rules.config):
        mesh_axes = rules.mesh_axes(field.name)
        is_ours = getattr(rules.config, field.name) == field.default
        if mesh_axes and field.name not in carried and not is_ours:
            raise ShardingError(
                f"sharding.{field.name}={mesh_axes} matches no tensor of this model; "
                f"set sharding.{field.name}=()"
            )
        if field.name in carried and field.name not in OFF_WORK:
            is_work = {"stage"} if field.name == "layers" else set(mesh_axes)
            used |= is_work & set(mesh_axes)
    for axis, size in rules.mesh.shape.items():
        if size > 1 and axis not in used:
            raise ShardingError(
                f"mesh axis {axis!r} ({size}) splits no work, so {size - 1} of every "
                f"{size} devices would only repeat it; set mesh.{axis}=1, or name it in "
                f"a rule such as sharding.batch=('data', '{axis}')"
            )
