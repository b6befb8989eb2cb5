# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""TrainState, and how it comes into being already sharded."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config import TrainConfig
from podium.config_lora import Lora
from podium.config_model import ModelConfig
from podium.models import adapters, bind
from podium.models.axes import is_matrix
from podium.sharding.rules import ShardingRules
from podium.trainer.guard import nothing_yet
from podium.trainer.update import on_host


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a step takes and gives back, one pytree of global arrays. All of it changes
    but `frozen`, which no checkpoint holds."""

    step: Any  # [] int32, steps done; names the next batch
    params: Any  # nested dict of float32
    opt_state: Any  # optax's
    ema: Any  # averaged params, or None
    recent: Any  # guard.Recent: losses and gradient norms of the last steps
    frozen: Any = None  # with adapters, which `params` then are: the weights below them
    reference: Any = None  # with `dpo`, without adapters: other weights, which stay


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """Shape and sharding of every leaf of a TrainState, before any memory is used."""

    shapes: TrainState  # of jax.ShapeDtypeStruct
    shardings: TrainState  # of NamedSharding
    gradients: Any  # NamedSharding of every reduced gradient: its moments' layout

    @property
    def own_shardings(self) -> TrainState:
        """Without the reference, which comes from elsewhere."""
        return dataclasses.replace(self.shardings, reference=None)

    def abstract(self) -> TrainState:
        """Shapes that carry their shardings: what a restore reads into."""
        return jax.tree.map(
            lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh),
            self.shapes,
            self.shardings,
        )


def new_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    use_ema: bool,
    frozen: Any = None,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if use_ema else None,
        recent=nothing_yet(),
        frozen=frozen,
    )


def weights(cfg: TrainConfig, state: TrainState) -> Any:
    """What the model computes with after a step, for evaluation: averaged if there are
    averages; with adapters as `adapters.bound` puts them. Of shardings alike."""
    params = state.params if state.ema is None else state.ema
    return adapters.bound(cfg.lora, params, state.frozen)


def reference(cfg: TrainConfig, state: TrainState) -> Any:
    """What a run on preferences is measured against, of a state or of shardings: the
    weights below its adapters, or a copy of those that it began with."""
    return state.reference if cfg.lora is None else state.frozen


def layout(
    model: bind.Abstract,
    optimizer: optax.GradientTransformation,
    rules: ShardingRules,
    *,
    use_ema: bool,
    state_memory: str = "device",
    frozen: bind.Abstract | None = None,
) -> StateLayout:
    """Where every leaf lives. Optimizer moments lie as their parameter does, on the
    device or, but for vectors such as norms', in its host's memory.

    `model` is what is trained; under adapters `frozen` is what is not.
    """
    param_shardings = param_layout(model, rules)
    moment_shardings = param_layout(model, rules, embed="opt_embed")
    shapes = jax.eval_shape(
        lambda p, frozen: new_state(p, optimizer, use_ema, frozen),
        model.shapes,
        frozen and frozen.shapes,
    )
    replicated = NamedSharding(rules.mesh, P())

    of_param = {
        _dict_path(path): (shape.shape, sharding)
        for (path, shape), sharding in zip(
            jax.tree_util.tree_leaves_with_path(model.shapes),
            jax.tree.leaves(moment_shardings),
            strict=True,
        )
    }

    # A layer's share of a stack of vectors cannot cross alone on TPUs, and is small.
    axes = jax.tree_util.tree_leaves_with_path(
        model.axes, is_leaf=lambda x: isinstance(x, tuple)
    )
    kernels = {_dict_path(path) for path, named in axes if is_matrix(named)}

    def moment(path: tuple, leaf: Any) -> NamedSharding:
        # Adafactor keeps row and column means, of other shapes: small, replicated.
        names = _dict_path(path)  # optax may put names of its own in front
        for i in range(len(names)):
            shape, sharding = of_param.get(names[i:], (None, replicated))
            if leaf.shape == shape:
                is_kernel = names[i:] in kernels
                hosted = state_memory == "host" and is_kernel
                return on_host(sharding) if hosted else sharding
        return replicated

    opt_shardings = jax.tree.map_with_path(moment, shapes.opt_state)
    shardings = TrainState(
        step=replicated,
        params=param_shardings,
        opt_state=opt_shardings,
        ema=moment_shardings if use_ema else None,
        recent=jax.tree.map(lambda _: replicated, shapes.recent),
        frozen=frozen and param_layout(frozen, rules),
    )
    return StateLayout(shapes, shardings, moment_shardings)


def _dict_path(path: tuple) -> tuple[str, ...]:
    """The parameter's own path within the path of an optimizer leaf."""
    return tuple(k.key for k in path if isinstance(k, jax.tree_util.DictKey))


def param_layout(
    model: bind.Abstract, rules: ShardingRules, embed: str = "embed"
) -> Any:
    """NamedSharding of every parameter, its "embed" axis split by the rule `embed`.

    Raises ShardingError where one does not fit.
    """
    return jax.tree.map_with_path(
        lambda path, shape, axes: rules.sharding(
            tuple(embed if axis == "embed" else axis for axis in axes),
            shape.shape,
            "params/" + jax.tree_util.keystr(path, simple=True, separator="/"),
        ),
        model.shapes,
        model.axes,
        is_leaf=lambda x: isinstance(x, jax.ShapeDtypeStruct),
    )


def init_state(
    model: ModelConfig,
    seed: int,
    optimizer: optax.GradientTransformation,
    state_layout: StateLayout,
    lora: Lora | None = None,
) -> TrainState:
    """Random parameters, each device making its own shard of them."""
    use_ema = state_layout.shapes.ema is not None

    def init(key: Array) -> TrainState:
        params, frozen = bind.init_params(model, key), None
        if lora is not None:
            frozen = adapters.freeze(bind.abstract(model), params, lora)
            params = adapters.init(bind.abstract(model), lora, frozen, seed)
        return new_state(params, optimizer, use_ema, frozen)

    # Random bits are much code that runs once: on a CPU, compiling it with all
    # optimizations takes longer than the training step does.
    is_cpu = state_layout.shardings.step.mesh.devices.flat[0].platform == "cpu"
    has_less = jax.config.values["jax_disable_most_optimizations"]
    options = {"xla_backend_optimization_level": 1} if is_cpu and not has_less else None
    make = jax.jit(
        init, out_shardings=state_layout.own_shardings, compiler_options=options
    )
    return make(jax.random.key(seed))


def state_of(
    params: Any,
    optimizer: optax.GradientTransformation,
    state_layout: StateLayout,
) -> TrainState:
    """The state before the first step, of weights that are there already.

    `params` lie as the layout says; their memory is taken over.
    """
    use_ema = state_layout.shapes.ema is not None

    def begin(params: Any) -> TrainState:
        return new_state(params, optimizer, use_ema)

    make = jax.jit(begin, out_shardings=state_layout.own_shardings, donate_argnums=0)
    return make(params)


def state_on(
    frozen: Any,
    cfg: TrainConfig,
    optimizer: optax.GradientTransformation,
    state_layout: StateLayout,
) -> TrainState:
    """The state before the first step of adapters on weights that are there already.

    `frozen` lies as the layout says.
    """
    lora, use_ema = cfg.lora, state_layout.shapes.ema is not None
    assert lora is not None

    def begin(frozen: Any) -> TrainState:
        params = adapters.init(bind.abstract(cfg.model), lora, frozen, cfg.seed)
        return new_state(params, optimizer, use_ema)

    shardings = dataclasses.replace(state_layout.shardings, frozen=None)
    state = jax.jit(begin, out_shardings=shardings)(frozen)
    return dataclasses.replace(state, frozen=frozen)
