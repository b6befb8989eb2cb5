# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One training step: loss -> gradients -> update, a pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config import TrainConfig
from podium.input.batch import Batch
from podium.models import bind
from podium.models.adapters import bound
from podium.models.layer_stack import layer_stacks
from podium.models.transformer import Transformer, in_order
from podium.models.width import ratios
from podium.sharding.constrain import shard, use_rules
from podium.sharding.rules import ShardingRules
from podium.trainer.balance import Loads, balanced, max_load, summed
from podium.trainer.guard import judge, layer_norms, unless
from podium.trainer.loss import (
    GroupSums,
    LossSums,
    group_sums,
    loss_sums,
    scored_tokens,
    token_logprobs,
)
from podium.trainer.optimizer import make_clip, make_rule
from podium.trainer.preference import PreferenceSums, num_pairs, preference_sums
from podium.trainer.state import StateLayout, TrainState, reference
from podium.trainer.update import Updatable, is_on_host, update_by_layer

Sums = LossSums | PreferenceSums
StepFn = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def make_train_step(
    cfg: TrainConfig,
    model: bind.Abstract,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    rules: ShardingRules,
    state_layout: StateLayout,
) -> StepFn:
    """The jitted step: (state, batch) -> (state, metrics). The old state is donated.

    Metrics are float32 scalars: loss (nats per token), z_loss (with `dpo`, loss is per
    pair, and PreferenceSums.metrics are there instead of z_loss), grad_norm,
    param_norm, learning_rate, tokens (scored), skipped (1: no update), spike_z; and
    vectors [layers], layer_grad_norm/<tensor>.
    """

    step = step_with_gradients(cfg, model, optimizer, schedule, rules, state_layout)

    def train_step(state: TrainState, batch: Batch):  # its name is the program's
        return step(state, batch)[:2]

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(state_layout.shardings, batch_sharding(rules)),
        out_shardings=(state_layout.shardings, None),
    )


def step_with_gradients(
    cfg: TrainConfig,
    model: bind.Abstract,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    rules: ShardingRules,
    state_layout: StateLayout,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array], Any]]:
    """The step before it is jitted; it also returns the gradients, for who compares."""
    update = _make_update(cfg, model, optimizer, schedule, rules, state_layout)

    def train_step(state: TrainState, batch: Batch):
        with use_rules(rules):
            (sums, loads), grads = _gradients(cfg, model, state, batch)
            grads = jax.lax.with_sharding_constraint(grads, state_layout.gradients)
            # No number where a batch has no token left, as after damage: it is skipped.
            loss = sums.mean()
            layers = layer_norms(grads, tuple(layer_stacks(cfg.model)))
            grad_norm = optax.tree.norm(layers)
            verdict = judge(cfg.faults, state.recent, loss, grad_norm)
            with jax.named_scope("optimizer"):
                params, opt_state = update(
                    grads, state.opt_state, state.params, verdict.is_skipped
                )
            loads = jax.tree.map(
                lambda load: jnp.where(verdict.is_skipped, 0.0, load), loads
            )
            if state.frozen is None:
                params = balanced(cfg.model, cast(Any, params), loads)
            metrics = {
                "loss": loss,
                **sums.metrics(cfg.loss.z_loss),
                "grad_norm": grad_norm,
                "param_norm": optax.tree.norm(params),
                "learning_rate": schedule(state.step),
                "tokens": sums.tokens,
                "skipped": verdict.is_skipped.astype(jnp.float32),
                "spike_z": verdict.spike_z,
                **layers,
            }
            if loads:
                metrics["balance_loss"] = sums.balance / jnp.maximum(sums.tokens, 1.0)
                metrics["expert_load_max"] = max_load(loads)
            return (
                TrainState(
                    step=state.step + 1,
                    params=params,
                    opt_state=opt_state,
                    ema=_average(cfg.optim.ema_decay, state.ema, params),
                    recent=verdict.recent,
                    frozen=state.frozen,
                    reference=state.reference,
                ),
                metrics,
                grads,
            )

    return train_step


def _make_update(
    cfg: TrainConfig,
    model: bind.Abstract,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    rules: ShardingRules,
    state_layout: StateLayout,
) -> Callable[[Any, Any, Any, Array], tuple[Any, Any]]:
    """(gradients, optimizer state, parameters, whether to leave all as it is) ->
    (parameters, optimizer state)."""

    def at_once(
        grads: Any, opt_state: Any, params: Any, is_skipped: Array
    ) -> tuple[Any, Any]:
        rule = unless(is_skipped, optimizer)
        updates, opt_state = rule.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def by_layer(
        grads: Any, opt_state: Any, params: Any, is_skipped: Array
    ) -> tuple[Any, Any]:
        clip_state, rule_state = opt_state
        grads, clip_state = make_clip(cfg.optim).update(grads, clip_state)
        params, rule_state = update_by_layer(
            lambda take: unless(
                is_skipped, make_rule(cfg.optim, schedule, take(model.axes), wider)
            ),
            grads,
            Updatable(params, rule_state),
            is_on_host(state_layout.shardings.opt_state[1]),
            stacks,
        )
        return params, (clip_state, rule_state)

    wider = ratios(cfg.model) if cfg.model.width_transfer else None
    # Stages of a pipeline hold different layers: theirs are updated at once.
    stacks = tuple(
        name
        for name in layer_stacks(cfg.model)
        if name != "stack" or "stage" not in rules.mesh_axes("layers")
    )
    return by_layer if cfg.optim.state_memory == "host" else at_once


def make_eval_step(
    cfg: TrainConfig,
    model: bind.Abstract,
    rules: ShardingRules,
    params_sharding: Any,
    num_groups: int = 1,
) -> Callable[[Any, Batch, Array], GroupSums]:
    """The jitted (params, batch, group of every target) -> sums of the held-out loss."""

    def eval_step(params: Any, batch: Batch, groups_BT: Array) -> GroupSums:
        with use_rules(rules):
            run = run_blocks(model, params, batch)
            groups_BT = shard(in_order(groups_BT, run.order), "batch", "length")
            with jax.named_scope("loss"):
                return group_sums(
                    run.net.logits,
                    run.hidden_BTD,
                    run.targets_BT,
                    groups_BT,
                    num_groups,
                    cfg.loss,
                )

    rows = batch_sharding(rules)
    return jax.jit(
        eval_step,
        in_shardings=(params_sharding, rows, rows),
        out_shardings=NamedSharding(rules.mesh, P()),
    )


def make_pair_eval_step(
    cfg: TrainConfig, model: bind.Abstract, rules: ShardingRules, params_sharding: Any
) -> Callable[[Any, Batch], PreferenceSums]:
    """The jitted ((params, reference), batch) -> sums over held-out pairs."""

    def eval_step(params: Any, batch: Batch) -> PreferenceSums:
        own, reference = params
        with use_rules(rules):
            return _pair_sums(cfg, model, own, reference, batch)[0]

    return jax.jit(eval_step, in_shardings=(params_sharding, batch_sharding(rules)))


def batch_sharding(rules: ShardingRules) -> NamedSharding:
    """Sharding of every field of a Batch: rows over the batch axes."""
    return NamedSharding(rules.mesh, rules.spec("batch", "length"))


class Run(NamedTuple):
    """What the blocks made of a batch; tokens stand in `order`."""

    net: Transformer
    order: np.ndarray | None
    batch: Batch
    hidden_BTD: Array
    routings: dict

    @property
    def targets_BT(self) -> Array:
        """What is scored."""
        return self.batch.targets


def run_blocks(model: bind.Abstract, params: Any, batch: Batch) -> Run:
    """The forward pass of training up to the output head; for use under `use_rules`."""
    net = bind.bind(model.graphdef, params)
    order = net.order(batch.tokens.shape[1])
    batch = Batch(*(shard(in_order(x, order), "batch", "length") for x in batch))
    hidden_BTD, routings = net.ordered(batch.tokens, batch.positions, batch.segment_ids)
    return Run(net, order, batch, hidden_BTD, routings)


def _forward(
    cfg: TrainConfig, model: bind.Abstract, params: Any, reference: Any, batch: Batch
) -> tuple[Sums, Loads]:
    if cfg.dpo is not None:
        sums, routings = _pair_sums(cfg, model, params, reference, batch)
    else:
        run = run_blocks(model, params, batch)
        routings = run.routings
        with jax.named_scope("loss"):
            sums = loss_sums(run.net.logits, run.hidden_BTD, run.targets_BT, cfg.loss)
    balance, loads = summed(cfg.model, routings)
    return dataclasses.replace(sums, balance=balance), loads


def _pair_sums(
    cfg: TrainConfig, model: bind.Abstract, params: Any, reference: Any, batch: Batch
) -> tuple[PreferenceSums, dict]:
    """Sums over pairs, and the routings of the weights that are trained."""
    assert cfg.dpo is not None

    def logprobs(run: Run) -> Array:
        return token_logprobs(run.net.logits, run.hidden_BTD, run.targets_BT, cfg.loss)

    run = run_blocks(model, params, batch)
    with jax.named_scope("loss"):
        own_BT = logprobs(run)
    with jax.named_scope("reference"):
        stays = run_blocks(model, jax.lax.stop_gradient(reference), batch)
        reference_BT = jax.lax.stop_gradient(logprobs(stays))
    return preference_sums(own_BT, reference_BT, run.batch, cfg.dpo), run.routings


def _gradients(
    cfg: TrainConfig, model: bind.Abstract, state: TrainState, batch: Batch
) -> tuple[tuple[Sums, Loads], Any]:
    # The mean is over the tokens, or pairs, of the whole batch, not of the part, so that
    # accumulated gradients equal the big batch's also when padding is uneven.
    params, num_tokens = state.params, scored_tokens(batch.targets)
    pairs = None if cfg.dpo is None else num_pairs(batch)
    stays = reference(cfg, state)

    def objective(params: Any, part: Batch) -> tuple[Array, tuple[Sums, Loads]]:
        whole = bound(cfg.lora, params, state.frozen)
        sums, loads = _forward(cfg, model, whole, stays, part)
        if isinstance(sums, PreferenceSums):
            assert pairs is not None
            return sums.objective(pairs, num_tokens), (sums, loads)
        return sums.objective(cfg.loss.z_loss, num_tokens), (sums, loads)

    grad_fn = jax.grad(objective, has_aux=True)
    if cfg.grad_accum_steps == 1:
        grads, sums = grad_fn(params, batch)
        return sums, grads

    def body(total: Any, part: Batch) -> tuple[Any, None]:
        part = Batch(*(shard(x, "batch", "length") for x in part))
        return jax.tree.map(jnp.add, total, grad_fn(params, part)), None

    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(
            grad_fn, params, jax.tree.map(lambda x: x[0], _split(cfg, batch))
        ),
    )
    (grads, sums), _ = jax.lax.scan(body, zeros, _split(cfg, batch))
    return sums, grads


def _split(cfg: TrainConfig, batch: Batch) -> Batch:
    """[B, T] -> [A, B / A, T]; row r goes to part r % A, so no row changes device."""
    A = cfg.grad_accum_steps
    return Batch(
        *(x.reshape(x.shape[0] // A, A, x.shape[1]).swapaxes(0, 1) for x in batch)
    )


def _average(decay: float | None, ema: Any, params: Any) -> Any:
    if decay is None:
        return None
    return jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, ema, params)
