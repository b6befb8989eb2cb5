# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run folder meets a config: begin, continue, or say why not. No jax.

`resume` is "run it again": what may change between two starts of one run is listed
here; anything else would silently make it another run, so it is an error.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from podium import checksums
from podium.config import DataConfig, TrainConfig
from podium.config_dict import from_json_dict, to_json_dict, with_defaults
from podium.errors import CheckpointError, ConfigError, DataError
from podium.storage import Folder, is_remote, open_folder

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
    "faults",
    "peer_secs",
    "watchdog",
    "tracking",
    "launch",
    "loss.chunk_tokens",
    "optim.state_memory",
    "model.remat",
    "model.layer_loop",
    "model.pipeline.microbatches",
    "model.attention.implementation",
    "data.paths",  # compared by fingerprint instead: a data set may have moved
    "data.on_damage",
    "data.num_threads",
    "data.prefetch_batches",
)

COMMITTED = "commit_success.txt"  # Orbax's name for that file

_TAIL_BYTES = 1 << 16  # of metrics.jsonl: some lines at least


def data_folder(workdir: str | Path) -> Path:
    """Where a run keeps the gold data that it made itself: `data.paths` is empty."""
    return Path(workdir).absolute() / "data"


# --- checkpoints ---------------------------------------------------------------------


def checkpoints_folder(workdir: str | Path, folder: str | None = None) -> Folder:
    """Where the checkpoints of a run lie: `checkpoint.folder`, or D/checkpoints.

    Without a config at hand that of the run itself says.
    """
    if folder is None:
        folder = saved_config(workdir).get("checkpoint", {}).get("folder")
    return open_folder(folder or Path(workdir).absolute() / "checkpoints")


def whole_steps(folder: Folder) -> list[int]:
    """The checkpoints that were finished, oldest first; reads none of their files.

    Orbax renames a folder when all is in it; in a bucket, where nothing can be renamed
    at once, it writes one more file. Any of them may have been damaged since.
    """
    steps = sorted(int(name) for name in folder.names() if name.isdecimal())
    if not is_remote(folder.path):
        return steps
    return [s for s in steps if COMMITTED in folder.inside(str(s)).names()]


def clear_unfinished(folder: Folder) -> None:
    """Removes what saves left that did not come to their end.

    For a run's first process, while no other saves: one under way looks the same.
    """
    whole = {str(step) for step in whole_steps(folder)}
    for name in folder.names():
        if ".orbax-checkpoint-tmp" in name or (name.isdecimal() and name not in whole):
            folder.remove(name)


def latest_step(workdir: str | Path) -> int | None:
    """The newest finished checkpoint of a run."""
    return max(whole_steps(checkpoints_folder(workdir)), default=None)


class Good(NamedTuple):
    """The newest checkpoint all of whose bytes are as they were written."""

    step: int | None
    damaged: dict[int, str]  # newer ones -> what is wrong with them


def newest_good(folder: Folder) -> Good:
    """Reads whole checkpoints, newest first, until one is good."""
    damaged: dict[int, str] = {}
    for step in reversed(whole_steps(folder)):
        found = _damage(folder, step)
        if found is None:
            return Good(step, damaged)
        damaged[step] = f"{folder}/{step}/{found}"
    return Good(None, damaged)


@functools.cache
def _damage(folder: Folder, step: int) -> str | None:
    # A process reads all bytes of a checkpoint once, not for each who asks.
    return checksums.find_damage(folder.inside(str(step)))


def skipped_batches(
    workdir: str | Path, cfg: TrainConfig, step: int | None
) -> list[tuple[int, int]]:
    """The batches that a run had left out when a checkpoint was saved."""
    if step is None:
        return []
    folder = checkpoints_folder(workdir, cfg.checkpoint.folder)
    run = json.loads(folder.read(f"{step}/run/metadata"))
    return [(after, num) for after, num in run["skipped_batches"]]


class SavedBase(NamedTuple):
    """The weights below a run's adapters, as its checkpoints name them."""

    path: str  # a run folder
    step: int  # of a checkpoint there
    fingerprint: str  # of its values, see podium.base_weights


def saved_base(folder: Folder, step: int) -> SavedBase:
    """What a checkpoint of adapters says that they were trained on."""
    return SavedBase(**json.loads(folder.read(f"{step}/run/metadata"))["base"])


def find_base(path: str | Path, saved: SavedBase | None) -> int:
    """The checkpoint in `path` that adapters sit on. Raises CheckpointError.

    `saved` None: adapters that are yet to be trained.
    """
    try:
        return find_checkpoint(path, None if saved is None else saved.step)
    except CheckpointError as error:
        if saved is None:
            raise
        raise CheckpointError(
            f"the weights below the adapters, checkpoint {saved.step} of {path} with "
            f"fingerprint {saved.fingerprint[:12]}, are gone: {error}; put them back "
            "there, or train on with --config.init_from=D where they lie now"
        ) from error


def changed_base(saved: SavedBase, now: str) -> str:
    """The message where the base has other values; `now` is their fingerprint."""
    return (
        f"checkpoint {saved.step} of {saved.path} is not what the adapters were trained "
        f"on: it has fingerprint {now[:12]}, that had {saved.fingerprint[:12]}; put the "
        "other back, or begin anew in another --workdir"
    )


def set_aside(folder: Folder, step: int) -> str:
    """Renames a damaged checkpoint, out of the way of a new one; returns the name."""
    taken = set(folder.names())
    names = (f"{step}.damaged{more}" for more in ("", *(f"-{i}" for i in range(2, 99))))
    name = next(name for name in names if name not in taken)
    folder.move(str(step), name)
    return name


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


def find_checkpoint(
    workdir: str | Path,
    step: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """The given checkpoint of a run, or its newest good one. Raises CheckpointError.

    `say` is told what was passed over.
    """
    if not Path(workdir).is_dir():
        what = "is no folder" if Path(workdir).exists() else "does not exist"
        raise CheckpointError(
            f"{workdir} {what}; expected the folder that podium.train was given"
        )
    folder = checkpoints_folder(workdir)
    steps = whole_steps(folder)
    if not steps:
        raise CheckpointError(
            f"{workdir} holds no checkpoints; podium.train writes them to {folder}"
        )
    if step is None:
        good = newest_good(folder)
        if good.step is None:
            raise CheckpointError(all_damaged(folder, good.damaged))
        for bad, what in good.damaged.items():
            say(f"checkpoint {bad} is damaged ({what}); using {good.step}")
        return good.step
    if step not in steps:
        raise CheckpointError(f"no checkpoint {step} in {folder}; found {steps}")
    if what := _damage(folder, step):
        raise CheckpointError(
            f"checkpoint {step} is damaged ({folder}/{step}/{what}); use another of "
            f"{steps}"
        )
    return step


def all_damaged(folder: Folder, damaged: dict[int, str]) -> str:
    """The message where no checkpoint is good."""
    newest = next(iter(damaged.values()))
    return (
        f"every checkpoint in {folder} is damaged ({newest}; {len(damaged)} in all); "
        "put back a copy, or begin anew in another --workdir"
    )


# --- the saved config ----------------------------------------------------------------


def saved_config(workdir: str | Path) -> dict[str, Any]:
    """D/config.json as plain values; empty where there is none."""
    return _read(Path(workdir) / "config.json")


def saved_data(workdir: str | Path) -> dict[str, Any]:
    """D/data.json: paths, fingerprints, tokenizer; empty where there is none."""
    path = Path(workdir) / "data.json"
    tree = _read(path)
    if tree and not _is_data(tree):
        raise CheckpointError(
            f"{path} is damaged: expected paths, as many fingerprints, and a tokenizer; "
            "delete it, and the run's own podium.train command writes it anew"
        )
    return tree


def _is_data(tree: dict[str, Any]) -> bool:
    paths, prints = tree.get("paths"), tree.get("fingerprints")
    if not (isinstance(paths, list) and isinstance(prints, list)):
        return False
    with contextlib.suppress(DataError):
        if "tokenizer" in tree:  # not so in runs of before
            from podium.input.manifest import parse_tokenizer

            parse_tokenizer(tree["tokenizer"], "data.json")
        return len(paths) == len(prints) and all(
            isinstance(text, str) for text in paths + prints
        )
    return False


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


def step_to_resume(workdir: str | Path, cfg: TrainConfig) -> Good:
    """The checkpoint to continue from, and damaged ones that are passed over.

    Raises ConfigError where the run is another's, CheckpointError where no checkpoint
    is good.
    """
    folder = checkpoints_folder(workdir, cfg.checkpoint.folder)
    if not whole_steps(folder):
        return Good(None, {})
    _check_config(workdir, cfg)
    good = newest_good(folder)
    if good.step is None:
        raise CheckpointError(all_damaged(folder, good.damaged))
    return good


def _check_config(workdir: str | Path, cfg: TrainConfig) -> None:
    saved = saved_config(workdir)
    if not saved:
        return
    saved = with_defaults(TrainConfig, saved)
    now = to_json_dict(cfg)
    changed = [
        f"{key}: saved {old!r}, now {new!r}"
        for key, old, new in differences(saved, now)
        if not any(key == may or key.startswith(may + ".") for may in MAY_CHANGE)
        and not (key == "data.text" and _is_same_text(saved["data"], now["data"]))
        and not (key == "init_from" and cfg.lora)  # compared by fingerprint as well
    ]
    if changed:
        raise ConfigError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}"
            f"{' …' if len(changed) > 5 else ''}. Use the saved values, or another "
            "--workdir."
        )


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
    paths = [
        str(p if is_remote(p) else Path(p).absolute())
        for p in cfg.data.paths or (data_folder(workdir),)
    ]
    data: dict[str, Any] = {"paths": paths, "fingerprints": fingerprints}
    if tokenizer is not None:
        data["tokenizer"] = dataclasses.asdict(tokenizer)
        if tokenizer.file:
            text = open_folder(paths[0]).read(tokenizer.file)
            (workdir / tokenizer.file).write_bytes(text)
    _write(workdir / "data.json", data)
    _write(workdir / "config.json", to_json_dict(cfg))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise CheckpointError(
            f"{path.parent} is no folder; expected the one that podium.train was given"
        ) from error
    except (ValueError, RecursionError) as error:
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
