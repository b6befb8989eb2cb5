# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`profiling.plan --search`: estimate every layout, compile the best, print the table."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from podium import cli
from podium.aot.chips import Slice, parse_slice
from podium.aot.compile import CompilerError
from podium.config import TrainConfig
from podium.errors import ConfigError, ShardingError
from podium.sharding_tables import console, secs_text, size_text
from profiling.plan import make_plan, quantization_line
from profiling.proposal import larger
from profiling.search import (
    Candidate,
    Estimated,
    candidates,
    estimate,
    own,
    ranked,
    reasons,
)

GIB = 2**30
_SURE_SHARE = (
    1 / 1.13
)  # of a chip's memory; docs/planning.md says how far estimates are
_SHOWN_REASONS = 6
_SHOWN_GUESSES = 7  # beside those that were compiled
_LESS_MEMORY = (0.75, 0.5)
_SAY_SECS = 20.0  # between words of progress where no bar can be


def search(
    cfg: TrainConfig, where: Slice, *, num_compiled: int, tokens: float | None = None
) -> dict[str, Any]:
    """Everything that was found, as plain data; `fits` if a compiled layout does.

    Compiles layouts, see `_order`, until `num_compiled` fit or twice as many were tried;
    then the config's own, so that the best is known to be better.
    """
    found = _estimate_all(cfg, where)
    room = where.chip.device_hbm_bytes * where.chip.devices_per_chip
    compiled, best = [], ranked(found)
    for e in _order(best)[: 2 * num_compiled]:
        done = sum(row["fits"] for row in compiled)
        if done == num_compiled:
            break
        flags = _flags(e.candidate.settings(cfg))
        cli.say(f"plan: {done} of {num_compiled} layouts; next {flags}")
        compiled.append(_compile(e, cfg, where, tokens))

    def others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known = [row["settings"] for row in compiled]
        return [row for row in rows if row["settings"] not in known]

    guesses = [_guess(e, cfg, where) for e in _one_a_mesh(best)]
    compiled.sort(key=lambda row: (not row["fits"], row.get("step_secs", 0.0)))
    quantized, mine = cfg.model.quantization, own(cfg, where)
    my_row = _guess(mine, cfg, where)
    if num_compiled and mine.fits:
        cli.say(f"plan: last the config's own, {_flags(my_row['settings'])}")
        my_row = _compile(mine, cfg, where, tokens)
    return {
        "topology": where.name,
        "chips": where.num_chips,
        "quantization": None if quantized is None else quantized.kind,
        "hbm_capacity_bytes": room,
        "fits": any(row["fits"] for row in compiled)
        or (not num_compiled and any(e.fits for e in found)),
        "compiled": compiled,
        "next_best": others(guesses)[:_SHOWN_GUESSES],
        "alternatives": others(_alternatives(found, cfg, where, room)),
        "own": my_row | {"estimate_fits": mine.fits, "estimate_reason": mine.reason},
        "larger": None if any(e.fits for e in found) else _on_a_larger(cfg, where),
        "num_candidates": len(found),
        "num_feasible": sum(e.fits for e in found),
        "infeasible": [
            {"candidates": n, "reason": reason} for n, reason in reasons(found, room)
        ],
        "candidates": [_as_data(e, cfg, room) for e in found],
    }


def _flags(settings: dict[str, int | str]) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in settings.items())


def _estimate_all(cfg: TrainConfig, where: Slice) -> list[Estimated]:
    from rich.console import Console
    from rich.progress import track

    to, every = Console(stderr=True), list(candidates(cfg, where))
    what = f"estimating {len(every):,} layouts for {where.name}"
    if to.is_terminal:
        every = track(every, what, console=to)
    else:
        cli.say(f"plan: {what}")
        every = _said(every)
    return [estimate(candidate, cfg, where) for candidate in every]


def _said(every: list[Candidate]) -> Iterator[Candidate]:
    """The same, with a line now and then."""
    said = time.monotonic()
    for number, candidate in enumerate(every):
        if time.monotonic() - said > _SAY_SECS:
            said = time.monotonic()
            cli.say(f"plan: {number:,} of {len(every):,} layouts so far")
        yield candidate


def _alternatives(
    found: Sequence[Estimated], cfg: TrainConfig, where: Slice, room: float
) -> list[dict[str, Any]]:
    """For whom the fastest takes too much: the fastest without the host's memory, and
    in less of the chip's, each only where it is another one."""
    best = ranked(found)
    asked = {
        "without the host's memory": [
            e for e in best if ":host" not in e.candidate.remat
        ],
        **{
            f"in {part:.0%} of the memory": [
                e for e in best if e.hbm_bytes_per_chip <= part * room
            ]
            for part in _LESS_MEMORY
        },
    }
    rows, seen = [], best[:1]
    for what, those in asked.items():
        if those and those[0] not in seen:
            seen.append(those[0])
            rows.append({"what": what} | _guess(those[0], cfg, where))
    return rows


def _order(best: Sequence[Estimated]) -> list[Estimated]:
    """What is compiled first: the fastest; if that has tensors on the host, whose copies
    the estimate takes for hidden, the fastest that has none; the best of other meshes."""
    order = _one_a_mesh(best)
    rivals = [e for e in best if ":host" not in e.candidate.remat]
    if not rivals or ":host" not in order[0].candidate.remat:
        return order
    return [order[0], rivals[0], *(e for e in order[1:] if e is not rivals[0])]


def _one_a_mesh(best: Sequence[Estimated]) -> list[Estimated]:
    """The best of every mesh; meshes that only swap two axes of one cost count once."""
    kept: dict[tuple, Estimated] = {}
    for e in best:
        key = (float(f"{e.step_secs:.4g}"), round(e.hbm_bytes_per_chip / GIB, 2))
        if all(e.candidate.mesh != k.candidate.mesh for k in kept.values()):
            kept.setdefault(key, e)
    return list(kept.values())


def _compile(
    best: Estimated, cfg: TrainConfig, where: Slice, tokens: float | None
) -> dict[str, Any]:
    row = _guess(best, cfg, where)
    try:
        plan = make_plan(best.candidate.apply(cfg), where, tokens=tokens)
    except (ConfigError, ShardingError, CompilerError) as error:
        return row | {"fits": False, "reason": str(error)}
    return row | plan


def _on_a_larger(cfg: TrainConfig, where: Slice) -> dict[str, Any] | None:
    """By the estimate: the fastest layout on the smallest slice of the kind that fits."""
    for there in larger(where):
        every = [estimate(c, cfg, there) for c in candidates(cfg, there)]
        if best := ranked([e for e in every if e.fits]):
            return _guess(best[0], cfg, there) | {"topology": there.name}
    return None


def _guess(e: Estimated, cfg: TrainConfig, where: Slice) -> dict[str, Any]:
    tokens = cfg.global_batch_seqs * cfg.data.seq_len
    usd = e.step_secs / 3600 * where.num_chips * where.chip.usd_per_chip_hour
    return {
        "settings": e.candidate.settings(cfg),
        "estimated": {
            "hbm_bytes_per_chip": round(e.hbm_bytes_per_chip),
            "step_secs": e.step_secs,
            "mfu": e.mfu,
            "usd_per_billion_tokens": usd / tokens * 1e9,
        },
    }


def _as_data(e: Estimated, cfg: TrainConfig, room: float) -> dict[str, Any]:
    over = max(0.0, e.hbm_bytes_per_chip - room)
    return {
        "settings": e.candidate.settings(cfg),
        "fits": e.fits,
        "reason": e.reason,
        "over_bytes": round(over),
        "hbm_bytes_per_chip": round(e.hbm_bytes_per_chip),
        "hbm_bytes": {k: round(v) for k, v in e.hbm_bytes.items()},
        "step_secs": e.step_secs,
        "mfu": e.mfu,
    }


def config_lines(settings: dict[str, int | str]) -> list[str]:
    """Lines for a config file."""
    return [f"cfg.{name} = {value!r}" for name, value in settings.items()]


def print_search(found: dict[str, Any]) -> None:
    """The table, the lines to paste, and why the others cannot run."""
    from rich.console import Console
    from rich.table import Table

    room = size_text(found["hbm_capacity_bytes"])
    print(
        f"{found['num_candidates']:,} layouts on {found['topology']} "
        f"({found['chips']} chips, {room} each): "
        f"{found['num_feasible']:,} can run by the estimate."
    )
    if kind := found["quantization"]:
        print(f"{quantization_line(kind, parse_slice(found['topology']))}.")
    for row in found["infeasible"][:_SHOWN_REASONS]:
        print(f"  {row['candidates']:>7,} cannot: {row['reason']}")
    if rest := found["infeasible"][_SHOWN_REASONS:]:
        more = sum(row["candidates"] for row in rest)
        print(f"  {more:>7,} cannot: {len(rest)} more reasons (--json)")
    if (larger := found["larger"]) is not None:
        print(
            f"By the estimate a larger slice fits, in "
            f"{size_text(larger['estimated']['hbm_bytes_per_chip'])} a chip: "
            f"--topology={larger['topology']} {_flags(larger['settings'])}"
        )
    rows = found["compiled"] + found["next_best"]
    if not rows:
        return
    how = "estimated -> compiled" if found["compiled"] else "estimated, none compiled"
    table = Table(title=f"{how}; the fastest first", title_justify="left")
    table.add_column("layout", overflow="fold")  # remat's names are long
    for name in ("HBM a chip", "step", "MFU", "USD / 1e9 tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    table.add_section()
    for row in found["alternatives"]:
        name, *cells = _cells(row)
        table.add_row(f"{row['what']}: {name}", *cells)
    table.add_section()
    mine = found["own"]
    name, *cells = _cells(mine)
    no_room = "" if mine.get("fits", mine["estimate_fits"]) else " (does not fit)"
    has_estimate = mine["estimated"]["step_secs"] > 0
    if has_estimate:
        table.add_row(f"this config: {name}{no_room}", *cells)
    Console(width=max(100, console().width)).print(table)
    if not has_estimate:
        print(f"This config's own layout cannot run here: {mine['estimate_reason']}")
    best = rows[0]
    if mine.get("fits") and mine["step_secs"] <= best.get("step_secs", math.inf):
        print("None that was compiled is faster than the config's own layout.")
    elif best.get("fits", True):
        how = "compiled" if found["compiled"] else "by the estimate, not compiled"
        print(f"The fastest {how}, for the config file:\n")
        print("\n".join(f"    {line}" for line in config_lines(best["settings"])))
        _print_rival(found, best)
        share = best["estimated"]["hbm_bytes_per_chip"] / found["hbm_capacity_bytes"]
        if not found["compiled"] and share > _SURE_SHARE:
            print(
                f"\nIts memory, {share:.0%} of a chip's, is an estimate that may be 13% "
                "too low: without --compile=0 the best are compiled to be sure."
            )


def _print_rival(found: dict[str, Any], best: dict[str, Any]) -> None:
    """What may be faster than the best that was compiled: by its estimate, times what
    those with the same remat took more than theirs."""
    off = {
        row["settings"]["model.remat"]: row["step_secs"] / row["estimated"]["step_secs"]
        for row in found["compiled"]
        if row["fits"]
    }

    def secs(row: dict[str, Any]) -> float:
        remat = row["settings"]["model.remat"]
        return row["estimated"]["step_secs"] * off.get(remat, 1.0)

    rival = min(found["next_best"] + found["alternatives"], key=secs, default=None)
    if off and rival is not None and secs(rival) < best["step_secs"]:
        more = f"--compile={len(found['compiled']) + 1} compiles more"
        print(
            f"\nOf what was not compiled, {layout_text(rival['settings'])} may be faster, "
            f"about {secs_text(secs(rival))}: {more}."
        )


def layout_text(settings: dict[str, int | str]) -> str:
    """A layout in words: the mesh, what is recomputed, micro-batches."""
    settings = dict(settings)
    count = settings.pop("grad_accum_steps")
    layout = [f"remat {settings.pop('model.remat')}"]
    layout += [f"{count} micro-batches"] if count != 1 else []
    mesh = " ".join(
        f"{name.removeprefix('mesh.')} {n}"
        for name, n in settings.items()
        if n != 1 and n != -1
    )
    return ", ".join([mesh or "one device", *layout])


def _cells(row: dict[str, Any]) -> list[str]:
    guess = row["estimated"]
    hbm, secs, mfu, usd = (
        size_text(guess["hbm_bytes_per_chip"]),
        secs_text(guess["step_secs"]),
        f"{guess['mfu']:.1%}",
        f"{guess['usd_per_billion_tokens']:,.2f}",
    )
    name = layout_text(row["settings"])
    if "fits" not in row:  # not compiled
        return [name, hbm, secs, mfu, usd]
    if not row["fits"]:
        used = row.get("hbm_bytes_per_chip", 0)
        why = f"{size_text(used)} too much" if used else row.get("reason", "too much")
        return [name, f"{hbm} -> {why[:40]}", f"{secs} -> –", f"{mfu} -> –", "–"]
    return [
        name,
        f"{hbm} -> {size_text(row['hbm_bytes_per_chip'])}",
        f"{secs} -> {secs_text(row['step_secs'])}",
        f"{mfu} -> {row['mfu_bound']:.1%}",
        f"{usd} -> {row['usd_per_billion_tokens']:,.2f}",
    ]
