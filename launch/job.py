# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What runs on each host of a job: podium.train, with what the cloud gives filled in.

python -m launch.job --run=NAME --hosts=4 --config=configs/X.py

Checkpoints go to AIP_CHECKPOINT_DIR, the rest of the run folder is kept beside them and
brought back at the next start, and a model that is asked for goes to AIP_MODEL_DIR.
SIGTERM is handed on; a run that was stopped after saving ends in a way that makes Vertex
AI start the job again.
"""

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import peers, start_model
from launch.follow import RUN_FOLDER
from launch.job_secrets import read_secrets
from launch.mirror import RUN_LOCK, Mirror
from launch.source import SOURCE_FILE
from launch.trial_metric import TRIAL, TrialMetric
from podium import cli
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError
from podium.resume import saved_data
from podium.storage import open_folder

_EXAMPLE = """example:
  python -m launch.job --run=mine --hosts=1 --folder=gs://my-bucket/runs/mine \\
      --config=configs/quickstart.py

launch.vertex makes this the command of its jobs. Exit codes are those of podium.train,
but for 75, saved and to be continued, which becomes 134: Vertex AI takes that for a
passing fault and starts the job again.
"""
EXIT_TRY_AGAIN = 134  # 128 + SIGABRT: tried again up to 3 times
_EXPORTED = "config.json"  # of a model folder
_ORIGIN = "podium.json"  # where it comes from, pretrained/origin.py


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m launch.job",
        description="One host of a job in Google Cloud.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--run", default="run", metavar="NAME", help="of the run")
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="of the job")
    parser.add_argument(
        "--folder",
        metavar="gs://B/P",
        help="of the run (default: where AIP_CHECKPOINT_DIR lies)",
    )
    parser.add_argument(
        "--workdir", metavar="D", help="on this disk (default: podium/NAME in /tmp)"
    )
    parser.add_argument(
        "--mirror_secs", type=float, default=10.0, help="between copies of D/"
    )
    parser.add_argument("--metric", help="of a sweep's trial, told to Vertex AI")
    args, overrides = cli.parse_overrides(parser, argv)
    cfg = cli.load_config(args.config, overrides)
    workdir = Path(args.workdir or f"{tempfile.gettempdir()}/podium/{args.run}")
    found = folders(os.environ, args.folder)
    cli.say(f"job: {args.run} in {found['folder']}; {versions()}")

    workdir.mkdir(parents=True, exist_ok=True)
    mirror = Mirror(
        workdir,
        f"{found['folder']}/{RUN_FOLDER}",
        found["board"],
        every_secs=args.mirror_secs,
    )
    if number := mirror.restore():
        cli.say(f"job: {number} files of the run's folder are brought back")
    trial = os.environ.get(TRIAL)
    if trial and cfg.launch and cfg.launch.run:  # each is a run of its own
        overrides["launch.run"] = f"{cfg.launch.run}-{trial}"
    if cfg.checkpoint.folder is None:
        overrides["checkpoint.folder"] = found["checkpoints"]
    if (cfg.init_from or "").startswith("gs://"):
        model = workdir.with_name(f"{workdir.name}-init_from")
        overrides["init_from"] = str(start_model.fetch(cfg.init_from or "", model))
    command = [
        *(sys.executable, "-m", "podium.train", f"--config={args.config}"),
        *(f"--config.{key}={value}" for key, value in overrides.items()),
        f"--workdir={workdir}",
        *peers.flags(args.hosts),
    ]
    secrets = read_secrets(cfg.launch) if cfg.launch else {}
    with mirror, TrialMetric(workdir, args.metric):
        code = _run(command, secrets)
        wrote = (workdir / RUN_LOCK).exists()  # of several hosts the first
        if code == 0 and wrote and cfg.launch and cfg.launch.export:
            origin = export_model(workdir, found["model"])
            if origin and cfg.launch.experiment:
                show_export(cfg.launch, origin, found["model"])
        return exit_code(code)


def folders(env: Mapping[str, str], given: str | None) -> dict[str, Any]:
    """Addresses of the run's folder, its checkpoints, its TensorBoard files and the
    model that is exported."""
    checkpoints = (env.get("AIP_CHECKPOINT_DIR") or "").rstrip("/")
    folder = given or checkpoints.rpartition("/")[0]
    if not folder:
        raise ConfigError(
            "AIP_CHECKPOINT_DIR is not set, so this is no job of launch.vertex; give "
            "--folder=gs://BUCKET/PATH"
        )
    return {
        "folder": folder.rstrip("/"),
        "checkpoints": checkpoints or f"{folder.rstrip('/')}/checkpoints",
        "model": env.get("AIP_MODEL_DIR") or f"{folder.rstrip('/')}/model",
        "board": (env.get("AIP_TENSORBOARD_LOG_DIR") or "").rstrip("/") or None,
    }


def export_model(workdir: Path, to: str) -> dict[str, Any] | None:
    """The trained model as transformers reads it, in a folder of the bucket; returns what
    it says of where it comes from, None where it could not be made.

    A later start that finds it there, whole, makes none. Raises StorageError.
    """
    there = open_folder(to)
    names = there.names()
    if _EXPORTED in names:
        return json.loads(there.read(_ORIGIN)) if _ORIGIN in names else None
    with tempfile.TemporaryDirectory(dir=workdir.parent) as folder:
        made = Path(folder) / "model"
        command = [
            *(sys.executable, "-m", "podium.convert", "--to=hf"),
            *(f"--input={workdir}", f"--output={made}"),
        ]
        if (saved_data(workdir).get("tokenizer") or {}).get("kind") == "bytes":
            cli.say("job: the run read bytes, so the model has no tokenizer beside it")
            command.append("--no_tokenizer")
        if subprocess.run(command).returncode:
            cli.say(f"WARNING: the model is not exported to {to}: see above")
            return None
        # Last the one that says it is whole.
        names = sorted(os.listdir(made), key=lambda name: name == _EXPORTED)
        for name in names:
            there.put(made / name, name)
        origin = json.loads((made / _ORIGIN).read_bytes())
    cli.say(f"job: the model is in {to}")
    return origin


def show_export(launch: LaunchConfig, origin: dict[str, Any], uri: str) -> None:
    """Adds the model to the lineage in Vertex Experiments; a run does not fail for it."""
    from podium.trainer import lineage
    from podium.trainer.track_vertex import Clients

    try:
        clients = Clients(launch.project or "", launch.region)
        lineage.write_export(clients, launch.experiment or "", origin, uri)
    except Exception as error:  # whatever a service or its library does
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        cli.say(f"WARNING: the model in {uri} is not in the lineage: {line}")


def versions() -> str:
    """Of all that a fault may come from, and of the checkout."""
    found = [f"python {platform.python_version()}"]
    for name in ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    source = Path(SOURCE_FILE)
    if source.is_file():
        about = json.loads(source.read_text())
        more = " with changes" if about["is_dirty"] else ""
        found.append(f"commit {about['commit'][:12]}{more}")
    return ", ".join(found)


def _run(command: list[str], secrets: Mapping[str, str]) -> int:
    """The exit code of podium.train; negative where a signal ended it."""
    child = subprocess.Popen(command, env={**os.environ, **secrets})
    handed_on: list[int] = []

    def hand_on(number: int, _frame: Any) -> None:
        handed_on.append(number)
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    code = child.wait()
    # Before training has begun there is nothing to save, and a signal simply ends it.
    return cli.EXIT_RUN_AGAIN if -code in handed_on else code


def exit_code(code: int) -> int:
    """What Vertex AI is to make of podium.train's end."""
    if code == cli.EXIT_RUN_AGAIN:
        return EXIT_TRY_AGAIN
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    cli.run(main)
