# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`init_from` of a job: a model's run folder in a bucket, as a host can read it.

Its checkpoints stay there; the small files beside them come to the host's disk.
"""

import json
from pathlib import Path

from launch.follow import find_run
from podium.errors import ConfigError

_CONFIG = "config.json"
_SMALL = ("data.json", "tokenizer.json")
_FOLDER = "pretrained/"


def fetch(address: str, to: Path) -> Path:
    """A run folder on this disk, whose checkpoints are those at `address`: a folder of
    podium.train or podium.convert that was copied, or a job's, gs://BUCKET/runs/RUN.

    Raises ConfigError, StorageError.
    """
    if (there := find_run(address, _CONFIG)) is None:
        raise ConfigError(
            f"init_from={address} has no {_CONFIG}; copy a whole run folder there: gcloud "
            f"storage cp -r runs/model {address}"
        )
    top = there.names()
    tree = json.loads(there.read(_CONFIG))
    kept = tree.setdefault("checkpoint", {})
    if not str(kept.get("folder") or "").startswith("gs://"):
        kept["folder"] = f"{there}/checkpoints"
    names = [name for name in _SMALL if name in top]
    if _FOLDER.rstrip("/") in top:
        inside = there.inside(_FOLDER.rstrip("/"))
        names += [f"{_FOLDER}{name}" for name in inside.files()]
    for name in names:
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(there.read(name))
    to.mkdir(parents=True, exist_ok=True)
    (to / _CONFIG).write_text(json.dumps(tree, indent=2))
    return to
