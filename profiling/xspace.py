# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a trace, as messages of XProf's format (XSpace).

The format is tsl/profiler/protobuf/xplane.proto of openxla/xla. TensorFlow carries its
Python module; it is loaded from its file, as importing TensorFlow takes seconds.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

from podium.errors import ConfigError

_SUFFIX = ".xplane.pb"
_MODULE = "tsl/profiler/protobuf/xplane_pb2.py"


def trace_files(path: Path) -> list[Path]:
    """One file a host: of a file, a session's folder, or the newest session below.

    Raises ConfigError where there is none.
    """
    if path.is_file() and path.name.endswith(_SUFFIX):
        return [path]
    found = sorted(path.rglob(f"*{_SUFFIX}")) if path.is_dir() else []
    if not found:
        what = "holds no trace" if path.is_dir() else "is no trace"
        if not path.exists():
            what = "does not exist"
        raise ConfigError(
            f"{path} {what}; expected a run folder with traces/ (train with "
            f"--config.profile.steps=10:15), a session's folder or a *{_SUFFIX} file"
        )
    # Sessions are named by their time.
    newest = max(found, key=lambda file: file.parent.name).parent
    return [file for file in found if file.parent == newest]


def load(file: Path) -> Any:
    """An XSpace. Raises ConfigError where the file is none."""
    space = schema().XSpace()
    try:
        space.ParseFromString(file.read_bytes())
    except Exception as error:  # DecodeError, of the implementation in use
        raise ConfigError(
            f"{file}: not an XSpace ({error}); the trace was cut short, or another "
            "program wrote this file: trace again"
        ) from None
    return space


@functools.cache
def schema() -> Any:
    """The module that protoc made of xplane.proto."""
    package = importlib.util.find_spec("tensorflow")
    assert package
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / _MODULE
    spec = importlib.util.spec_from_file_location("xplane_pb2", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stats(plane: Any, *owners: Any) -> dict[str, Any]:
    """Name -> value of what events, their metadata or the plane itself carry."""
    found = {}
    for owner in owners:
        for stat in owner.stats:
            kind = stat.WhichOneof("value")
            value = getattr(stat, kind) if kind else None
            if kind == "ref_value":
                value = plane.stat_metadata[value].name
            found[plane.stat_metadata[stat.metadata_id].name] = value
    return found


def hlo_module(hlo_proto: bytes) -> bytes:
    """The HloModuleProto in an HloProto: its first field."""
    assert hlo_proto[:1] == b"\x0a", "an HloProto without a module"
    size, at, shift = 0, 1, 0
    while True:
        byte = hlo_proto[at]
        size |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return hlo_proto[at : at + size]
