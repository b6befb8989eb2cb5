# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Does a run fit on a TPU slice, how fast can it be, what does it cost? No TPU needed.

python -m profiling.plan --config=configs/quickstart.py --topology=v5e-8

Compiles the real train step with the TPU compiler and reads the result.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium import cli
from podium.aot import compile as aot
from podium.aot.chips import Slice, parse_slice
from podium.config import TrainConfig
from podium.config_model import DroplessConfig, MoeConfig
from podium.errors import ConfigError
from profiling import plan_cache

_EXAMPLE = """examples:
  python -m profiling.plan --config=configs/quickstart.py --topology=v5e-8
  python -m profiling.plan --config=F --topology=v4-256x4 --tokens=2e12 --json
  python -m profiling.plan --config=F --topology=v4-256 --search --plot=layouts.png

A slice is named as Google names it: v4-256 and v5p-256 count TensorCores (128 chips),
v5e-256 and v6e-256 chips; x4 stands for four slices. Exit code 1: it does not fit.
The step time is a bound: matmuls by the compiler's estimate, Pallas kernels at peak,
collectives by bytes over links, minus what the schedule hides.
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.plan",
        description="Plans a run on a TPU slice that is not there.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--topology", metavar="NAME", help="the slice, e.g. v4-256")
    parser.add_argument(
        "--tokens",
        type=lambda text: _amount(text, "2e12"),
        help="budget to price (20 per parameter)",
    )
    parser.add_argument(
        "--usd_per_chip_hour",
        type=lambda text: _amount(text, "1.20"),
        help="your price (list price on demand)",
    )
    parser.add_argument(
        "--no_proposal", action="store_true", help="if it does not fit, just say so"
    )
    parser.add_argument("--hlo", metavar="FILE", help="write the scheduled HLO here")
    parser.add_argument(
        "--search",
        action="store_true",
        help="estimate every mesh, remat policy and number of micro-batches at this "
        "global batch, and compile the best",
    )
    parser.add_argument(
        "--compile", type=int, metavar="N", help="layouts that --search compiles (3)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="--search: memory against step time, as PNG"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    if not args.topology:
        parser.error("--topology is missing, e.g. --topology=v4-256")
    if not args.search and (args.plot or args.compile is not None):
        parser.error("--plot and --compile belong to --search")
    if args.search and args.hlo:
        parser.error("--hlo is of one layout; run it again without --search")
    if args.compile is not None and args.compile < 0:
        parser.error(f"--compile is {args.compile}; expected 0 or more")
    for flag, file in (("--hlo", args.hlo), ("--plot", args.plot)):
        if file and not Path(file).absolute().parent.is_dir():
            parser.error(f"{flag}={file}: there is no folder {Path(file).parent}")
    where = parse_slice(args.topology)
    if args.usd_per_chip_hour is not None:
        chip = dataclasses.replace(where.chip, usd_per_chip_hour=args.usd_per_chip_hour)
        where = dataclasses.replace(where, chip=chip)
    aot.without_tpus()
    if args.search:
        return _search(args, cfg, where)

    plan = make_plan(cfg, where, tokens=args.tokens, hlo_path=args.hlo)
    if not plan["fits"] and not args.no_proposal and cfg.lora is None:
        from profiling.proposal import propose

        cli.say(f"plan: {_too_much(plan)}; looking for the nearest that does")
        plan["proposal"] = propose(cfg, where, plan["hbm_bytes_per_chip"])
    plan_cache.save(cfg, where.name, plan)  # for launch.vertex
    print(json.dumps(plan, indent=2)) if args.json else _print(plan)
    return 0 if plan["fits"] else cli.EXIT_FAILED


def _amount(text: str, example: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected a number above 0, such as {example}"
        )
    return amount


def _search(args: argparse.Namespace, cfg: TrainConfig, where: Slice) -> int:
    from profiling import search_report

    if cfg.lora is not None:
        raise ConfigError(
            "--search estimates runs that train all weights, and this one has lora; plan "
            "one mesh after the other, without --search"
        )
    count = 3 if args.compile is None else args.compile
    found = search_report.search(cfg, where, num_compiled=count, tokens=args.tokens)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        search_report.print_search(found)
    if args.plot:
        from profiling.search_plot import plot

        plot(found, args.plot)
    return 0 if found["fits"] else cli.EXIT_FAILED


def make_plan(
    cfg: TrainConfig,
    where: Slice,
    *,
    tokens: float | None = None,
    hlo_path: str | None = None,
) -> dict[str, Any]:
    """The plan as plain data; bytes, seconds and operations are per device and step.

    Raises ConfigError or ShardingError where the config cannot run on that many
    devices. A step that does not fit has `fits` false and no times.
    """
    import jax

    from podium.aot import hbm
    from podium.models import flops
    from podium.sharding.mesh import fit
    from podium.trainer.setup import setup

    params, quantized = flops.param_count(cfg.model), cfg.model.quantization
    plan: dict[str, Any] = {
        "topology": where.name,
        "chips": where.num_chips,
        "params": params,
        "active_params": flops.active_param_count(cfg.model),
        "tokens_per_step": cfg.global_batch_seqs * cfg.data.seq_len,
        "quantization": None if quantized is None else quantized.kind,
        "mfu_is_of_flops_per_sec": where.chip.peak_flops,  # bf16's, whatever multiplies
        "fits": False,
        "hbm_bytes_per_chip": 0,
        "hbm_capacity_bytes": where.chip.device_hbm_bytes * where.chip.devices_per_chip,
    }
    # Before libtpu describes the slice.
    fit(cfg.mesh, where.num_devices, where.num_slices)
    parts = setup(cfg, aot.devices(where))
    plan["mesh"] = {k: v for k, v in parts.mesh.shape.items() if v > 1}
    if cfg.lora is not None:
        adapters = jax.tree.leaves(parts.layout.shapes.params)
        plan["trained_params"] = sum(math.prod(x.shape) for x in adapters)
    try:
        compiled = aot.compile_step(parts, where)
    except aot.DoesNotFitError as error:
        plan["hbm_bytes_per_chip"] = error.needed_bytes * where.chip.devices_per_chip
        return plan
    if hlo_path:
        with open(hlo_path, "w") as file:
            file.write(compiled.hlo)
    plan["fits"] = True
    plan["hbm_bytes_per_chip"] = compiled.peak_bytes * where.chip.devices_per_chip
    plan["host_bytes_per_chip"] = compiled.host_bytes * where.chip.devices_per_chip
    plan["hbm_bytes"] = hbm.split(parts, compiled.hlo, compiled.peak_bytes)
    plan["host_bytes"] = hbm.on_host(parts, compiled.host_bytes)
    plan |= _speed(cfg, where, parts, compiled)
    plan["verification_share"] = _verification(cfg)
    return plan | _price(plan, where, tokens or 20.0 * params)


def _speed(
    cfg: TrainConfig, where: Slice, parts: Any, compiled: aot.Compiled
) -> dict[str, Any]:
    from podium.aot.collectives import table
    from podium.aot.grid import Grid
    from podium.aot.hlo import read
    from podium.aot.network import Network
    from podium.aot.roofline import roofline
    from podium.models import flops

    network = Network.of(where, list(parts.mesh.devices.flat))
    program = read(compiled.hlo, used_rows(cfg, parts.rules))
    found = roofline(program, network, Grid.of(parts.mesh))
    alike = table(found.collectives, program.sources, has_times=True)
    tokens = cfg.global_batch_seqs * cfg.data.seq_len / where.num_devices
    is_frozen = cfg.lora is not None
    ours = flops.train_flops_per_token(cfg.model, cfg.data.seq_len, is_frozen=is_frozen)
    usual = 4.0 if is_frozen else 6.0
    times = found.times
    return {
        "step_secs": times.step_secs,
        "secs": {
            "fusions": times.fusion_secs,
            "kernels_at_peak": times.kernel_secs,
            "synchronous_collectives": times.sync_secs,
            "exposed_asynchronous": times.exposed_secs,
            "all_ici": times.ici_secs,
            "all_dcn": times.dcn_secs,
            "all_host": times.host_secs,
            "exposed_host": sum(
                row.exposed_secs
                for row in found.collectives
                if row.kind in ("to host", "from host")
            ),
            "hbm_at_most": times.hbm_bytes
            / (where.chip.hbm_bytes_per_sec / where.chip.devices_per_chip),
        },
        "tokens_per_sec_per_chip": tokens
        * where.chip.devices_per_chip
        / times.step_secs,
        "mfu_bound": found.mfu(tokens * ours, where.chip),
        "mfu_bound_6nd": found.mfu(
            tokens * usual * flops.active_param_count(cfg.model), where.chip
        ),
        "mfu_bound_6nd_async_hidden": found.mfu(
            tokens * usual * flops.active_param_count(cfg.model),
            where.chip,
            async_is_hidden=True,
        ),
        "flops_executed": times.flops,
        "flops_useful": tokens * ours,
        "hbm_traffic_bytes_at_most": times.hbm_bytes,
        "collective_bytes": sum(
            r.num_bytes * r.count for r in found.collectives if r.group_size > 1
        ),
        "host_copy_bytes": times.host_bytes,
        "collectives": [dataclasses.asdict(row) for row in found.collectives],
        "collectives_alike": [dataclasses.asdict(row) for row in alike],
        "unknown_kernels": found.unknown_kernels,
    }


def used_rows(cfg: TrainConfig, rules: Any) -> float:
    """Of the rows that a device hands to its experts the share that they multiply.

    Without a capacity an expert group gathers all its tokens, and each device multiplies
    those that chose its experts: an even share, where the router is balanced.
    """
    mlp = cfg.model.mlp
    if isinstance(mlp, MoeConfig) and isinstance(mlp.dispatch, DroplessConfig):
        return 1.0 / rules.num_shards("experts")
    return 1.0


def _verification(cfg: TrainConfig) -> float:
    """Of the time of steps, what checks of the hardware take beside them: two steps."""
    every = cfg.faults.verify_every_steps
    return 0.0 if every is None else 2.0 / every


def _price(plan: dict[str, Any], where: Slice, tokens: float) -> dict[str, Any]:
    secs = tokens / plan["tokens_per_step"] * plan["step_secs"]
    secs *= 1 + plan["verification_share"]
    usd = secs / 3600 * where.num_chips * where.chip.usd_per_chip_hour
    return {
        "tokens_budget": tokens,
        "days_for_budget": secs / 86400,
        "usd_per_chip_hour": where.chip.usd_per_chip_hour,
        "usd_for_budget": usd,
        "usd_per_billion_tokens": usd / tokens * 1e9,
    }


def _count(number: int) -> str:
    """1234567 -> 1.23M."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:,.2f}{unit}"
    return f"{number:,}"


def _usd(amount: float) -> str:
    return f"{amount:,.{0 if amount >= 100 else 2}f} USD"


def quantization_line(kind: str, where: Slice) -> str:
    """Whether eight-bit matmuls gain speed on these chips."""
    name = where.chip.name
    if kind in where.chip.twice_as_fast:
        return f"Projections multiply {kind}, which {name} does twice as fast as bf16"
    return (
        f"Projections multiply {kind}, which {name} does no faster than bf16: "
        "quantised matmuls gain no speed there"
    )


def _too_much(plan: dict[str, Any]) -> str:
    from podium.sharding_tables import size_text

    used, room = plan["hbm_bytes_per_chip"], size_text(plan["hbm_capacity_bytes"])
    needs = f"needs {size_text(used)} of {room}" if used else f"has {room}, too little"
    return f"does not fit: a chip {needs}"


def _print(plan: dict[str, Any]) -> None:
    from podium.sharding_tables import print_collectives, secs_text, size_text

    is_sparse = plan["params"] != plan["active_params"]
    active = f" ({_count(plan['active_params'])} a token)" if is_sparse else ""
    trained = plan.get("trained_params")
    active += f", {_count(trained)} of adapters trained," if trained else ""
    print(
        f"{_count(plan['params'])} parameters{active} on {plan['topology']}: "
        f"{plan['chips']} chips, mesh "
        + " x ".join(f"{k}={v}" for k, v in plan["mesh"].items())
    )
    used, room = plan["hbm_bytes_per_chip"], plan["hbm_capacity_bytes"]
    if not plan["fits"]:
        print(f"D{_too_much(plan)[1:]}.")
        if proposal := plan.get("proposal"):
            print(
                f"This fits, in {size_text(proposal['hbm_bytes_per_chip'])} a chip, "
                f"{proposal['step_secs']:.4g} s a step: {proposal['change']}"
            )
        return
    print(f"Fits: {size_text(used)} of {size_text(room)} a chip ({used / room:.1%}):")
    for name, size in plan["hbm_bytes"].items():
        print(f"  {name.replace('_', ' '):<18}{size_text(size):>10}")
    secs = plan["secs"]
    if held := plan["host_bytes_per_chip"]:
        print(
            f"On the host: {size_text(held)} a chip, optimizer "
            f"{size_text(plan['host_bytes']['optimizer'])} and activations "
            f"{size_text(plan['host_bytes']['activations'])} a device; copies of "
            f"{size_text(plan['host_copy_bytes'])} a step take "
            f"{secs_text(secs['all_host'])}, of which nothing hides "
            f"{secs_text(secs['exposed_host'])}"
        )
    print(
        f"Step of {plan['tokens_per_step']:,} tokens: at least "
        f"{secs_text(plan['step_secs'])} = fusions {secs_text(secs['fusions'])} + "
        f"kernels at peak {secs_text(secs['kernels_at_peak'])} + synchronous "
        f"collectives {secs_text(secs['synchronous_collectives'])} + exposed "
        f"{secs_text(secs['exposed_asynchronous'])}"
    )
    print(
        f"At most {plan['tokens_per_sec_per_chip']:,.0f} tokens/s a chip, MFU "
        f"{plan['mfu_bound']:.1%}; by {4 if trained else 6} * parameters * tokens "
        f"{plan['mfu_bound_6nd']:.1%}, if all that is asynchronous were hidden "
        f"{plan['mfu_bound_6nd_async_hidden']:.1%}"
    )
    if kind := plan["quantization"]:
        print(
            f"{quantization_line(kind, parse_slice(plan['topology']))}; MFU is of the "
            f"bf16 peak, {plan['mfu_is_of_flops_per_sec'] / 1e12:,.0f} Tflop/s"
        )
    print(
        f"{plan['tokens_budget']:.3g} tokens "
        f"({plan['tokens_budget'] / plan['params']:.3g} per parameter): at least "
        f"{secs_text(plan['days_for_budget'] * 86400)}, "
        f"{_usd(plan['usd_for_budget'])} at {plan['usd_per_chip_hour']} USD a chip-hour "
        f"({_usd(plan['usd_per_billion_tokens'])} per billion tokens)"
    )
    if share := plan["verification_share"]:
        print(
            f"In these, faults.verify_every_steps: {share:.2%} of the time of the steps"
        )
    if plan["unknown_kernels"]:
        print(f"Not in the bound, cost unknown: {', '.join(plan['unknown_kernels'])}")
    print_collectives(plan["collectives_alike"])


if __name__ == "__main__":
    cli.run(main)
