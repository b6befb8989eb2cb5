# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The same steps on one device and on every mesh: the first tensor that differs.

python -m profiling.parity --config=configs/quickstart.py

A layout must never change the result. In float32 all that may differ is the order of
sums, so losses, gradients and weights are compared at tolerances a little above that.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from podium import cli
from podium.config import MeshConfig, TrainConfig
from podium.config_mesh import MESH_AXES
from podium.errors import ConfigError, PodiumError
from podium.mesh_name import mesh_of, name_of, parse_mesh
from profiling.shrink import parts_for, shrink

# Relative error of the loss, and of a tensor: |got - want| / |want|, Euclidean norms.
# Rounding reaches 1e-6 and 1e-5; Adam divides by roots of tiny second moments, so
# weights get further apart than gradients. The mildest real fault seen: 1e-2.
TOLERANCES = {"loss": 1e-5, "gradient": 1e-4, "weight": 1e-3}

# Of a quantised model: a change in the last bit of a float sum moves a number that is
# rounded to eight bits by a whole step now and then. Weights changed by one part in 1e7
# on one device move a shrunk model's loss by 1e-4, its gradients by 6e-2 (fp8: 2e-1) and
# its weights by 3e-3 in two steps; these are three times that and above.
QUANTIZED_TOLERANCES = {"loss": 1e-3, "gradient": 0.5, "weight": 1e-2}

_EXAMPLE = """example:
  python -m profiling.parity --config=configs/quickstart.py \\
      --meshes=data2.tensor4,fsdp8 --steps=3

The model is shrunk to a few thousand parameters of the same architecture and computed
in float32 on virtual CPU devices; --full keeps its sizes. Exit code 1: a mesh differs;
2: the config cannot be laid out on a mesh of --meshes.
"""


@dataclasses.dataclass(frozen=True)
class Trace:
    """What some steps did, on the host: per step the loss, gradients and weights."""

    losses: list[float]
    gradients: list[dict[str, np.ndarray]]
    weights: list[dict[str, np.ndarray]]
    axes: dict[str, tuple[str | None, ...]]  # logical axes of every tensor


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first tensor that two traces disagree on."""

    step: int
    what: str  # loss, gradient or weight
    tensor: str
    error: float
    dim: str | None  # logical axis along which the error is uneven, if one stands out


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one mesh compares with one device."""

    mesh: str
    errors: dict[str, float]  # the largest of each kind of TOLERANCES
    first: Difference | None = None
    culprit: str | None = None  # the smallest part of the mesh that still differs
    skipped: str | None = None  # why this mesh cannot run
    at_most: float | None = None  # what `first` was allowed


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.parity",
        description="Compares losses, gradients and weights between meshes.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument(
        "--meshes", help="e.g. data2.tensor4,fsdp8; default: every axis and every pair"
    )
    parser.add_argument("--steps", type=int, default=2, help="steps to compare (2)")
    parser.add_argument("--full", action="store_true", help="keep the model's sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    if args.steps < 1:
        raise ConfigError(f"--steps is {args.steps}; expected 1 or more")
    meshes = parse_meshes(args.meshes) if args.meshes is not None else axes_and_pairs()

    import jax
    from rich.console import Console

    jax.config.update("jax_platforms", "cpu")
    num_devices = max(map(size_of, meshes))
    jax.config.update("jax_num_cpu_devices", num_devices)
    from podium.compile_cache import use_compile_cache
    from podium.models.flops import param_count
    from podium.sharding.mesh import give_threads

    give_threads(num_devices)
    use_compile_cache()
    outcomes = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if not args.json:
            print(_line(outcome), flush=True)

    for mesh in list(meshes):
        if reason := why_not(cfg, mesh):
            if args.meshes:
                raise ConfigError(f"--meshes: {name_of(mesh)}: {reason}")
            meshes.remove(mesh)
            tell(Outcome(name_of(mesh), {}, skipped=reason))
    if not meshes:
        raise ConfigError("this config fits none of the meshes, for the reasons above")
    count = f"{len(meshes)} meshes" if len(meshes) > 1 else name_of(meshes[0])
    if not args.full:
        cfg = shrink(cfg, parts_for(map(size_of, meshes)))
    shrunk = "" if args.full else ", shrunk from its own size (--full keeps it)"
    print(
        f"parity: {args.steps} steps of a model of {param_count(cfg.model):,} parameters"
        f"{shrunk}, on one device, then on {count}; each compiles a step of its own",
        file=sys.stderr,
    )
    # Not while a line is printed: rich would send that to standard error too.
    at_work = Console(stderr=True).status(f"one device, then {name_of(meshes[0])}")
    found = iter(compare(cfg, meshes, steps=args.steps))
    for number in range(1, len(meshes) + 1):
        with at_work:
            outcome = next(found)
        tell(outcome)
        if number < len(meshes):
            name = name_of(meshes[number])
            at_work.update(f"{name}, {number + 1} of {len(meshes)}")
    differ = [o for o in outcomes if o.first]
    if args.json:
        rows = [dataclasses.asdict(o) for o in outcomes]
        print(json.dumps({"meshes": rows, "equal": not differ}, indent=2))
    ran = [o for o in outcomes if not o.skipped]
    if not ran:
        raise ConfigError("no mesh was compared; --full keeps the model's own sizes")
    print(
        f"{len(ran) - len(differ)} of {len(ran)} equal one device over {args.steps} "
        "steps",
        file=sys.stderr,
    )
    return cli.EXIT_FAILED if differ else 0


def parse_meshes(text: str, flag: str = "--meshes") -> list[MeshConfig]:
    """`data2.tensor4,fsdp8` -> meshes; axes not named have size 1.

    Raises ConfigError in terms of `flag`.
    """
    return [parse_mesh(word.strip(), flag) for word in text.split(",")]


def axes_and_pairs() -> list[MeshConfig]:
    """Every axis over 2 and over 8 devices, every pair of axes over 2 x 2, and the
    three that a pod uses most at once."""
    shapes: list[dict[str, int]] = [{a: n} for a in MESH_AXES for n in (2, 8)]
    shapes += [{a: 2, b: 2} for a, b in itertools.combinations(MESH_AXES, 2)]
    shapes += [{"data": 2, "fsdp": 2, "tensor": 2}]
    return [mesh_of(shape) for shape in shapes]


def why_not(cfg: TrainConfig, mesh: MeshConfig) -> str | None:
    """Why a config cannot be laid out on a mesh, in its own sizes; None if it can."""
    import jax

    from podium.trainer.setup import setup

    try:
        setup(dataclasses.replace(cfg, mesh=mesh), jax.devices()[: size_of(mesh)])
    except PodiumError as error:
        return str(error)
    return None


def compare(
    cfg: TrainConfig, meshes: Iterable[MeshConfig], *, steps: int
) -> Iterable[Outcome]:
    """Runs `steps` steps on one device and on each mesh; one Outcome per mesh.

    A mesh that the config cannot be laid out on is skipped, with the reason.
    """
    want = run(dataclasses.replace(cfg, mesh=mesh_of({})), steps)
    tolerances = tolerances_of(cfg)
    for mesh in meshes:
        try:
            got = run(dataclasses.replace(cfg, mesh=mesh), steps)
        except PodiumError as error:
            yield Outcome(name_of(mesh), {}, skipped=str(error))
            continue
        first, errors = difference(want, got, tolerances)
        culprit = first and _culprit(cfg, mesh, want, steps)
        at_most = tolerances[first.what] if first else None
        yield Outcome(name_of(mesh), errors, first, culprit, at_most=at_most)


def run(cfg: TrainConfig, steps: int) -> Trace:
    """Trains `steps` steps on random batches over the first devices of the mesh."""
    import jax

    from podium.trainer.reference import with_itself
    from podium.trainer.setup import setup
    from podium.trainer.state import init_state
    from podium.trainer.step import batch_sharding, step_with_gradients
    from profiling.batches import random_batch

    parts = setup(cfg, jax.devices()[: size_of(cfg.mesh)])

    step = jax.jit(
        step_with_gradients(
            cfg,
            parts.model,
            parts.optimizer,
            parts.schedule,
            parts.rules,
            parts.layout,
        ),
        in_shardings=(parts.layout.shardings, batch_sharding(parts.rules)),
        out_shardings=(parts.layout.shardings, None, parts.layout.gradients),
    )
    state = init_state(cfg.model, cfg.seed, parts.optimizer, parts.layout, cfg.lora)
    state = with_itself(state, cfg, parts.layout)
    axes = _named(parts.model.axes, is_leaf=lambda x: isinstance(x, tuple))
    trace = Trace([], [], [], axes)
    for i in range(steps):
        batch = jax.device_put(random_batch(cfg, i), batch_sharding(parts.rules))
        state, metrics, grads = step(state, batch)
        trace.gradients.append(_on_host(grads))
        trace.losses.append(float(metrics["loss"]))
        trace.weights.append(_on_host(state.params))
    return trace


def tolerances_of(cfg: TrainConfig) -> dict[str, float]:
    """The relative errors that a layout may make in this config."""
    return TOLERANCES if cfg.model.quantization is None else QUANTIZED_TOLERANCES


def difference(
    want: Trace, got: Trace, tolerances: dict[str, float] = TOLERANCES
) -> tuple[Difference | None, dict[str, float]]:
    """The first tensor beyond its tolerance, in the order of steps and of the model;
    and the largest error of each kind."""
    errors = dict.fromkeys(TOLERANCES, 0.0)
    first = None
    for step in range(len(want.losses)):
        losses = ({"": np.array(t.losses[step])} for t in (want, got))
        kinds = {
            "loss": tuple(losses),
            "gradient": (want.gradients[step], got.gradients[step]),
            "weight": (want.weights[step], got.weights[step]),
        }
        for what, (wanted, gotten) in kinds.items():
            # A gradient that is zero but for rounding (a key bias) has no scale.
            floor = 1e-4 * _norm([_norm(x) for x in wanted.values()])
            for tensor, array in wanted.items():
                error = _norm(gotten[tensor] - array) / max(_norm(array), floor, 1e-30)
                errors[what] = max(errors[what], error)
                if first is None and not error <= tolerances[what]:
                    dim = _uneven_dim(array, gotten[tensor], want.axes.get(tensor))
                    first = Difference(step + 1, what, tensor or "loss", error, dim)
    return first, errors


def _culprit(cfg: TrainConfig, mesh: MeshConfig, want: Trace, steps: int) -> str:
    """The smallest part of a mesh on which the result still differs."""
    shape = {axis: n for axis, n in mesh.sizes().items() if n > 1}
    for num_axes in range(1, len(shape)):
        for axes in itertools.combinations(shape, num_axes):
            part = mesh_of({axis: shape[axis] for axis in axes})
            got = run(dataclasses.replace(cfg, mesh=part), steps)
            if difference(want, got, tolerances_of(cfg))[0]:
                return name_of(part)
    return name_of(mesh)


def _norm(x: np.ndarray | list[float]) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64).ravel()))


def _uneven_dim(
    want: np.ndarray, got: np.ndarray, axes: tuple[str | None, ...] | None
) -> str | None:
    """The dim along which the error changes most from index to index."""
    error = np.square((got - want).astype(np.float64))
    best, spread = None, 2.0  # less than twice the mean is no pattern
    for i, axis in enumerate(axes or ()):
        along = error.sum(axis=tuple(j for j in range(error.ndim) if j != i))
        if along.size > 1 and along.max() > spread * along.mean():
            best, spread = axis, along.max() / along.mean()
    return best


def _on_host(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in _named(tree).items()}


def _named(tree: Any, **kwargs: Any) -> dict[str, Any]:
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree, **kwargs)
    keystr = jax.tree_util.keystr
    return {keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def size_of(mesh: MeshConfig) -> int:
    """Devices of a mesh without -1."""
    return int(np.prod(list(mesh.sizes().values())))


def _line(outcome: Outcome) -> str:
    if outcome.skipped:
        return f"{outcome.mesh:<24} skipped: {outcome.skipped}"
    errors = "  ".join(f"{what} {e:.1e}" for what, e in outcome.errors.items())
    if not outcome.first:
        return f"{outcome.mesh:<24} equal    {errors}"
    f = outcome.first
    along = f", uneven along {f.dim!r}" if f.dim else ""
    return (
        f"{outcome.mesh:<24} DIFFERS  {errors}\n"
        f"  first: {f.what} of {f.tensor} in step {f.step}, relative error "
        f"{f.error:.1e} (at most {outcome.at_most:.0e}){along}; "
        f"{outcome.culprit} alone is enough"
    )


if __name__ == "__main__":
    cli.run(main)
