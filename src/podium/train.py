# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains a model; continues by itself if the run folder holds a checkpoint.

python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import cli, processes, resume, run_folder, starts, tracking_start
from podium.config import DataConfig, TrainConfig
from podium.errors import ConfigError, DataError, PodiumError, ShardingError
from podium.text_tokens import check_text_tokens

if TYPE_CHECKING:
    from podium.input.manifest import Manifest
    from podium.input.server import InputServer
    from podium.trainer.setup import Setup
    from podium.trainer.tracking import Tracker

_EXAMPLE = """example:
  python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart \\
      --config.num_steps=200 --config.optim.peak_lr=1e-3

The same command again continues the run. Exit codes: 0 done, 1 failed, 2 wrong
usage, config or data, 75 stopped early with the state saved (run it again).
"""


def main(argv: Sequence[str]) -> int:
    """The command line. Everything a user can get wrong fails before jax is imported."""
    parser = cli.Parser(
        prog="python -m podium.train",
        description="Trains a model; continues if the run folder holds a checkpoint.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--workdir", metavar="D", help="the run folder")
    processes.add_flags(parser)
    args, cfg = cli.parse(parser, argv)
    if not args.workdir:
        parser.error("--workdir is missing, e.g. --workdir=runs/first")
    workdir = Path(args.workdir)
    tracking_start.check(cfg)
    ours = processes.join(args, cfg.peer_secs)
    with run_folder.tidy(workdir) if ours.is_first else contextlib.nullcontext():
        code = _run(cfg, workdir, ours)
    ours.leave()
    return code


def _run(cfg: TrainConfig, workdir: Path, ours: processes.Processes) -> int:
    damaged: dict[int, str] = {}  # known to the first process alone
    first_step = ours.decide(lambda: _first_step(cfg, workdir, damaged))

    from podium.input.check import check_datasets
    from podium.input.server import InputServer

    # First of all: it is ready to read while jax is still being imported.
    server = InputServer.start()
    try:
        asked, is_resumed = cfg, first_step is not None
        ours.decide(lambda: make_data(asked, workdir, is_resumed=is_resumed))
        cfg = dataclasses.replace(cfg, data=_with_folders(cfg, workdir))
        manifests = load_data(cfg.data.paths)
        if is_resumed:  # before all else: it explains whatever else does not fit
            prints = [m.fingerprint for m in manifests]
            resume.check_fingerprints(workdir, cfg.data.paths, prints)
        check_data(cfg, manifests)
        if is_resumed and cfg.has_reference:
            from podium.starts import check_reference

            check_reference(workdir, cfg)
        if not is_resumed and cfg.init_from:
            info, path = manifests[0].tokenizer, cfg.data.paths[0]
            resume.check_tokenizer(cfg.init_from, path, info)
        if first_step is None or first_step < cfg.num_steps:
            data = cfg.data
            ours.decide(lambda: check_datasets(data, manifests))
            return _train(
                cfg, asked, workdir, ours, server, manifests, first_step, damaged
            )
        if ours.is_first:
            _done_already(cfg, workdir, first_step)
            _send_rest(asked, workdir, manifests)
        return 0
    finally:
        server.close()


def _first_step(cfg: TrainConfig, workdir: Path, damaged: dict[int, str]) -> int | None:
    """The checkpoint to continue from; fills in newer ones that cannot be used."""
    run_folder.check_folder(workdir)
    run_folder.check_checkpoint_folder(cfg.checkpoint.folder)
    starts.check_is_no_import(workdir)
    good = resume.step_to_resume(workdir, cfg)
    if good.step is None and not good.damaged:
        starts.check_start(cfg, cli.say)
    if good.step is not None:
        starts.check_base(cfg, workdir, good.step)
    damaged.update(good.damaged)
    for step, what in good.damaged.items():
        print(
            f"WARNING: checkpoint {step} is damaged: {what}; continuing from "
            f"{good.step}",
            file=sys.stderr,
        )
    return good.step


def make_data(cfg: TrainConfig, workdir: Path, *, is_resumed: bool) -> None:
    """The run folder, and in it D/data out of `data.text`, unless `data.paths` is given.

    A run that is continued keeps the data it has, whatever became of the text.
    """
    run_folder.make_folder(workdir)
    if cfg.data.paths:
        return
    if cfg.data.text is None:
        raise ConfigError(
            "data.paths and data.text are both empty; set --config.data.text=DIR to "
            "prepare raw files, or --config.data.paths=D made by podium.prepare"
        )
    folder = resume.data_folder(workdir)
    if not (is_resumed and (folder / "manifest.json").exists()):
        check_text_tokens(cfg)  # what the data would show, in hours of a large text
        prepare_text(cfg, folder)


def _with_folders(cfg: TrainConfig, workdir: Path) -> DataConfig:
    paths = cfg.data.paths or (str(resume.data_folder(workdir)),)
    return dataclasses.replace(cfg.data, paths=paths)


def prepare_text(cfg: TrainConfig, folder: Path) -> None:
    """`data.text` as gold data. Raises PodiumError, in terms of the settings."""
    from podium.preparation.run import run
    from podium.preparation.spec import PrepareSpec
    from podium.prepare import rejects_line

    assert cfg.data.text
    try:
        outcome = run(
            PrepareSpec(
                inputs=(cfg.data.text,),
                tokenizer=cfg.data.tokenizer,
                output=str(folder),
                eval_fraction=cfg.data.eval_fraction,
            )
        )
    except PodiumError as error:
        text = str(error)
        for flag, setting in _SETTING_OF_FLAG.items():
            text = text.replace(flag, setting)
        error.args = (text,)
        raise
    if line := rejects_line(outcome.summary, str(folder)):
        print(f"prepare: {line}", file=sys.stderr)


# podium.prepare speaks of its own flags; here the user gave settings.
_SETTING_OF_FLAG = {
    "--input=": "--config.data.text=",
    "--tokenizer=": "--config.data.tokenizer=",
    "--eval_fraction=": "--config.data.eval_fraction=",
    "choose another --output, or replace it with --overwrite": "use another --workdir",
    "the same --output; wait for it, or choose another name": (
        "this run's data; wait for it, or use another --workdir"
    ),
}


def load_data(paths: Sequence[str]) -> list["Manifest"]:
    """The manifests of the data sets, which have one tokenizer. Raises DataError."""
    from podium.input.manifest import check_one_tokenizer, load_manifest

    try:
        manifests = [load_manifest(path) for path in paths]
    except DataError as error:
        raise DataError(f"data.paths: {error}") from error
    check_one_tokenizer(paths, manifests)
    return manifests


def check_data(cfg: TrainConfig, manifests: list["Manifest"]) -> None:
    """Raises ConfigError where data and config do not go together."""
    info, path = manifests[0].tokenizer, cfg.data.paths[0]
    if info.vocab_size > cfg.model.vocab_size:
        mend = f"set --config.model.vocab_size={info.vocab_size} or more"
        if cfg.init_from is not None:
            mend = (
                f"the weights are those of {cfg.init_from}: prepare the data with its "
                f"tokenizer, podium.prepare --tokenizer={cfg.init_from}/tokenizer.json"
            )
        raise ConfigError(
            f"model.vocab_size is {cfg.model.vocab_size}, but {path} has token ids up to "
            f"{info.vocab_size - 1}; {mend}"
        )
    if cfg.model.vocab_size > info.vocab_size * 5 // 4 + 128:  # more than padding
        print(
            f"warning: model.vocab_size is {cfg.model.vocab_size}, but the tokenizer has "
            f"{info.vocab_size} tokens: the rest is never used; "
            f"--config.model.vocab_size={info.vocab_size} is enough",
            file=sys.stderr,
        )
    for path, manifest in zip(cfg.data.paths, manifests, strict=True):
        check_objective(cfg.dpo is not None, path, manifest)
        if manifest.chat and cfg.eval and cfg.eval.ngram_baselines:
            raise ConfigError(
                f"eval.ngram_baselines counts texts, and {path} has {manifest.chat.records}"
                "; set --config.eval.ngram_baselines=False"
            )
        if cfg.eval and not manifest.splits["eval"]:
            raise ConfigError(
                f"{path} has no eval split; set --config.eval=None, or prepare it with "
                "--eval_fraction above 0 and, where it is one long document, with "
                "--max_document_bytes=65536 to cut it"
            )
    if cfg.sample and not cfg.sample.prompt and info.bos_id is None:
        raise ConfigError(
            "sample.prompt is empty, and this tokenizer has no token that begins a "
            "document; give at least one character, or set --config.sample=None"
        )


def check_objective(is_dpo: bool, path: str, manifest: "Manifest") -> None:
    """Pairs go with `dpo`, all else without it. Raises ConfigError."""
    from podium.input.manifest import has_pairs

    if has_pairs(manifest) and not is_dpo:
        raise ConfigError(
            f"{path} has pairs of answers, which only dpo learns from; switch it on with "
            "--config.dpo.beta=0.1"
        )
    if is_dpo and not has_pairs(manifest):
        raise ConfigError(
            f"dpo is set, but {path} has no pairs of answers; prepare them with "
            "python -m podium.prepare --chat=preferences"
        )


def _done_already(cfg: TrainConfig, workdir: Path, step: int) -> None:
    what = f"all {step} steps are done"
    if step > cfg.num_steps:
        what = f"has {step} steps, num_steps={cfg.num_steps} asks for no more"
    print(f"{workdir}: {what}", file=sys.stderr)
    if not (workdir / "plots" / "loss.png").exists():
        from podium.trainer.report import try_plot

        if path := try_plot(cfg, workdir, {}):
            print(f"{path}: written, it was missing", file=sys.stderr)


def _trackers(
    cfg: TrainConfig, workdir: Path, manifests: list["Manifest"]
) -> list["Tracker"]:
    prints = [m.fingerprint for m in manifests]
    paths = cfg.data.paths or (str(resume.data_folder(workdir)),)
    return tracking_start.trackers(cfg, workdir, list(zip(paths, prints, strict=True)))


def _send_rest(cfg: TrainConfig, workdir: Path, manifests: list["Manifest"]) -> None:
    """What a service had missed when the run ended."""
    from podium.trainer.summary import summary
    from podium.trainer.tracking import END_SECS, lost_line

    for tracker in _trackers(cfg, workdir, manifests):
        tracker.start()
        steps = resume.whole_steps(
            resume.checkpoints_folder(workdir, cfg.checkpoint.folder)
        )
        told = tracker.close("COMPLETE", summary(workdir), steps, END_SECS)
        if line := lost_line(told):
            cli.say(line)


def _train(
    cfg: TrainConfig,
    asked: TrainConfig,
    workdir: Path,
    ours: processes.Processes,
    server: "InputServer",
    manifests: list["Manifest"],
    first_step: int | None,
    damaged: dict[int, str],
) -> int:
    """`asked` is the config as given; `cfg` has the folders of its data filled in."""
    from podium.compile_cache import use_compile_cache
    from podium.sharding.mesh import use_virtual_cpu_devices

    use_compile_cache()
    use_virtual_cpu_devices(cfg.mesh, ours.count)

    from podium.trainer.loop import Trainer
    from podium.trainer.report import final_report

    parts = _setup(cfg)
    prints = [m.fingerprint for m in manifests]

    trackers = _trackers(asked, workdir, manifests) if ours.is_first else []

    def write_config() -> None:
        for tracker in trackers:
            tracker.start()
        if ours.is_first:
            resume.write_config(workdir, asked, prints, manifests[0].tokenizer)
            if asked.init_from:
                starts.take_along(asked.init_from, workdir)

    with contextlib.ExitStack() as held:
        ours.decide(lambda: _lock(held, cfg, workdir, first_step, damaged))
        if ours.is_first:
            if asked.data.paths and asked.data.text is not None:
                print("data.text is not read: data.paths is given", file=sys.stderr)
            _announce(parts, manifests, first_step)
            _note_schedule(cfg, workdir, first_step)
        trainer = Trainer(
            parts,
            workdir,
            server,
            fingerprints=prints,
            first_step=first_step,
            on_start=write_config,
            trackers=trackers,
        )
        outcome = trainer.run()
    if not outcome.is_done:
        if ours.is_first:
            print(
                f"stopped at step {outcome.step} of {cfg.num_steps}, saved in {workdir}; "
                "the same command continues",
                file=sys.stderr,
            )
        return cli.EXIT_RUN_AGAIN
    final_report(cfg, workdir, outcome, is_shown=ours.is_first)
    return 0


def _lock(
    held: contextlib.ExitStack,
    cfg: TrainConfig,
    workdir: Path,
    first_step: int | None,
    damaged: dict[int, str],
) -> None:
    """From here on the run is ours; what cannot be continued from is moved out of the
    way, before any process opens the checkpoints."""
    held.enter_context(run_folder.lock(workdir))
    folder = resume.checkpoints_folder(workdir, cfg.checkpoint.folder)
    good = [step for step in resume.whole_steps(folder) if step not in damaged]
    if max(good, default=None) != first_step:
        raise ConfigError(
            f"{workdir} was trained by another process until just now; run the same "
            "command again to continue from there"
        )
    resume.clear_unfinished(folder)
    if damaged:
        from podium.trainer.events import Events

        with Events(workdir) as events:
            for step, what in damaged.items():
                name = resume.set_aside(folder, step)
                events.add("fault", what="damaged checkpoint", step=step, error=what)
                print(f"checkpoint {step} is now {folder}/{name}", file=sys.stderr)


def _setup(cfg: TrainConfig) -> "Setup":
    import jax

    from podium.sharding.mesh import in_full, make_mesh
    from podium.trainer.setup import setup

    try:
        make_mesh(cfg.mesh)
    except ShardingError as error:
        sizes, full = cfg.mesh.sizes(), in_full(cfg.mesh)
        flags = [f"--config.mesh.{a}={n}" for a, n in full.items() if n != sizes[a]]
        if not flags or jax.default_backend() != "cpu":
            raise
        what = str(error).partition(". ")[0].rstrip(".")
        raise ShardingError(
            f"{what}. On a CPU, a mesh written out in full makes virtual devices: add "
            f"{' '.join(flags)} for {math.prod(full.values())}."
        ) from error
    return setup(cfg)


def _announce(parts: "Setup", manifests: list["Manifest"], first_step: int | None):
    """One line on what is trained, where, on how much."""
    import jax

    from podium.models.flops import param_count

    cfg, devices = parts.cfg, list(parts.mesh.devices.flat)
    tokens = sum(s.tokens for m in manifests for s in m.splits["train"])
    mesh = " x ".join(f"{k}={n}" for k, n in parts.mesh.shape.items() if n > 1)
    own = sum(math.prod(x.shape) for x in jax.tree.leaves(parts.layout.shapes.params))
    trained = f", {own:,} of adapters trained" if cfg.lora else ""
    print(
        f"{param_count(cfg.model):,} parameters{trained} on {devices[0].platform} x "
        f"{len(devices)}{f' (mesh {mesh})' if mesh else ''}; {tokens:,} tokens of data; "
        f"{_steps_to_do(cfg, first_step)} x "
        f"{cfg.global_batch_seqs * cfg.data.seq_len:,} tokens",
        file=sys.stderr,
    )


def _steps_to_do(cfg: TrainConfig, first_step: int | None) -> str:
    if not first_step:
        return f"{cfg.num_steps:,} steps"
    return f"steps {first_step + 1:,} to {cfg.num_steps:,}"


def _note_schedule(cfg: TrainConfig, workdir: Path, first_step: int | None) -> None:
    """Another num_steps stretches the schedule, so the learning rate may jump."""
    before = resume.saved_config(workdir).get("num_steps", cfg.num_steps)
    if first_step is None or before == cfg.num_steps or not isinstance(before, int):
        return
    from podium.trainer.schedule import learning_rate

    def rate(num_steps: int) -> float:
        value: Any = learning_rate(cfg.optim, num_steps)(first_step)
        return float(value)

    old, new = rate(before), rate(cfg.num_steps)
    if abs(new - old) > 0.01 * old:
        print(
            f"note: num_steps was {before}, now {cfg.num_steps}: the schedule stretches, "
            f"and the learning rate jumps from {old:.2e} to {new:.2e}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    cli.run(main, can_continue=True)
