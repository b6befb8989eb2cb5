# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every sharding rule did to every tensor of a run, and the bytes per device.

python -m podium.sharding_report --config=configs/quickstart.py --devices=8
"""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from podium import cli
from podium.config import TrainConfig
from podium.errors import ConfigError

_EXAMPLE = """example:
  python -m podium.sharding_report --config=configs/quickstart.py --devices=8 \\
      --config.mesh.tensor=2

No accelerator is needed: the devices are virtual, nothing is allocated. Activations
are what the compiler reserves beside the state while it runs the step.
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m podium.sharding_report",
        description="Prints where every tensor of a run lives, and its bytes.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--devices", type=int, default=8, help="virtual devices (8)")
    parser.add_argument(
        "--no_compile", action="store_true", help="leave out activations; seconds saved"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    if args.devices < 1:
        raise ConfigError(f"--devices is {args.devices}; expected 1 or more")

    import jax

    from podium.compile_cache import use_compile_cache

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    use_compile_cache()
    cfg, problem = _with_even_batch(cfg)
    if problem:
        print(f"note: no activations: {problem}", file=sys.stderr)
    compile_step = not (args.no_compile or problem)
    report = make_report(cfg, compile_step=compile_step)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _with_even_batch(cfg: TrainConfig) -> tuple[TrainConfig, str]:
    """A config whose batch divides over the devices, and what was wrong with it before.

    The layout of the state does not depend on the batch.
    """
    from podium.sharding.mesh import make_mesh
    from podium.sharding.rules import ShardingRules
    from podium.trainer.setup import check_batch

    rules = ShardingRules(cfg.sharding, make_mesh(cfg.mesh))
    try:
        check_batch(cfg, rules)
    except ConfigError as error:
        rows = rules.num_shards("batch") * cfg.grad_accum_steps
        return dataclasses.replace(cfg, global_batch_seqs=rows), str(error)
    return cfg, ""


def make_report(cfg: TrainConfig, *, compile_step: bool = True) -> dict[str, Any]:
    """The report on the devices there are, as plain data; bytes are per device.

    Raises ShardingError for a rule that fits no tensor, an axis that nothing uses,
    or a dimension that does not divide.
    """
    import jax

    from podium.trainer.setup import setup

    parts = setup(cfg)
    shapes, shardings = parts.layout.shapes, parts.layout.shardings
    tensors = []
    for (path, shape), axes, sharding in zip(
        jax.tree_util.tree_leaves_with_path(shapes.params),
        jax.tree.leaves(parts.model.axes, is_leaf=lambda x: isinstance(x, tuple)),
        jax.tree.leaves(shardings.params),
        strict=True,
    ):
        tensors.append(
            {
                "name": jax.tree_util.keystr(path, simple=True, separator="/"),
                "shape": list(shape.shape),
                "logical_axes": list(axes),
                "spec": [_entry(e) for e in _full(sharding.spec, len(axes))],
                "local_shape": list(sharding.shard_shape(shape.shape)),
                "bytes": _local_bytes(shape, sharding),
            }
        )
    total = {
        "parameters": sum(t["bytes"] for t in tensors),
        "gradients": sum(t["bytes"] for t in tensors),
        "optimizer": _tree_bytes(shapes.opt_state, shardings.opt_state),
    }
    if hosted := _tree_bytes(shapes.opt_state, shardings.opt_state, on_host=True):
        total["optimizer_on_host"] = hosted
    if shapes.ema is not None:
        total["averaged_weights"] = _tree_bytes(shapes.ema, shardings.ema)
    if compile_step:
        temporaries = _temporary_bytes(parts)
        # The compiler's figure holds the gradients too.
        total["activations"] = max(0, temporaries - total["gradients"])
    return {
        "mesh": dict(parts.mesh.shape),
        "rules": {
            name: list(parts.rules.mesh_axes(name))
            for name in vars(cfg.sharding)
            if parts.rules.mesh_axes(name)
        },
        "params": sum(math.prod(t["shape"]) for t in tensors),
        "tensors": tensors,
        "bytes_per_device": {
            **total,
            "total": sum(total.values()) - total.get("optimizer_on_host", 0),
        },
    }


def _temporary_bytes(parts: Any) -> int:
    return int(parts.compile_step().memory_analysis().temp_size_in_bytes)


def _tree_bytes(shapes: Any, shardings: Any, *, on_host: bool = False) -> int:
    import jax

    return sum(
        _local_bytes(shape, sharding)
        for shape, sharding in zip(
            jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True
        )
        if (sharding.memory_kind == "pinned_host") == on_host
    )


def _local_bytes(shape: Any, sharding: Any) -> int:
    return math.prod(sharding.shard_shape(shape.shape)) * shape.dtype.itemsize


def _full(spec: Any, ndim: int) -> list[Any]:
    return [*spec, *(None,) * (ndim - len(spec))]


def _entry(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    mesh = " x ".join(f"{axis}={size}" for axis, size in report["mesh"].items())
    table = Table(title=f"mesh {mesh}", title_justify="left", box=None, pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("axis:split by", overflow="fold")
    table.add_column("on a device", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for t in report["tensors"]:
        table.add_row(
            t["name"],
            "x".join(map(str, t["shape"])),
            " ".join(map(_axis_text, t["logical_axes"], t["spec"])),
            "x".join(map(str, t["local_shape"])),
            _size(t["bytes"]),
        )
    # Wide enough for the names also where there is no terminal to ask.
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print(f"\n{report['params']:,} parameters. Bytes on each device:")
    for name, size in report["bytes_per_device"].items():
        if name == "total" and "activations" not in report["bytes_per_device"]:
            name = "total but activations"
        console.print(f"  {name.replace('_', ' '):<22}{_size(size):>12}")


def _axis_text(logical: str | None, entry: Any) -> str:
    split = "*".join(entry) if isinstance(entry, list) else entry
    return f"{logical or '-'}:{split}" if split else str(logical or "-")


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return (
                f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
            )
        num_bytes /= 1024
    return f"{num_bytes:,.2f} GiB"


if __name__ == "__main__":
    cli.run(main)
