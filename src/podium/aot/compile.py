# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles the real train step for a TPU slice that is not there.

libtpu holds the whole compiler and needs no chip: it describes a topology, and jax
compiles for it. Call `without_tpus` before anything imports jax. What a compile gave is
kept in `~/.cache/podium/plans`, under the program, the slice and the versions.
"""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import sys
import tempfile
from typing import Any

from podium.aot.chips import Slice
from podium.aot.progress import watched
from podium.errors import ConfigError, PodiumError
from podium.trainer.compiler_options import compiler_options

_ROOT = pathlib.Path(__file__).parents[3]
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says of a step, per device."""

    hlo: str  # optimised and scheduled
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int  # of device memory
    host_bytes: int  # of the host's, arguments and temporaries


class DoesNotFitError(Exception):
    """The compiler refused: the step needs more than a device has."""

    def __init__(self, needed_bytes: int):
        super().__init__(f"the step needs {needed_bytes} bytes")
        self.needed_bytes = needed_bytes


class CompilerError(PodiumError):
    """The compiler failed at a program that it should compile."""

    is_met_at_work = True


def without_tpus() -> None:
    """Settles what libtpu asks its surroundings about. Raises ConfigError without it."""
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "a topology needs the TPU compiler, libtpu, and no TPU: uv run --isolated "
            "--extra tpu python -m …"
        )
    if "jax" in sys.modules and sys.modules["jax"].config.jax_platforms != "cpu":
        raise ConfigError("jax was imported before the plan could set it to the CPU")
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",  # no metadata server here
        TPU_ACCELERATOR_TYPE="v5litepod-16",  # any; the topology decides
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # no chip to fight over
        # Pallas kernels carry the paths of their sources. Without where they are installed
        # a program is the same in every environment, and is compiled once.
        JAX_HLO_SOURCE_FILE_CANONICALIZATION_REGEX=(
            rf"^.*/(?=site-packages/)|^{re.escape(str(_ROOT))}/"
        ),
        TF_CPP_MIN_LOG_LEVEL=os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    )


def devices(where: Slice) -> list[Any]:
    """Descriptions of the slice's devices; they compile, and run nothing."""
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(**where.topology()).devices)


def lower(parts: Any) -> Any:
    """The step of `podium.trainer.setup.Setup`, before the TPU compiler sees it."""
    return parts.train_step.lower(*parts.arguments())


def compile_step(
    parts: Any, where: Slice, options: dict[str, str] | None = None
) -> Compiled:
    """The step of a Setup, compiled, or an earlier result. Raises DoesNotFitError and
    CompilerError."""
    lowered = lower(parts)
    if options is None:
        options = compiler_options(parts.mesh)
    kept = _cache_path(lowered, where, options)
    if kept.exists():
        return _read(kept)
    found = compile_lowered(lowered, where, options)
    _write(kept, found)
    return found


def compile_lowered(lowered: Any, where: Slice, options: dict[str, str]) -> Compiled:
    """What `lower` gave, compiled, whether or not it was before. Raises as
    `compile_step`."""
    with tempfile.TemporaryDirectory() as dump:
        return _compile(lowered, where, options, dump if _uses_host(lowered) else None)


def _uses_host(lowered: Any) -> bool:
    return "pinned_host" in lowered.as_text()


def _compile(
    lowered: Any, where: Slice, options: dict[str, str], dump: str | None
) -> Compiled:
    import jax

    if dump:
        options = options | {"xla_dump_to": dump}
    try:
        compiled = watched(
            f"compiling the step for {where.name}",
            lambda: lowered.compile(compiler_options=options),
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise CompilerError(
                f"libtpu {importlib.metadata.version('libtpu')} fails to compile this "
                f"step, which may be its own fault: {str(error).splitlines()[0][:300]}; "
                "try another model.remat or mesh"
            ) from error
        raise DoesNotFitError(needed_bytes(str(error))) from None
    memory = compiled.memory_analysis()
    # jax counts arguments on the host in the peak too, temporaries there not.
    peak = int(memory.peak_memory_in_bytes - memory.host_argument_size_in_bytes)
    host_temporaries = int(memory.host_temp_size_in_bytes)
    host = host_temporaries + int(memory.host_argument_size_in_bytes)
    if host_temporaries and peak <= 1.001 * (
        host_temporaries + int(memory.argument_size_in_bytes)
    ):
        # jax states the larger of the device's peak and the host's.
        # It compiled, so it fits: an upper bound, should the report be another.
        peak = (_allocated(dump) if dump else 0) or where.chip.device_hbm_bytes
    return Compiled(
        hlo=compiled.as_text(),
        argument_bytes=int(memory.argument_size_in_bytes),
        temporary_bytes=int(memory.temp_size_in_bytes),
        peak_bytes=peak,
        host_bytes=host,
    )


def _allocated(dump: str) -> int:
    """What the compiler's own report says the program takes of a device's memory, gaps
    between its arrays included: some percent more than what is alive at once."""
    found = [
        re.search(
            r"^Memory Space: default.*\nTotal bytes: (\d+)", path.read_text(), re.M
        )
        for path in pathlib.Path(dump).glob("*memory-usage-report.txt")
    ]
    return max((int(match[1]) for match in found if match), default=0)


def needed_bytes(message: str) -> int:
    """Bytes that a step would take, from the compiler's refusal; 0 where unsaid.

    'Used 42.90G of 30.75G hbm', or 'memory required ... (33.40G) exceeds available'.
    """
    for pattern in (r"Used ([\d.]+)([KMGT]?) of", r"\(([\d.]+)([KMGT]?)B?\) exceeds"):
        if found := re.search(pattern, message):
            return round(float(found[1]) * _UNITS[found[2]])
    return 0


def _cache_path(lowered: Any, where: Slice, options: dict[str, str]) -> pathlib.Path:
    digest = hashlib.sha256(lowered.as_text().encode())
    versions = [importlib.metadata.version(p) for p in ("jax", "jaxlib", "libtpu")]
    if _uses_host(lowered):
        versions.append("allocated")  # see `_allocated`; without it another was said
    for part in (where.topology(), options, versions):
        digest.update(json.dumps(part, sort_keys=True).encode())
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "podium" / "plans" / f"{digest.hexdigest()[:32]}.gz"


def _read(path: pathlib.Path) -> Compiled:
    return Compiled(**json.loads(gzip.decompress(path.read_bytes())))


def _write(path: pathlib.Path, compiled: Compiled) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(compiled)).encode()))
    whole.rename(path)  # another plan never reads half a file
