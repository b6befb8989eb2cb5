# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every sharding rule did to every tensor, activation and collective of a run.

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

_EXAMPLE = """examples:
  python -m podium.sharding_report --config=configs/quickstart.py --devices=8 \\
      --config.mesh.tensor=2
  python -m podium.sharding_report --config=F --topology=v4-256

No accelerator is needed: the devices are virtual, nothing is allocated. A topology is
named as Google names it; its step is compiled by the TPU compiler (extra tpu), in
minutes, which says what of the collectives is hidden. In the table of memory,
activations are what the compiler reserves beside the state while it runs the step.
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m podium.sharding_report",
        description="Prints where every tensor of a run lives, its bytes, and what "
        "the devices exchange.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--devices", type=int, metavar="N", help="virtual CPU devices")
    parser.add_argument("--topology", metavar="NAME", help="a TPU slice, e.g. v4-256")
    parser.add_argument(
        "--no_compile", action="store_true", help="leave out collectives and memory"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    if (args.devices is None) == (args.topology is None):
        parser.error("name one of --devices=8 (virtual CPUs) and --topology=v4-256")
    if args.devices is not None and args.devices < 1:
        raise ConfigError(f"--devices is {args.devices}; expected 1 or more")

    from podium.aot import compile as aot
    from podium.aot.chips import parse_slice

    where = parse_slice(args.topology) if args.topology else None
    if where:
        aot.without_tpus()

    import jax

    from podium.compile_cache import use_compile_cache
    from podium.sharding_tables import print_report

    if where:
        devices = aot.devices(where)
    else:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)
        use_compile_cache()
        devices = list(jax.devices())
    cfg, problem = _with_even_batch(cfg, devices)
    if problem:
        print(f"note: no activations: {problem}", file=sys.stderr)
    report, code = make_report(cfg, devices, trace=not problem), 0
    if not (args.no_compile or problem):
        try:
            report |= _compiled(cfg, devices, where, report)
        except aot.DoesNotFitError as error:
            needs = error.needed_bytes / 2**30
            print(
                f"note: no collectives: the TPU compiler refused a step that needs "
                f"{needs:.2f} GiB a device; profiling.plan proposes one that fits",
                file=sys.stderr,
            )
            code = cli.EXIT_FAILED
    print(json.dumps(report, indent=2)) if args.json else print_report(report)
    return code


def _with_even_batch(cfg: TrainConfig, devices: list[Any]) -> tuple[TrainConfig, str]:
    """A config whose batch divides over the devices, and what was wrong with it before.

    The layout of the state does not depend on the batch.
    """
    from podium.sharding.mesh import make_mesh
    from podium.sharding.rules import ShardingRules
    from podium.trainer.setup import check_batch

    rules = ShardingRules(cfg.sharding, make_mesh(cfg.mesh, devices))
    try:
        check_batch(cfg, rules)
    except ConfigError as error:
        rows = rules.num_shards("batch") * cfg.grad_accum_steps
        return dataclasses.replace(cfg, global_batch_seqs=rows), str(error)
    return cfg, ""


def make_report(
    cfg: TrainConfig, devices: list[Any] | None = None, *, trace: bool = True
) -> dict[str, Any]:
    """What needs no compiler, as plain data; bytes are per device.

    `devices` are those there are by default; `trace`: list activations too.

    Raises ShardingError for a rule that fits no tensor, an axis that nothing uses,
    or a dimension that does not divide.
    """
    from podium.models import adapters, bind
    from podium.sharding.activations import activations
    from podium.trainer.setup import setup

    parts = setup(cfg, devices)
    shapes, shardings = parts.layout.shapes, parts.layout.shardings
    tensors = _tensors("", shapes.params, parts.model.axes, shardings.params)
    frozen = []
    if cfg.lora is not None:
        kept = adapters.frozen(bind.abstract(cfg.model), cfg.lora)
        frozen = _tensors("frozen/", kept.shapes, kept.axes, shardings.frozen)
    total = {
        "parameters": sum(t["bytes"] for t in tensors),
        "gradients": sum(t["bytes"] for t in tensors),
        "optimizer": _tree_bytes(shapes.opt_state, shardings.opt_state),
    }
    if frozen:
        total["frozen_weights"] = sum(t["bytes"] for t in frozen)
    if hosted := _tree_bytes(shapes.opt_state, shardings.opt_state, on_host=True):
        total["optimizer_on_host"] = hosted
    if shapes.ema is not None:
        total["averaged_weights"] = _tree_bytes(shapes.ema, shardings.ema)
    placed = []
    if trace:
        step, arguments = parts.train_step, parts.arguments()
        placed = activations(lambda: step.trace(*arguments).jaxpr.jaxpr)
    return {
        "mesh": dict(parts.mesh.shape),
        "rules": {
            name: list(parts.rules.mesh_axes(name))
            for name in vars(cfg.sharding)
            if parts.rules.mesh_axes(name)
        },
        "params": sum(math.prod(t["shape"]) for t in tensors),
        "tensors": tensors + frozen,
        "activations": [dataclasses.asdict(place) for place in placed],
        "bytes_per_device": {
            **total,
            "total": sum(total.values()) - total.get("optimizer_on_host", 0),
        },
    }


def _tensors(
    prefix: str, shapes: Any, axes: Any, shardings: Any
) -> list[dict[str, Any]]:
    """A row for every array of a tree of parameters."""
    import jax

    tensors = []
    for (path, shape), named, sharding in zip(
        jax.tree_util.tree_leaves_with_path(shapes),
        jax.tree.leaves(axes, is_leaf=lambda x: type(x) is tuple),
        jax.tree.leaves(shardings),
        strict=True,
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        tensors.append(
            {
                "name": prefix + name,
                "shape": list(shape.shape),
                "logical_axes": list(named),
                "spec": [_entry(e) for e in _full(sharding.spec, len(named))],
                "local_shape": list(sharding.shard_shape(shape.shape)),
                "bytes": _local_bytes(shape, sharding),
            }
        )
    return tensors


def _compiled(
    cfg: TrainConfig, devices: list[Any], where: Any, report: dict[str, Any]
) -> dict[str, Any]:
    """What the compiled step adds to a report. Raises aot.DoesNotFitError."""
    from podium.aot import collectives, hbm, hlo, hlo_text
    from podium.aot import compile as aot
    from podium.aot.grid import Grid
    from podium.aot.network import Network
    from podium.aot.roofline import roofline
    from podium.sharding.mesh import slice_indices
    from podium.trainer.setup import setup

    total = {k: v for k, v in report["bytes_per_device"].items() if k != "total"}
    state = sum(total.values()) - total["gradients"]
    # Not the step that was traced: that trace bears the names of its activations.
    parts = setup(cfg, devices)
    slices = dict(zip(devices, slice_indices(cfg.mesh, devices), strict=True))
    grid = Grid.of(parts.mesh, [slices[d] for d in parts.mesh.devices.flat])
    if where:
        step = aot.compile_step(parts, where)
        # Of its arguments and temporaries the TPU compiler lets some share their place.
        text, used = step.hlo, step.peak_bytes
        program = hlo.read(text)
        network = Network.of(where, list(parts.mesh.devices.flat))
        found = roofline(program, network, grid).collectives
    else:
        step = parts.compile_step()
        text = step.as_text()
        memory = step.memory_analysis()
        used = int(memory.temp_size_in_bytes) + state
        program = hlo.read(text)
        found = collectives.without_times(program, grid)
    rows = collectives.table(found, program.sources, has_times=bool(where))
    total["activations"] = max(0, used - sum(total.values()))
    return {
        "compiled_for": where.name if where else f"{len(devices)} virtual CPU devices",
        "collectives": [dataclasses.asdict(row) for row in rows],
        "kept_for_backward": [
            {"shape": kept.shape, "bytes": kept.num_bytes, "on_host": kept.on_host}
            for kept in hbm.stacked(hlo_text.parse(text))
        ],
        "bytes_per_device": {**total, "total": sum(total.values())},
    }


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


if __name__ == "__main__":
    cli.run(main)
