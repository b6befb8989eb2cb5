# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""MaxText's train step beside ours, compiled for the same TPU slices, none of them there.

python benchmarks/maxtext_compare.py > benchmarks/results/maxtext_compare.md
python benchmarks/maxtext_compare.py --rows=mixtral --who=podium,podium_locked > ...

Makes the environments that it lacks (uv, Python 3.12; 2.5 GB each, nothing of MaxText
in ours), compiles each row in a process of its own, one to five minutes of CPU each,
and reads all programs with the planner's reader: trip counts multiplied, the cycles
that the compiler estimates for each fusion summed, Pallas kernels added at 100% of
peak, synchronous collectives exposed. Rows that are not asked for keep what an earlier
run found, in results/maxtext_compare.json.

Figures are deterministic: the compiler gives the same program every time. CPU seconds
are those of the whole process, imports and tracing included.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.maxtext_rows import ROOT, ROWS, Row
from podium.aot.chips import parse_slice
from podium.aot.hlo import read
from podium.aot.network import Network
from podium.aot.roofline import roofline
from podium.models.flops import param_count

KEPT = ROOT / "benchmarks" / "results" / "maxtext_compare.json"
SAME = ("jax==0.12.0.1", "libtpu==0.0.52")  # of both projects
WHO = {
    "maxtext": "MaxText 0.2.5",
    "podium": "Podium, the same jax",
    "podium_locked": "Podium, its uv.lock",
}


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podium"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="of maxtext_rows.py")
    parser.add_argument("--who", default=",".join(WHO), help="of " + ", ".join(WHO))
    parser.add_argument("--envs", type=Path, default=cache / "envs", metavar="DIR")
    parser.add_argument("--out", type=Path, default=cache / "maxtext", metavar="DIR")
    parser.add_argument(
        "--reread", action="store_true", help="the programs of the last run, in --out"
    )
    args = parser.parse_args()
    asked = args.rows.split(","), args.who.split(",")
    for names, known in zip(asked, (ROWS, WHO), strict=True):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"unknown {unknown[0]}; known are {', '.join(known)}")
    args.out.mkdir(parents=True, exist_ok=True)

    for name in asked[0]:
        for who in asked[1]:
            row = ROWS[name]
            for variant in row.maxtext if who == "maxtext" else row.podium:
                key = f"{name} {who} {variant}"
                out = args.out / key.replace(" ", ".")
                if not args.reread:
                    print(f"compiling {key}", file=sys.stderr, flush=True)
                    compile_row(who, variant, name, out, args.envs)
                keep(key, figures(row, out))
    show(json.loads(KEPT.read_text()))


def keep(key: str, found: dict[str, Any]) -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    text = json.dumps({**kept, key: found}, indent=1, sort_keys=True)
    KEPT.write_text(text + "\n")


def compile_row(who: str, variant: str, name: str, out: Path, envs: Path) -> None:
    """Leaves OUT.json and OUT.hlo.gz, or OUT.json alone with the error."""
    peers = ROOT / "benchmarks" / "peers"
    python = str(environment(who, envs))
    if who == "maxtext":
        what = [str(peers / "maxtext_aot.py"), str(out), *ROWS[name].settings(variant)]
    else:
        what = [str(peers / "podium_aot.py"), str(out), name, variant]
    result = out.with_name(out.name + ".json")
    result.unlink(missing_ok=True)
    log = out.with_name(out.name + ".log")
    env = {**os.environ, "PYTHONPATH": ""}
    with log.open("w") as file:
        subprocess.run([python, *what], stdout=file, stderr=file, cwd=ROOT, env=env)
    about = report.provenance()
    about = {key: about[key] for key in ("date", "commit", "machine")}
    if result.exists():
        facts = json.loads(result.read_text())
    else:
        facts = {"error": reason(log.read_text())}
        print(f"  failed, see {log}", file=sys.stderr)
    result.write_text(json.dumps({**facts, "about": about}))


def reason(log: str) -> str:
    """The line that says why, of a traceback."""
    found = [x for x in log.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", x)]
    return found[-1][:300] if found else (log.strip().splitlines() or ["nothing"])[-1]


def environment(who: str, envs: Path) -> Path:
    """Its interpreter; makes it on the first call."""
    folder = envs / who
    python = folder / "bin" / "python"
    if python.exists():
        return python
    print(f"making the environment {folder}", file=sys.stderr)

    def uv(*args: str, **env: str) -> None:
        subprocess.run(
            ["uv", *args],
            check=True,
            stdout=sys.stderr,
            cwd=ROOT,
            env={**os.environ, **env},
        )

    if who == "podium_locked":
        uv(
            *("sync", "--locked", "--extra", "tpu", "--no-dev", "-q"),
            UV_PROJECT_ENVIRONMENT=str(folder),
        )
        return python
    uv("venv", "-q", "--python", "3.12", str(folder))
    what = ["maxtext[tpu]==0.2.5"] if who == "maxtext" else ["-e", str(ROOT)]
    uv("pip", "install", "-q", "-p", str(python), *what, *SAME)
    return python


def figures(row: Row, out: Path) -> dict[str, Any]:
    """What the table says of one compiled row."""
    facts = json.loads(out.with_name(out.name + ".json").read_text())
    if "error" in facts:
        return {**facts["about"], "error": facts["error"]}
    where = parse_slice(row.topology)
    places = tuple((s, tuple(c)[: where.chip.torus_dims]) for s, c in facts["places"])
    with gzip.open(out.with_name(out.name + ".hlo.gz"), "rt") as file:
        found = roofline(read(file.read()), Network(where, places))
    times = found.times
    return {
        **facts["about"],
        "packages": facts["packages"],
        "mesh": facts["mesh"],
        "params": facts["params"],
        "dtypes": facts["dtypes"],
        "peak_bytes": facts["peak_bytes"],
        "host_bytes": facts["host_bytes"],
        "argument_bytes": facts["argument_bytes"],
        "temporary_bytes": facts["temporary_bytes"],
        "cpu_secs": round(facts["cpu_secs"]),
        "peak_rss_bytes": facts["peak_rss_bytes"],
        "fusion_secs": times.fusion_secs,
        "kernel_secs": times.kernel_secs,
        "sync_secs": times.sync_link_secs,
        "ici_secs": times.ici_secs,
        "replayed_secs": times.step_secs,
        "matmul_peak": times.matmul_flops
        / where.chip.device_peak_flops
        / times.matmul_secs,
        "flops": times.flops,
        "bound": found.mfu(row.useful_flops, where.chip, async_is_hidden=True),
        "replayed_bound": found.mfu(row.useful_flops, where.chip),
        "unknown_kernels": found.unknown_kernels,
    }


def show(kept: dict[str, dict[str, Any]]) -> None:
    print("# python benchmarks/maxtext_compare.py\n")
    print(
        "MaxText's train step and ours, compiled ahead of time for the same slices and\n"
        "read by the same reader. GB are 1e9 bytes a chip; seconds are of one step.\n"
        "Bound: 6 x parameters x tokens over peak x (fusions + Pallas + synchronous ICI),\n"
        "what is asynchronous taken as hidden; replayed: with what the schedule leaves\n"
        "exposed. Parameters are counted in each project's own state; the bounds use one\n"
        "count for both, ours, with the experts that a token does not visit left out.\n"
    )
    print(
        "| row | who | remat | jax, libtpu | parameters | peak GB | argument + temp GB "
        "| compile CPU s | RSS GB | s: fusions + Pallas + sync ICI (all ICI) | matmuls "
        "at peak | bound | replayed |"
    )
    print("|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    order = [f"{name} {who} " for name in ROWS for who in WHO]
    keys = sorted(kept, key=lambda k: [k.startswith(o) for o in order], reverse=True)
    for key in keys:
        print(line(key, kept[key]))
    print(
        "\nEach of MaxText's rows beside our best that takes no more memory, or else our"
    )
    print(
        "smallest, under the same jax and libtpu. Goal: peak no higher, bound no lower.\n"
    )
    print(
        "| row | MaxText's, remat | ours, remat | peak: ours / theirs | bound | goal |"
    )
    print("|---|---|---|--:|--:|---|")
    for theirs in keys:
        if theirs.split(" ")[1] == "maxtext" and "error" not in kept[theirs]:
            print(versus(theirs, kept))
    print("\nRows, each with the day, commit and machine of its compile:\n")
    for key in keys:
        about = kept[key]
        where = parse_slice(ROWS[key.split(" ")[0]].topology)
        mesh = " x ".join(f"{k} {v}" for k, v in about.get("mesh", {}).items())
        print(
            f"- {key}: {where.name}, {mesh}; {about['date']}, {about['commit']}, "
            f"{about['machine']}"
        )
    for name, row in ROWS.items():
        print(
            f"- {name}: {param_count(row.model):,} parameters by our closed form, "
            f"{row.useful_flops / 6 / row.rows_per_chip / row.seq_len:,.0f} in the "
            f"bound; {row.rows_per_chip} rows of {row.seq_len} tokens a chip"
        )


def line(key: str, row: dict[str, Any]) -> str:
    name, who, variant = key.split(" ")
    if "error" in row:
        return f"| {name} | {WHO[who]} | {variant} | {row['error']} |" + " |" * 9
    packages = row["packages"]
    host = row.get("host_bytes", 0) / 1e9
    host = f" and {host:.2f} on the host" if host else ""
    unknown = ", ".join(row["unknown_kernels"])
    return (
        f"| {name} | {WHO[who]} | {variant} | {packages['jax']}, {packages['libtpu']} "
        f"| {row['params']:,} | {row['peak_bytes'] / 1e9:.2f}{host} "
        f"| {row['argument_bytes'] / 1e9:.2f} + {row['temporary_bytes'] / 1e9:.2f} "
        f"| {row['cpu_secs']} | {row['peak_rss_bytes'] / 1e9:.1f} "
        f"| {row['fusion_secs']:.3f} + {row['kernel_secs']:.3f} + "
        f"{row['sync_secs']:.3f} ({row['ici_secs']:.3f}) | {row['matmul_peak']:.0%} "
        f"| {row['bound']:.1%}{f' without {unknown}' if unknown else ''} "
        f"| {row['replayed_bound']:.1%} |"
    )


def versus(key: str, kept: dict[str, dict[str, Any]]) -> str:
    name, _, remat = key.split(" ")
    theirs = kept[key]
    ours = {
        k.split(" ")[2]: found
        for k, found in kept.items()
        if k.startswith(f"{name} podium ") and "error" not in found
    }
    if not ours:
        return f"| {name} | {remat} | pending | | | |"
    room = [k for k in ours if ours[k]["peak_bytes"] <= theirs["peak_bytes"]]
    if room:
        best = max(room, key=lambda k: ours[k]["bound"])
    else:
        best = min(ours, key=lambda k: ours[k]["peak_bytes"])
    memory = ours[best]["peak_bytes"] / theirs["peak_bytes"]
    bound = ours[best]["bound"] / theirs["bound"]
    missed = []
    if memory > 1:
        more = (ours[best]["peak_bytes"] - theirs["peak_bytes"]) / 1e9
        missed.append(f"missed: peak {more:.2f} GB higher")
    if bound < 1:
        missed.append(
            f"missed: bound {theirs['bound'] - ours[best]['bound']:.1%} lower"
        )
    return (
        f"| {name} | {remat} | {best} | {memory:.3f} | {bound:.3f} "
        f"| {'; '.join(missed) or 'met'} |"
    )


if __name__ == "__main__":
    main()
