# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The coordinate check: do activations keep their size as the model gets wider?

python -m profiling.coordinates --config=configs/quickstart.py --widths=64,128,256,512

A few steps at every width and for several seeds, on one batch, under the standard
parametrisation and under muP (arXiv:2203.03466, appendix D.1). What an element of an
activation is in the mean, and how far training has moved it, goes as a power of the width:
under muP that power is near 0 for all of them.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium import cli
from podium.config import MeshConfig, ScheduleConfig, TrainConfig
from podium.errors import ConfigError
from podium.models.width import at_width, based_on_itself

KINDS = ("embed", "attention", "mlp", "residual", "logits")
SCHEMES = ("standard", "mup")
BOUND = 0.25  # of a power under muP; the mildest fault, a factor left out, gives 0.5
_ROWS, _TOKENS = 4, 64  # of the batch: means over 256 tokens and all channels

_EXAMPLE = """example:
  python -m profiling.coordinates --config=configs/quickstart.py \\
      --widths=64,128,256,512 --steps=4 --output=runs/coordinates

The base is model.width_transfer's, or the config's own sizes where that is None. Writes
coordinates.png and coordinates.json to D. Exit code 1: under muP a power is beyond --bound.
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """Of one kind of activation at one width after some steps, means over seeds."""

    scheme: str
    width: int
    step: int
    kind: str
    size: float  # mean absolute value of an element
    change: float  # the same, of its difference from step 0


@dataclasses.dataclass(frozen=True)
class Power:
    """How a kind of activation goes with the width: value ~ width ** power."""

    scheme: str
    kind: str
    size_at_start: float
    size: float  # after the last step
    change: float  # up to there

    def is_beyond(self, bound: float) -> bool:
        """Whether it grows, or what training does to it grows or fades, with width.

        At the start sums over channels of nothing but chance may still shrink.
        """
        values = (self.size_at_start, self.size, abs(self.change))
        return not max(values) <= bound  # also where one is no number


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.coordinates",
        description="Tells how activations grow with the width of a model.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    add = parser.add_argument
    add("--widths", default="64,128,256,512", help="values of model.embed_dim")
    add("--steps", type=int, default=4, help="optimizer steps (4)")
    add("--seeds", type=int, default=3, help="initial weights and batches (3)")
    add("--bound", type=float, default=BOUND, help=f"of a power under muP ({BOUND})")
    add("--output", metavar="D", help="folder for the picture and the numbers")
    add("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    widths = parse_widths(args.widths)
    for name in ("steps", "seeds"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}; expected 1 or more")
    if not args.bound > 0:
        raise ConfigError(f"--bound is {args.bound}; expected a number above 0")

    rows = measure(
        cfg, widths, steps=args.steps, seeds=args.seeds, tell=_tell(args, widths)
    )
    powers = fit(rows)
    beyond = [p for p in powers if p.scheme == "mup" and p.is_beyond(args.bound)]
    result = {
        "widths": widths,
        "bound": args.bound,
        "powers": [dataclasses.asdict(p) for p in powers],
        "rows": [dataclasses.asdict(row) for row in rows],
        "holds": not beyond,
    }
    if args.output:
        from profiling.coordinates_plot import plot

        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "coordinates.json").write_text(json.dumps(result, indent=1) + "\n")
        cli.say(f"{plot(rows, powers, folder / 'coordinates.png')}: written")
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(table(powers, args.bound))
    return cli.EXIT_FAILED if beyond else 0


def parse_widths(text: str, flag: str = "--widths") -> list[int]:
    """`64,128` -> [64, 128], two or more and increasing. Raises ConfigError."""
    try:
        widths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        widths = []
    if len(widths) < 2 or widths[0] < 1:
        raise ConfigError(
            f"{flag} is {text!r:.60}; expected two or more, such as 64,128,256"
        )
    return widths


def configs(
    cfg: TrainConfig, widths: Sequence[int], schemes: Sequence[str]
) -> dict[tuple[str, int], Any]:
    """(scheme, width) -> the config that is run. Raises ConfigError."""
    length = min(cfg.data.seq_len, _TOKENS)
    small = dataclasses.replace(
        cfg,
        global_batch_seqs=_ROWS,
        grad_accum_steps=1,
        num_steps=max(cfg.num_steps, 2),
        mesh=MeshConfig(fsdp=1),
        data=dataclasses.replace(cfg.data, seq_len=length),
        optim=dataclasses.replace(
            cfg.optim,
            # From the first step on at the full rate: what is wrong shows at once.
            schedule=ScheduleConfig(kind="constant", warmup_steps=0),
            state_memory="device",
        ),
    )
    found = {}
    for scheme in schemes:
        model = based_on_itself(cfg.model)
        for width in widths:
            wide = at_width(model, width)
            if scheme == "standard":
                wide = dataclasses.replace(wide, width_transfer=None)
            wide = dataclasses.replace(wide, dtype="float32", quantization=None)
            found[scheme, width] = dataclasses.replace(small, model=wide)
    return found


def measure(
    cfg: TrainConfig,
    widths: Sequence[int],
    *,
    steps: int,
    seeds: int,
    schemes: Sequence[str] = SCHEMES,
    tell: Callable[[str, int, int], None] = lambda scheme, width, seed: None,
) -> list[Row]:
    """Every activation at every width after 0, 1, .. steps. Raises ConfigError."""
    planned = configs(
        cfg, widths, schemes
    )  # the last width may be wrong: before any work
    rows = []
    for (scheme, width), mine in planned.items():
        runs = []
        run = _runner(mine, steps)
        for seed in range(seeds):
            tell(scheme, width, seed)
            runs.append(run(seed))
        means = np.mean(runs, axis=0)  # [steps + 1, kinds, 2]
        rows += [
            Row(scheme, width, step, kind, *map(float, means[step, i]))
            for step in range(steps + 1)
            for i, kind in enumerate(KINDS)
        ]
    return rows


def _runner(cfg: TrainConfig, steps: int) -> Callable[[int], np.ndarray]:
    """Seed -> [steps + 1, kinds, 2]: size and change."""
    import jax
    import jax.numpy as jnp

    from podium.models import bind
    from podium.trainer.setup import setup
    from podium.trainer.state import new_state
    from podium.trainer.step import step_with_gradients
    from profiling.activations import activations

    parts = setup(cfg, jax.devices()[:1])
    step = step_with_gradients(
        *(cfg, parts.model, parts.optimizer, parts.schedule, parts.rules, parts.layout)
    )

    def run(key: Any, batch: Any) -> Any:
        params = bind.init_params(cfg.model, key)
        state = new_state(params, parts.optimizer, cfg.optim.ema_decay is not None)
        shapes = jax.eval_shape(lambda: activations(parts, params, batch))
        first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def look_and_step(carry: Any, i: Any) -> Any:
            state, first = carry
            now = activations(parts, state.params, batch)
            first = jax.tree.map(lambda x, y: jnp.where(i == 0, y, x), first, now)
            means = [
                [jnp.mean(jnp.abs(x)) for x in (now[kind], now[kind] - first[kind])]
                for kind in KINDS
            ]
            return (step(state, batch)[0], first), jnp.stack([*map(jnp.stack, means)])

        return jax.lax.scan(look_and_step, (state, first), jnp.arange(steps + 1))[1]

    # It runs a few times only: on a CPU, compiling it well would take most of the time.
    is_cpu = parts.mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if is_cpu else None
    compiled = jax.jit(run, compiler_options=options)
    return lambda seed: np.asarray(compiled(jax.random.key(seed), _batch(cfg, seed)))


def _batch(cfg: TrainConfig, seed: int) -> Any:
    """Full rows of random tokens, the same at every width."""
    from podium.input.batch import Batch

    B, T = cfg.global_batch_seqs, cfg.data.seq_len
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, cfg.model.vocab_size, (B, T + 1), dtype=np.int32)
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    ones = np.ones_like(positions)
    return Batch(
        *map(np.ascontiguousarray, (tokens[:, :-1], tokens[:, 1:], ones, positions))
    )


def fit(rows: Sequence[Row]) -> list[Power]:
    """The power of every kind: least squares on logarithms."""
    last = max(row.step for row in rows)

    def power(scheme: str, kind: str, step: int, what: str) -> float:
        mine = [r for r in rows if (r.scheme, r.kind, r.step) == (scheme, kind, step)]
        values = [getattr(r, what) for r in mine]
        if not all(v > 0 and math.isfinite(v) for v in values):
            return 0.0 if not any(values) else math.nan  # all 0: as logits may begin
        return float(np.polyfit(np.log([r.width for r in mine]), np.log(values), 1)[0])

    return [
        Power(
            scheme,
            kind,
            power(scheme, kind, 0, "size"),
            power(scheme, kind, last, "size"),
            power(scheme, kind, last, "change"),
        )
        for scheme in dict.fromkeys(row.scheme for row in rows)
        for kind in KINDS
    ]


def table(powers: Sequence[Power], bound: float) -> str:
    """The powers as text, those beyond the bound marked."""
    lines = [
        f"{'value ~ width ** power':<24}{'at start':>10}{'at the end':>12}{'change':>9}"
    ]
    for p in powers:
        mark = ""
        if p.is_beyond(bound):
            mark = f"  beyond {bound:g}" if p.scheme == "mup" else "  moves"
        name = f"{p.scheme}  {p.kind}"
        lines.append(
            f"{name:<24}{p.size_at_start:>10.2f}{p.size:>12.2f}{p.change:>9.2f}{mark}"
        )
    return "\n".join(lines)


def _tell(
    args: argparse.Namespace, widths: list[int]
) -> Callable[[str, int, int], None]:
    total, done = len(SCHEMES) * len(widths) * args.seeds, 0

    def tell(scheme: str, width: int, seed: int) -> None:
        nonlocal done
        done += 1
        cli.say(f"{done}/{total}: {scheme}, width {width}, seed {seed}")

    return tell


if __name__ == "__main__":
    cli.run(main)
