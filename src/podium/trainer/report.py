# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves for a person: the curve, the baselines, a sample."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from podium.config import TrainConfig
from podium.models import bind
from podium.models.adapters import merge
from podium.trainer.loop import Outcome
from podium.trainer.metrics import read_metrics
from podium.trainer.state import weights


def final_report(
    cfg: TrainConfig, workdir: Path, outcome: Outcome, *, is_shown: bool = True
) -> None:
    """Writes D/plots/loss.png and prints the losses, a sample, and where all lies.

    All processes of a run call it, as the sample takes all weights; `is_shown` in one.
    """
    if not is_shown:
        with _best_effort("sample"):
            if cfg.sample:
                sample_text(cfg, outcome)
        return
    baselines: dict[str, float] = {}
    if cfg.eval and cfg.eval.ngram_baselines:
        from podium.input.ngram import ngram_losses

        with _best_effort("n-gram baselines"):
            baselines = ngram_losses(cfg.data.paths[0])
    try_plot(cfg, workdir, baselines)
    print()
    if outcome.eval_loss is not None:
        shown = "".join(f", {name} {loss:.3f}" for name, loss in baselines.items())
        print(f"held-out loss, {_unit(cfg)}: model {outcome.eval_loss:.3f}{shown}")
    if cfg.sample:
        with _best_effort("sample"):
            _print_sample(cfg, sample_text(cfg, outcome))
    print(f"\nEverything lies in {workdir}/")
    for name, what in (
        ("checkpoints/", "weights and optimizer state"),
        ("metrics.jsonl", "every step"),
        ("events.jsonl", "starts, saves, restores, stops"),
        ("tensorboard/", f"tensorboard --logdir={workdir}"),
        ("data/", "gold data made from data.text"),
        ("plots/loss.png", "the loss curve"),
    ):
        if (workdir / name).exists():
            print(f"  {name:<18} {what}")
    chat = ""
    with _best_effort("a word on how to sample"):
        from podium.input.manifest import load_manifest

        chat = "--chat " if load_manifest(cfg.data.paths[0]).chat else ""
    print(f'more text: python -m podium.sample --workdir={workdir} {chat}--prompt="…"')


def try_plot(
    cfg: TrainConfig, workdir: Path, baselines: dict[str, float]
) -> Path | None:
    """D/plots/loss.png, or a warning why not."""
    with _best_effort("loss curve"):
        return plot_loss(workdir, baselines, _unit(cfg))
    return None


def _unit(cfg: TrainConfig) -> str:
    return "nats per token" if cfg.dpo is None else "per pair"


@contextlib.contextmanager
def _best_effort(what: str) -> Iterator[None]:
    """The training is done and saved: what comes after it may fail with a line."""
    try:
        yield
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        print(f"warning: no {what}: {type(error).__name__}: {line}", file=sys.stderr)


def sample_text(cfg: TrainConfig, outcome: Outcome) -> str:
    """What the final weights write after `cfg.sample.prompt`."""

    from podium.generate import Sampling, generate
    from podium.sample import prompt_tokens
    from podium.serving_mesh import serving_rules
    from podium.tokenizer import load_tokenizer

    assert cfg.sample
    whole = weights(cfg, outcome.state)
    mesh = jax.tree.leaves(outcome.state.params)[0].sharding.mesh
    if cfg.lora is not None:
        whole = jax.jit(lambda w: merge(bind.abstract(cfg.model), w))(whole)
    tokenizer = load_tokenizer(cfg.data.paths[0])
    tokens = generate(
        cfg.model,
        whole,
        [prompt_tokens(cfg.sample.prompt, tokenizer)],
        num_tokens=cfg.sample.num_tokens,
        sampling=Sampling(temperature=cfg.sample.temperature, top_p=cfg.sample.top_p),
        seed=cfg.seed,
        end_ids={tokenizer.eos_id},
        rules=serving_rules(cfg.sharding, mesh),
    )[0]
    return tokenizer.decode(tokens)


def _print_sample(cfg: TrainConfig, text: str) -> None:
    assert cfg.sample
    width = min(shutil.get_terminal_size().columns, 88)
    print(f"\nsample {'─' * (width - 7)}")
    print(cfg.sample.prompt + text)
    print("─" * width)


def plot_loss(
    workdir: Path, baselines: dict[str, float], unit: str = "nats per token"
) -> Path:
    """D/plots/loss.png: train and held-out loss over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = read_metrics(workdir)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    train = [(r["step"], r["loss"]) for r in rows if r.get("loss") is not None]
    held_out = [
        (r["step"], r["eval_loss"]) for r in rows if r.get("eval_loss") is not None
    ]
    axes.plot(*zip(*train, strict=True), linewidth=0.8, alpha=0.6, label="train")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), marker="o", label="held out")
    for (name, loss), style in zip(baselines.items(), ("--", ":"), strict=False):
        axes.axhline(loss, linestyle=style, color="gray", label=f"{name} model")
    axes.set(xlabel="step", ylabel=f"loss ({unit})", title=workdir.name)
    axes.legend()
    axes.grid(alpha=0.3)
    path = workdir / "plots" / "loss.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
