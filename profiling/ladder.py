# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A scaling ladder: small runs of widths x tokens, the law they follow, the next size.

python -m profiling.ladder --config=configs/quickstart.py --workdir=ladders/quickstart \\
    --widths=64,128,192,256 --tokens=262144,524288,1048576

Each rung is a podium.train of its own. The largest is predicted from the others before it
is trained. N counts all parameters, embeddings too; D the tokens trained on; a run's
compute is N and D by `models/flops.py`, of the law's optimum 6 N D.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium import cli, train
from podium.config import EvalConfig, TrainConfig
from podium.config_dict import to_json_dict
from podium.config_tracking import TrackingConfig
from podium.errors import ConfigError, PodiumError
from podium.models.flops import param_count, train_flops_per_token
from podium.models.width import at_width
from podium.preparation.progress import Progress
from profiling.coordinates import parse_widths
from profiling.scaling_law import DRAWS, Fit, Interval, Point, check_identified, fit

_EXAMPLE = """example:
  python -m profiling.ladder --config=configs/quickstart.py --workdir=ladders/quickstart \\
      --widths=64,128,192,256 --tokens=262144,524288,1048576 --next=512 --budget=1e15

--tokens_per_param=5,10,20 instead of --tokens: so many tokens for each parameter. The same
command again goes on; rungs that are done are not trained again, and more widths or tokens
may be added. Writes D/ladder.json and D/ladder.png. Exit codes: 0 done, 1 failed, 2 a
mistake, 75 interrupted, what was trained is saved.
"""


@dataclasses.dataclass(frozen=True)
class Rung:
    """A run of the ladder."""

    width: int
    cfg: TrainConfig
    params: int
    tokens: int
    flops: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"width{self.width}-tokens{self.tokens}"


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.ladder",
        description="Trains small models, fits their scaling law, predicts the next.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    add = parser.add_argument
    add("--workdir", metavar="D", required=True, help="of the ladder and its runs")
    add("--widths", required=True, help="values of model.embed_dim, e.g. 64,128,256")
    add("--tokens", help="tokens of a run, e.g. 262144,524288,1048576")
    add("--tokens_per_param", help="instead: tokens for each parameter, e.g. 5,10,20")
    add("--next", type=int, metavar="WIDTH", help="predict it (twice the largest)")
    add("--budget", type=float, metavar="FLOPS", help="tell the best N and D for it")
    add("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    if (args.tokens is None) == (args.tokens_per_param is None):
        parser.error("give --tokens or --tokens_per_param, one of them")
    if args.budget is not None and not 0 < args.budget < float("inf"):
        raise ConfigError(f"--budget is {args.budget}; expected FLOPs, such as 1e15")
    rungs = plan(cfg, args)
    next_rung = _next(cfg, args, rungs)
    if cfg.model.width_transfer is None:
        cli.say(
            "note: model.width_transfer is None, so one learning rate serves all widths; "
            "docs/scaling.md has the way to carry it over"
        )
    workdir = Path(args.workdir)
    _check_same(cfg, workdir)
    data = _data(cfg, workdir)

    *others, largest = rungs
    losses: dict[Rung, float] = {}
    code = _climb(others, workdir, data, losses)
    if code:
        return code
    predicted = _predict(others, largest, losses, workdir)
    _say_prediction(largest, predicted)
    code = _climb([largest], workdir, data, losses)
    if code:
        return code
    found = _fit(rungs, losses, "all runs")
    result = report(rungs, losses, found, predicted, next_rung, args.budget)
    _write(workdir / "ladder.json", result)
    from profiling.ladder_plot import plot

    cli.say(f"{plot(rungs, losses, found, predicted, workdir / 'ladder.png')}: written")
    print(json.dumps(result, indent=1) if args.json else table(result))
    return 0


def plan(cfg: TrainConfig, args: argparse.Namespace) -> list[Rung]:
    """The runs, the cheapest first. Raises ConfigError."""
    rungs = [
        rung(cfg, width, tokens)
        for width in parse_widths(args.widths)
        for tokens in _token_counts(cfg, args, width)
    ]
    rungs = list({r.name: r for r in rungs}.values())
    rungs.sort(key=lambda r: r.flops)
    # Without the largest, which is predicted.
    check_identified(
        *zip(*((r.params, _length(args, r)) for r in rungs[:-1]), strict=True)
    )
    return rungs


def rung(cfg: TrainConfig, width: int, tokens: int) -> Rung:
    """The run of `cfg` at a width on so many tokens, rounded to whole steps."""
    per_step = cfg.global_batch_seqs * cfg.data.seq_len
    steps = max(1, round(tokens / per_step))
    schedule = cfg.optim.schedule
    warmup = min(schedule.warmup_steps, steps // 10)  # long ones as the config says
    cfg = dataclasses.replace(
        cfg,
        model=at_width(cfg.model, width),
        num_steps=steps,
        optim=dataclasses.replace(
            cfg.optim, schedule=dataclasses.replace(schedule, warmup_steps=warmup)
        ),
        eval=dataclasses.replace(
            cfg.eval or EvalConfig(), every_steps=steps, ngram_baselines=False
        ),
        checkpoint=dataclasses.replace(cfg.checkpoint, keep_last=1, keep_best=0),
        sample=None,
        tracking=TrackingConfig(),
        launch=None,
    )
    params = param_count(cfg.model)
    flops = train_flops_per_token(cfg.model, cfg.data.seq_len) * steps * per_step
    return Rung(width, cfg, params, steps * per_step, flops)


def _token_counts(cfg: TrainConfig, args: argparse.Namespace, width: int) -> list[int]:
    flag = "tokens" if args.tokens else "tokens_per_param"
    text = getattr(args, flag)
    try:
        counts = sorted({float(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or not 0 < counts[0] <= counts[-1] < float("inf"):
        raise ConfigError(
            f"--{flag} is {text!r:.60}; expected numbers, such as 5,10,20"
        )
    by = 1 if args.tokens else param_count(at_width(cfg.model, width))
    return [round(count * by) for count in counts]


def _length(args: argparse.Namespace, r: Rung) -> float:
    return r.tokens if args.tokens else round(r.tokens / r.params, 1)


def _next(cfg: TrainConfig, args: argparse.Namespace, rungs: list[Rung]) -> Rung:
    """The size after the largest, as long as the longest. Raises ConfigError."""
    largest = max(r.width for r in rungs)
    width = 2 * largest if args.next is None else args.next
    return rung(cfg, width, _token_counts(cfg, args, width)[-1])


def _check_same(cfg: TrainConfig, workdir: Path) -> None:
    """Rungs are compared, so a ladder goes on with the config that it began with."""
    path, now = workdir / "config.json", json.loads(json.dumps(to_json_dict(cfg)))
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        _write(path, now)
    elif json.loads(path.read_text()) != now:
        raise ConfigError(
            f"{workdir} holds a ladder with another config; use another --workdir, or "
            f"what {path} says"
        )


def _data(cfg: TrainConfig, workdir: Path) -> tuple[str, ...]:
    """Raw text is prepared once, not by each rung. Raises ConfigError."""
    if cfg.data.paths:
        return cfg.data.paths
    if cfg.data.text is None:
        raise ConfigError(
            "data.paths and data.text are both empty; set --config.data.text=DIR or "
            "--config.data.paths=D"
        )
    folder = workdir / "data"
    if not (folder / "manifest.json").exists():
        train.prepare_text(cfg, folder)
    return (str(folder),)


def _climb(
    rungs: list[Rung], workdir: Path, data: tuple[str, ...], losses: dict[Rung, float]
) -> int:
    """Trains what is not done; 0, or the exit code that ends the ladder."""
    for i, each in enumerate(rungs, start=1):
        loss = _loss(each, workdir)
        if loss is None:
            cli.say(f"{each.name} ({i} of {len(rungs)}): {each.cfg.num_steps} steps")
            code = _train(each, workdir, data)
            if code:
                return code
            loss = _loss(each, workdir)
        if loss is None:
            raise PodiumError(
                f"{_folder(each, workdir)}: its metrics have no eval_loss"
            )
        losses[each] = loss
        cli.say(f"{each.name}: loss {loss:.4f}")
    return 0


def _train(each: Rung, workdir: Path, data: tuple[str, ...]) -> int:
    folder = _folder(each, workdir)
    tree = to_json_dict(each.cfg)
    tree["data"] |= {"paths": list(data), "text": None}
    path = folder.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, tree)
    return train.main([f"--config={path}", f"--workdir={folder}"])


def _folder(each: Rung, workdir: Path) -> Path:
    return workdir / "rungs" / each.name


def _loss(each: Rung, workdir: Path) -> float | None:
    """Of its last step; None where it is not done."""
    from podium.trainer.metrics import read_metrics

    if not (_folder(each, workdir) / "metrics.jsonl").exists():
        return None
    found = [
        row["eval_loss"]
        for row in read_metrics(_folder(each, workdir))
        if row["step"] == each.cfg.num_steps and row.get("eval_loss") is not None
    ]
    return float(found[-1]) if found else None


def _predict(
    others: list[Rung], largest: Rung, losses: dict[Rung, float], workdir: Path
) -> Interval:
    """The loss of the largest, from what came before it alone, and written down before
    it is trained."""
    path = workdir / "prediction.json"
    of = {
        "rung": largest.name,
        "runs": [dataclasses.asdict(_point(each, losses)) for each in others],
    }
    kept = json.loads(path.read_text()) if path.exists() else {}
    if {key: kept.get(key) for key in of} == of:
        return Interval(kept["value"], kept["low"], kept["high"])
    found = _fit(others, losses, "all runs but the largest")
    predicted = found.predict(largest.params, largest.tokens)
    if not kept or _loss(largest, workdir) is None:
        _write(path, of | dataclasses.asdict(predicted))
    return predicted


def _fit(rungs: list[Rung], losses: dict[Rung, float], what: str) -> Fit:
    with Progress(f"fitting {what}", DRAWS, "ladder", "draws") as progress:
        return fit([_point(r, losses) for r in rungs], advance=progress.advance)


def _point(each: Rung, losses: dict[Rung, float]) -> Point:
    return Point(each.params, each.tokens, losses[each])


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n")


def _say_prediction(largest: Rung, predicted: Interval) -> None:
    cli.say(
        f"{largest.name}: predicted {predicted.value:.4f} ({predicted.low:.4f} to "
        f"{predicted.high:.4f})"
    )


def report(
    rungs: list[Rung],
    losses: dict[Rung, float],
    found: Fit,
    predicted: Interval,
    next_rung: Rung,
    budget: float | None,
) -> dict[str, Any]:
    """What the ladder found, as plain data."""

    def row(each: Rung, **more: Any) -> dict[str, Any]:
        sizes = {"width": each.width, "params": each.params, "tokens": each.tokens}
        return {**sizes, "flops": each.flops, **more}

    largest = rungs[-1]
    off = losses[largest] - predicted.value
    result = {
        "convention": "N: all parameters, embeddings too; D: tokens trained on",
        "rungs": [
            row(r, loss=losses[r], law=found.law.loss(r.params, r.tokens))
            for r in rungs
        ],
        "law": {
            name: dataclasses.asdict(found.constant(name))
            for name in ("E", "A", "B", "alpha", "beta")
        },
        "held_out": row(
            largest,
            predicted=dataclasses.asdict(predicted),
            measured=losses[largest],
            off=off,
            is_inside=predicted.low <= losses[largest] <= predicted.high,
        ),
        "next": row(
            next_rung,
            predicted=dataclasses.asdict(
                found.predict(next_rung.params, next_rung.tokens)
            ),
        ),
    }
    if budget is not None:
        params, tokens = found.optimum(budget)
        result["optimum"] = {
            "flops": budget,
            "params": dataclasses.asdict(params),
            "tokens": dataclasses.asdict(tokens),
            "loss": found.law.loss(params.value, tokens.value),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{'width':>6}{'params':>12}{'tokens':>12}{'FLOPs':>10}{'loss':>9}{'law':>9}"
    ]
    lines += [
        f"{r['width']:>6}{r['params']:>12,}{r['tokens']:>12,}{r['flops']:>10.2e}"
        f"{r['loss']:>9.4f}{r['law']:>9.4f}"
        for r in result["rungs"]
    ]

    def shown(interval: dict[str, float], form: str) -> str:
        value, low, high = (format(interval[k], form) for k in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    law, held, after = result["law"], result["held_out"], result["next"]
    lines += ["", "L(N, D) = E + A / N**alpha + B / D**beta, 90% of a bootstrap:"]
    lines += [f"  {name:<6}{shown(law[name], '.4g')}" for name in law]
    inside = "inside" if held["is_inside"] else "OUTSIDE"
    lines += [
        "",
        f"held out, width {held['width']} on {held['tokens']:,} tokens: predicted "
        f"{shown(held['predicted'], '.4f')}, measured {held['measured']:.4f}: "
        f"{held['off']:+.4f}, {inside} the interval",
        f"next, width {after['width']} ({after['params']:,} parameters) on "
        f"{after['tokens']:,} tokens: {shown(after['predicted'], '.4f')}",
    ]
    if best := result.get("optimum"):
        lines.append(
            f"best for {best['flops']:.3g} FLOPs: N {shown(best['params'], '.3g')}, "
            f"D {shown(best['tokens'], '.3g')}, loss {best['loss']:.4f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, can_continue=True)
