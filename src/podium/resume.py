# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run folder meets a config: begin, continue, or say why not. No jax.

`resume` is "run it again": what may change between two starts of one run is listed
here; anything else would silently make it another run, so it is an error.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.config import DataConfig, TrainConfig
from podium.config_dict import from_json_dict, to_json_dict
from podium.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from podium.input.manifest import TokenizerInfo

# Dotted prefixes that neither the weights nor the order of the data depend on.
MAY_CHANGE = (
    "num_steps",
    "grad_accum_steps",
    "mesh",
    "sharding",
    "checkpoint",
    "eval",
    "log_every_steps",
    "profile",
    "sample",
    "loss.chunk_tokens",
    "optim.state_memory",
    "model.remat",
    "model.layer_loop",
    "model.pipeline.microbatches",
    "model.attention.implementation",
    "data.paths",  # compared by fingerprint instead: a data set may have moved
    "data.num_threads",
    "data.prefetch_batches",
)

_LOCK_FILE = "run.lock"
_TAIL_BYTES = 1 << 16  # of metrics.jsonl: some lines at least


# --- the folder ----------------------------------------------------------------------


def check_folder(workdir: str | Path) -> None:
    """A run may live in a new, an empty or a run's own folder. Raises ConfigError."""
    workdir = Path(workdir)
    if not os.path.lexists(workdir):
        return
    if not workdir.is_dir():
        raise ConfigError(f"--workdir={workdir} is no folder; choose another name")
    names = {entry.name for entry in workdir.iterdir()}
    if names & {"config.json", "checkpoints", _LOCK_FILE}:
        return
    if found := sorted(n for n in names - {"lost+found"} if not n.startswith(".")):
        more = " …" if len(found) > 3 else ""
        raise ConfigError(
            f"--workdir={workdir} holds other things ({', '.join(found[:3])}{more}) and "
            f"no run; choose an empty or a new folder, e.g. {workdir / 'run'}"
        )


def make_folder(workdir: str | Path) -> None:
    """Makes the run folder and marks it as one. Raises ConfigError."""
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        (Path(workdir) / _LOCK_FILE).touch()
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written: {error.strerror}; choose another "
            "folder"
        ) from error


@contextlib.contextmanager
def tidy(workdir: str | Path) -> Iterator[None]:
    """A start that fails takes away what `make_folder` made, if that is all there is."""
    workdir = Path(workdir)
    mark = workdir / _LOCK_FILE
    is_marked = mark.exists()
    new = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if not is_marked and list(workdir.iterdir()) == [mark]:
                mark.unlink()
            for folder in new:
                folder.rmdir()  # fails, and ends this, where something is in it
        raise


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Held while a run trains, by its first process; a killed process lets go of it.

    Raises ConfigError where another process holds it. File systems without locks are
    trusted.
    """
    with (Path(workdir) / _LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{workdir} is being trained by {file.read() or 'another process'}; "
                "stop it, or use another --workdir"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"pid {os.getpid()} on host {socket.gethostname()}")
        file.flush()
        yield


def data_folder(workdir: str | Path) -> Path:
    """Where a run keeps the gold data that it made itself: `data.paths` is empty."""
    return Path(workdir).absolute() / "data"


# --- checkpoints, by their names -----------------------------------------------------


def latest_step(workdir: str | Path) -> int | None:
    """The newest whole checkpoint of a run, by its folder name; reads no array."""
    return max(_steps(workdir), default=None)


def last_step(workdir: str | Path) -> int:
    """The last step that a run is known to have done: saved, or in its metrics."""
    done = latest_step(workdir) or 0
    path = Path(workdir) / "metrics.jsonl"
    if path.is_file():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    done = max(done, json.loads(line)["step"])
    return done


def find_checkpoint(workdir: str | Path, step: int | None = None) -> int:
    """The given checkpoint of a run, or its newest. Raises CheckpointError."""
    if not Path(workdir).is_dir():
        raise CheckpointError(
            f"{workdir} does not exist; --workdir is the folder given to podium.train"
        )
    steps = _steps(workdir)
    if not steps:
        raise CheckpointError(
            f"{workdir} holds no checkpoints; podium.train writes them to "
            f"{Path(workdir) / 'checkpoints'}"
        )
    if step is not None and step not in steps:
        raise CheckpointError(
            f"no checkpoint {step} in {Path(workdir) / 'checkpoints'}; found {steps}"
        )
    return steps[-1] if step is None else step


def _steps(workdir: str | Path) -> list[int]:
    folder = Path(workdir) / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


# --- the saved config ----------------------------------------------------------------


def saved_config(workdir: str | Path) -> dict[str, Any]:
    """D/config.json as plain values; empty where there is none."""
    return _read(Path(workdir) / "config.json")


def saved_data(workdir: str | Path) -> dict[str, Any]:
    """D/data.json: paths, fingerprints, tokenizer; empty where there is none."""
    return _read(Path(workdir) / "data.json")


def load_run(workdir: str | Path) -> TrainConfig:
    """The config of a run, the folders of its data filled in. Raises CheckpointError."""
    tree = saved_config(workdir)
    if not tree:
        find_checkpoint(workdir)  # says so if there is no folder at all
        raise CheckpointError(f"{workdir} holds no run: there is no config.json")
    cfg = from_json_dict(TrainConfig, tree)
    return dataclasses.replace(cfg, data=data_of(workdir, cfg))


def data_of(workdir: str | Path, cfg: TrainConfig) -> DataConfig:
    """The data settings of a run, its folders found from any working folder."""
    if not cfg.data.paths:
        return dataclasses.replace(cfg.data, paths=(str(data_folder(workdir)),))
    saved = saved_data(workdir).get("paths", ())
    if all(Path(path).exists() for path in saved) and saved:
        return dataclasses.replace(cfg.data, paths=tuple(saved))
    return cfg.data


def step_to_resume(workdir: str | Path, cfg: TrainConfig) -> int | None:
    """The checkpoint to continue from, or None. Raises ConfigError on another run's."""
    step = latest_step(workdir)
    saved = saved_config(workdir)
    if step is None or not saved:
        return step
    now = to_json_dict(cfg)
    changed = [
        f"{key}: saved {old!r}, now {new!r}"
        for key, old, new in differences(saved, now)
        if not any(key == may or key.startswith(may + ".") for may in MAY_CHANGE)
        and not (key == "data.text" and _is_same_text(saved["data"], now["data"]))
    ]
    if changed:
        raise ConfigError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}"
            f"{' …' if len(changed) > 5 else ''}. Use the saved values, or another "
            "--workdir."
        )
    return step


def _is_same_text(saved: dict[str, Any], now: dict[str, Any]) -> bool:
    """Where `paths` are given, `text` is not read."""
    if saved.get("paths") or now["paths"]:
        return True
    old, new = str(saved.get("text")), str(now["text"])
    return os.path.normpath(old) == os.path.normpath(new)


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two config trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            name = f"{path}.{key}" if path else key
            found += differences(old.get(key), new.get(key), name)
        return found
    return [] if old == new else [(path, old, new)]


def check_fingerprints(
    workdir: str | Path,
    paths: Sequence[str],
    prints: list[str],
    *,
    advice: str = "Point data.paths at the first, or use another --workdir.",
) -> None:
    """A run goes on with the data it began with. Raises ConfigError with both prints."""
    saved = saved_data(workdir)
    if saved and saved["fingerprints"] != prints:
        raise ConfigError(
            f"{workdir} was trained on {_sets(saved['paths'], saved['fingerprints'])}; "
            f"there now is {_sets(paths, prints)}. {advice}"
        )


def check_tokenizer(workdir: str | Path, path: str, tokenizer: "TokenizerInfo") -> None:
    """The ids of other data mean what they meant in training. Raises ConfigError."""
    saved = saved_data(workdir).get("tokenizer")  # none in runs of before
    if saved and saved["sha256"] != tokenizer.sha256:
        raise ConfigError(
            f"{path} has tokenizer {tokenizer.kind} {tokenizer.sha256[:12]} "
            f"({tokenizer.vocab_size} tokens), but {workdir} was trained with "
            f"{saved['kind']} {saved['sha256'][:12]} ({saved['vocab_size']} tokens), so "
            "a loss on it would mean nothing; prepare the text again with --tokenizer="
            f"{Path(workdir) / saved['file'] if saved['file'] else saved['kind']}"
        )


def _sets(paths: Sequence[str], prints: list[str]) -> str:
    return ", ".join(
        f"{path} (fingerprint {p[:12]})" for path, p in zip(paths, prints, strict=True)
    )


def write_config(
    workdir: str | Path,
    cfg: TrainConfig,
    fingerprints: list[str],
    tokenizer: "TokenizerInfo | None" = None,
) -> None:
    """Writes D/config.json, the resolved config, and D/data.json, what it reads.

    The tokenizer comes along, so that a run can be sampled where its data is not.
    """
    workdir = Path(workdir)
    paths = [str(Path(p).absolute()) for p in cfg.data.paths or (data_folder(workdir),)]
    data: dict[str, Any] = {"paths": paths, "fingerprints": fingerprints}
    if tokenizer is not None:
        data["tokenizer"] = dataclasses.asdict(tokenizer)
        if tokenizer.file:
            shutil.copyfile(Path(paths[0]) / tokenizer.file, workdir / tokenizer.file)
    _write(workdir / "data.json", data)
    _write(workdir / "config.json", to_json_dict(cfg))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise CheckpointError(f"{path.parent} is no folder") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged, no valid JSON ({error}); delete it, and the run's own "
            "podium.train command writes it anew"
        ) from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object; delete it")
    return tree


def _write(path: Path, tree: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(tree, indent=2) + "\n")
    part.replace(path)
