# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Loss over learning rate at several widths, with and without muP, on a CPU.

python benchmarks/width_transfer.py --picture=benchmarks/results/width_transfer.png \\
    >> benchmarks/results/width_transfer.md

configs/ladder.py at several widths (two layers, the Python standard library's sources),
all learning rates from the same weights over the same batches, which no run sees twice.
The loss is that of the last tenth of the steps, before each learns from its batch. The
rate is constant after a warm-up of a tenth.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from podium import cli, train
from podium.config import MeshConfig, TrainConfig
from podium.models.width import at_width

SCHEMES = ("standard", "mup")
Losses = dict[tuple[str, int], list[float]]  # (scheme, width) -> a loss for every rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="16,32,64,128")
    parser.add_argument("--log2_rates", default="-10,-9,-8,-7,-6,-5,-4")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of a row")
    parser.add_argument("--data", help="gold folder; None: prepared in --runs")
    parser.add_argument(
        "--runs", default="runs/width_transfer", help="keeps the losses"
    )
    parser.add_argument("--picture", help="PNG")
    args = parser.parse_args()
    cfg = cli.load_config(str(Path(__file__).parent.parent / "configs" / "ladder.py"))
    cfg = dataclasses.replace(cfg, mesh=MeshConfig(fsdp=1), global_batch_seqs=args.rows)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    data = args.data or str(folder / "gold")
    if not (Path(data) / "manifest.json").exists():
        train.prepare_text(cfg, Path(data))
    cfg = dataclasses.replace(
        cfg,
        data=dataclasses.replace(
            cfg.data, paths=(data,), text=None, seq_len=args.tokens
        ),
    )
    rates = [2.0 ** int(power) for power in args.log2_rates.split(",")]
    widths = [int(width) for width in args.widths.split(",")]
    losses: Losses = {}
    for width in widths:
        for scheme in SCHEMES:
            name = f"{scheme}-{width}-{args.steps}-{args.log2_rates}.json"
            if not (folder / name).exists():
                found = run(cfg, scheme, width, rates, args.steps)
                (folder / name).write_text(json.dumps(found))
            losses[scheme, width] = json.loads((folder / name).read_text())
            print(f"{scheme}, width {width}: {losses[scheme, width]}", file=sys.stderr)
    show(losses, widths, rates, args)
    if args.picture:
        plot(losses, widths, rates, Path(args.picture))


def run(
    cfg: TrainConfig, scheme: str, width: int, rates: list[float], steps: int
) -> list[float]:
    import jax
    import jax.numpy as jnp

    from podium.models import bind
    from podium.trainer.optimizer import make_optimizer
    from podium.trainer.setup import setup
    from podium.trainer.state import new_state
    from podium.trainer.step import step_with_gradients

    model = at_width(cfg.model, width)
    if scheme == "standard":
        model = dataclasses.replace(model, width_transfer=None)
    cfg = dataclasses.replace(cfg, model=model)
    parts = setup(cfg, jax.devices()[:1])
    from podium.models.width import ratios

    wider = ratios(model) if model.width_transfer else None
    batches = jax.tree.map(lambda *xs: np.stack(xs), *read(cfg, steps))

    def losses(rate, batches):
        def schedule(count):
            return rate * jnp.minimum(1.0, (count + 1.0) / max(1, steps // 10))

        optimizer = make_optimizer(cfg.optim, schedule, parts.model.axes, wider)
        step = step_with_gradients(
            cfg, parts.model, optimizer, schedule, parts.rules, parts.layout
        )
        params = bind.init_params(cfg.model, jax.random.key(cfg.seed))

        def body(state, batch):
            state, metrics, _ = step(state, batch)
            return state, metrics["loss"]

        _, found = jax.lax.scan(body, new_state(params, optimizer, False), batches)
        return jnp.mean(found[-(steps // 10) :])

    one = jax.jit(losses)
    return [float(one(jnp.float32(rate), batches)) for rate in rates]


def read(cfg: TrainConfig, steps: int) -> list:
    from podium.input.loader import Loader
    from podium.input.spec import StreamSpec

    loader = Loader(
        StreamSpec(
            data=cfg.data,
            split="train",
            seed=cfg.seed,
            global_batch_seqs=cfg.global_batch_seqs,
            rows=tuple(range(cfg.global_batch_seqs)),
        )
    )
    return [loader.batch(step) for step in range(steps)]


def best(losses: list[float]) -> int:
    return int(np.nanargmin(losses))


def show(losses: Losses, widths: list[int], rates: list[float], args) -> None:
    print("# python benchmarks/width_transfer.py\n")
    tokens = args.rows * args.tokens
    print(
        f"Loss in nats a token after {args.steps} steps of {tokens} tokens, one seed; the "
        "base of muP has width 64.\n"
    )
    shown = [f"{rate:.2g}" for rate in rates]
    print("| | width | " + " | ".join(shown) + " | best rate |")
    print("|---|--:|" + "--:|" * (len(rates) + 1))
    for scheme in SCHEMES:
        for width in widths:
            row = losses[scheme, width]
            at = best(row)
            cells = [
                f"**{x:.3f}**" if i == at else f"{x:.3f}" for i, x in enumerate(row)
            ]
            print(f"| {scheme} | {width} | {' | '.join(cells)} | {rates[at]:.2g} |")
    print()
    for scheme in SCHEMES:
        steps = [best(losses[scheme, width]) for width in widths]
        at = best(losses[scheme, widths[0]])
        wide = losses[scheme, widths[-1]]
        print(
            f"{scheme}: the best rates lie {max(steps) - min(steps)} steps of the grid "
            f"apart; at width {widths[-1]} the best of width {widths[0]} costs "
            f"{wide[at] - min(wide):+.3f} nats to its own best."
        )
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


def plot(losses: Losses, widths: list[int], rates: list[float], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, 2, figsize=(9, 3.8), sharey=True, layout="constrained"
    )
    for axes, scheme in zip(panels, SCHEMES, strict=True):
        for i, width in enumerate(widths):
            color = plt.get_cmap("viridis")(0.9 * i / (len(widths) - 1))
            row = losses[scheme, width]
            axes.plot(rates, row, marker="o", ms=3, color=color, label=f"width {width}")
            axes.plot(rates[best(row)], min(row), marker="*", ms=13, color=color)
        axes.set_xscale("log", base=2)
        axes.set_title({"standard": "standard parametrisation", "mup": "muP"}[scheme])
        axes.set_xlabel("learning rate")
        axes.grid(alpha=0.3)
    # A rate that breaks a run would hide all others.
    firsts = [row for row in losses.values()]
    low = min(map(min, firsts))
    panels[0].set_ylim(low - 0.1, min(max(map(max, firsts)), low + 2.5) + 0.1)
    panels[0].set_ylabel("loss, nats a token")
    panels[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
