# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Pipeline parallelism: the devices along mesh axis `stage` hold different layers.

A batch is cut into M microbatches that go from stage to stage, all S stages at work on
different ones: GPipe (arXiv:1811.06965) as one loop of a shifted buffer, which the
compiler partitions (GSPMD, arXiv:2105.04663, section 3.3). With R repeats a stage holds
R shorter runs of layers and a microbatch goes round R times, S microbatches together:
the interleaved schedule (arXiv:2104.04473, section 2.2). Stages stand idle, here
computing on nothing, for a share (S - 1) / (M R + S - 1) of the step.

Between iterations every stage keeps K = M / S microbatches that wait and K that are
done; they move by one stage as often as the first stage takes one, or the last one
ends one, so that batches come in and go out cut over the stages as well.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config_model import PipelineConfig
from podium.models.pipeline_schedule import Schedule, make_schedule
from podium.sharding.constrain import current_rules, use_rules
from podium.sharding.rules import ShardingRules


class Flow(NamedTuple):
    """What goes from stage to stage."""

    x_BTD: Array
    positions_BT: Array
    segment_ids_BT: Array | None


AXES = (("batch", "act_length", "act_embed"), ("batch", "length"), ("batch", "length"))


def schedule(
    cfg: PipelineConfig, rules: ShardingRules | None, rows: int
) -> Schedule | None:
    """The schedule of a batch of `rows` rows, or None where no mesh axis `stage` is.

    Raises ConfigError where the rows do not divide into the microbatches.
    """
    if rules is None or "stage" not in rules.mesh_axes("layers"):
        return None
    devices = inside_a_stage(rules).num_shards("batch")
    stages = rules.mesh.shape["stage"]
    return make_schedule(cfg, stages=stages, rows=rows, devices=devices)


def inside_a_stage(rules: ShardingRules) -> ShardingRules:
    """The rules as the layers of one stage see them: without the axis `stage`."""
    table = {
        field.name: value and tuple(axis for axis in value if axis != "stage")
        for field in dataclasses.fields(rules.config)
        for value in (getattr(rules.config, field.name),)
    }
    return dataclasses.replace(rules, config=type(rules.config)(**table))


def pipeline(
    run_layers: Callable[[Any, Flow], tuple[Array, Any]],
    layers: Any,
    flow: Flow,
    plan: Schedule,
    keep: Callable | None,
) -> tuple[Array, Any]:
    """All layers on all rows: x [B, T, D], and what each layer counted.

    Args:
        run_layers: (layers of one stage [n, ..], one microbatch) -> (x, counts [n, ..]).
            Counts are sums over rows.
        layers: leaves [S n, ..], or [R, S n, ..] where R > 1.
        flow: the whole batch.
        keep: remat policy of `run_layers` where R > 1, None: keep all. The weights of a
            run are never kept: they are cheaper to choose anew.
    """
    rules = current_rules()
    assert rules is not None
    inner = inside_a_stage(rules)
    S, M, R = plan
    runs = [_run(layers, i, plan) for i in range(R)]
    stage_S = jnp.arange(S)

    def on_stages(flow: Flow, *between: None) -> Flow:
        def place(x: Array | None, axes: tuple[str, ...]) -> Any:
            sharding = NamedSharding(
                rules.mesh, P("stage", *between, *inner.spec(*axes))
            )
            return x if x is None else jax.lax.with_sharding_constraint(x, sharding)

        return Flow(*(place(x, axes) for x, axes in zip(flow, AXES, strict=True)))

    def run_stage(runs: list[Any], repeat: Array, part: Flow) -> tuple[Array, Any]:
        if R == 1:
            return run_layers(runs[0], part)
        mine = jax.tree.map(lambda *ws: jax.lax.select_n(repeat, *ws), *runs)
        return run_layers(mine, part)

    if R > 1:
        policy = keep or _all_but_choices
        run_stage = jax.checkpoint(run_stage, policy=policy, prevent_cse=False)
    run_stages = jax.vmap(run_stage, in_axes=(0, 0, 0), spmd_axis_name="stage")

    waiting = on_stages(jax.tree.map(lambda x: _cut(x, plan), flow), None)
    done = jnp.zeros_like(waiting.x_BTD)
    at_work = jax.tree.map(lambda x: jnp.zeros_like(x[:, 0]), waiting)
    with use_rules(inner):
        shapes = jax.eval_shape(run_stages, runs, stage_S, at_work)[1]
    counts = jax.tree.map(lambda s: jnp.zeros((R, *s.shape), s.dtype), shapes)

    def step(carry: tuple, time: Array) -> tuple[tuple, None]:
        waiting, at_work, done, counts = carry
        microbatch_S, repeat_S = plan.at(jnp.maximum(time - stage_S, 0))
        is_real_S = (time >= stage_S) & (time - stage_S < M * R)

        # The first stage takes the next that waits, or one that goes round again.
        takes = repeat_S[0] == 0
        slot = microbatch_S[0] % (M // S)
        new = jax.tree.map(lambda x: _slot(x, slot), waiting)
        at_work = jax.tree.map(
            lambda x, new: jnp.where(_like(takes & (stage_S == 0), x), new, x),
            at_work,
            new,
        )
        waiting = jax.tree.map(
            lambda x, new: _put(x, slot, jnp.where(takes, jnp.roll(new, -1, 0), new)),
            waiting,
            new,
        )

        at_work = on_stages(at_work)
        x, counted = run_stages(runs, repeat_S, at_work)
        at_work = on_stages(at_work._replace(x_BTD=x))

        # The last stage has ended one: it joins those done, which move on by one stage.
        ends = is_real_S[-1] & (repeat_S[-1] == R - 1)
        slot = microbatch_S[-1] % (M // S)
        old = _slot(done, slot)
        moved = jnp.where(_like(stage_S == S - 1, x), x, jnp.roll(old, -1, 0))
        done = _put(done, slot, jnp.where(ends, moved, old))

        is_mine_RS = (jnp.arange(R)[:, None] == repeat_S[None]) & is_real_S[None]
        counts = jax.tree.map(
            lambda total, y: total + jnp.where(_like(is_mine_RS, total), y[None], 0),
            counts,
            counted,
        )
        at_work = jax.tree.map(lambda x: jnp.roll(x, 1, 0), at_work)
        return (on_stages(waiting, None), at_work, done, counts), None

    with use_rules(inner):
        carry, _ = jax.lax.scan(
            step, (waiting, at_work, done, counts), jnp.arange(plan.num_times)
        )
    _, _, done, counts = carry
    lead = (R,) if R > 1 else ()
    counts = jax.tree.map(lambda y: y.reshape(*lead, -1, *y.shape[3:]), counts)
    return _uncut(done), counts


def _all_but_choices(primitive: Any, *_: Any, **__: Any) -> bool:
    # Under vmap a choice is a select by a mask of the weights' size.
    return primitive not in (jax.lax.select_n_p, jax.lax.broadcast_in_dim_p)


def _run(layers: Any, repeat: int, plan: Schedule) -> Any:
    """[S n, ..] or [R, S n, ..] -> [S, n, ..], one run of every stage; no element
    changes device."""

    def of(w: Array) -> Array:
        w = w if plan.repeats == 1 else w[repeat]
        return w.reshape(plan.stages, -1, *w.shape[1:])

    return jax.tree.map(of, layers)


def _cut(x: Array, plan: Schedule) -> Array:
    """[B, ..] -> [S, K, B / M, ..]. Row (s m + i) K + k, with m = B / M, is row i of
    microbatch (s, k): no row changes device."""
    S, K = plan.stages, plan.microbatches // plan.stages
    return x.reshape(S, -1, K, *x.shape[1:]).swapaxes(1, 2)


def _uncut(x: Array) -> Array:
    x = x.swapaxes(1, 2)
    return x.reshape(-1, *x.shape[3:])


def _slot(x: Array, slot: Array) -> Array:
    """[S, K, ..] -> [S, ..]"""
    return jax.lax.dynamic_index_in_dim(x, slot, axis=1, keepdims=False)


def _put(x: Array, slot: Array, new: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(x, new, slot, axis=1)


def _like(mask: Array, x: Array) -> Array:
    """A mask over the leading dims of x, broadcastable against it."""
    return mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
