# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains a model; continues by itself if the run folder holds a checkpoint.

python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from podium import cli, resume
from podium.config import TrainConfig
from podium.errors import ConfigError, DataError

_EXAMPLE = """example:
  python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart \\
      --config.num_steps=200 --config.optim.peak_lr=1e-3

The same command again continues the run. Exit codes: 0 done, 1 failed, 2 wrong
usage or config, 75 stopped early with the state saved (run it again).
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
    args, cfg = cli.parse(parser, argv)
    if not args.workdir:
        parser.error("--workdir is missing, e.g. --workdir=runs/first")
    workdir = Path(args.workdir)
    first_step = resume.step_to_resume(workdir, cfg)

    from podium.input.server import InputServer

    # First of all: it is ready to read while jax is still being imported.
    server = InputServer.start()
    try:
        asked, cfg = cfg, with_data(cfg, workdir, is_resumed=first_step is not None)
        fingerprints = check_data(cfg)
        if first_step is not None:
            resume.check_fingerprints(workdir, fingerprints)
        workdir.mkdir(parents=True, exist_ok=True)
        resume.write_config(workdir, asked, fingerprints)
        if first_step is not None and first_step >= cfg.num_steps:
            print(f"{workdir}: all {cfg.num_steps} steps are done", file=sys.stderr)
            return 0
        return _train(cfg, workdir, server, fingerprints, first_step)
    finally:
        server.close()


def with_data(cfg: TrainConfig, workdir: Path, *, is_resumed: bool) -> TrainConfig:
    """`data.text` prepared into D/data, unless `data.paths` names gold data.

    A run that is continued keeps the data it has, whatever became of the text.
    """
    if cfg.data.paths:
        return cfg
    if cfg.data.text is None:
        raise ConfigError(
            "data.paths and data.text are both empty; set --config.data.text=DIR to "
            "prepare raw files, or --config.data.paths=D made by podium.prepare"
        )
    from podium.prepare import PrepareSpec, prepare

    folder = resume.data_folder(workdir)
    if not (is_resumed and (folder / "manifest.json").exists()):
        prepare(
            PrepareSpec(
                inputs=(cfg.data.text,),
                tokenizer=cfg.data.tokenizer,
                output=str(folder),
                eval_fraction=cfg.data.eval_fraction,
            )
        )
    data = dataclasses.replace(cfg.data, paths=(str(folder),))
    return dataclasses.replace(cfg, data=data)


def check_data(cfg: TrainConfig) -> list[str]:
    """The fingerprints of the data sets; raises where data and model do not go together."""
    from podium.input.manifest import load_manifest

    fingerprints = []
    for path in cfg.data.paths:
        manifest = load_manifest(path)
        size = manifest.tokenizer.vocab_size
        if size > cfg.model.vocab_size:
            raise ConfigError(
                f"model.vocab_size is {cfg.model.vocab_size}, but {path} has token ids "
                f"up to {size - 1}; set --config.model.vocab_size={size} or more"
            )
        if cfg.eval and not manifest.splits["eval"]:
            raise ConfigError(
                f"{path} has no eval split; prepare it with --eval_fraction above 0, or "
                "set --config.eval=None"
            )
        fingerprints.append(manifest.fingerprint)
    return fingerprints


def _train(cfg, workdir: Path, server, fingerprints: list[str], first_step) -> int:
    import jax

    from podium.compile_cache import use_compile_cache
    from podium.sharding.mesh import use_virtual_cpu_devices

    use_compile_cache()
    use_virtual_cpu_devices(cfg.mesh)

    from podium.trainer.loop import Trainer
    from podium.trainer.report import final_report
    from podium.trainer.setup import setup

    trainer = Trainer(
        setup(cfg), workdir, server, fingerprints=fingerprints, first_step=first_step
    )
    try:
        outcome = trainer.run()
    except DataError as error:  # damage met on the way, not a mistake in the command
        print(f"DataError: {error}", file=sys.stderr)
        return cli.EXIT_FAILED
    if not outcome.is_done:
        print(
            f"stopped at step {outcome.step} of {cfg.num_steps}, saved in {workdir}; "
            "the same command continues",
            file=sys.stderr,
        )
        return cli.EXIT_RUN_AGAIN
    if jax.process_index() == 0:
        final_report(cfg, workdir, outcome)
    return 0


if __name__ == "__main__":
    cli.run(main)
