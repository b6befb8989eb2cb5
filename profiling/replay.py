# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a step of a run again, and says whether data, numerics or hardware made it bad.

python -m profiling.replay --workdir=runs/quickstart --step=412

From the newest good checkpoint before the step the run is repeated up to it; then the
step's batch, other batches and float32 are tried on the same weights:

- it does not come out as recorded: hardware (or another build of the software);
- it does, other batches are sound on the same weights: data, its documents are named;
- it does, and so are others, or float32 would do: numerics, the first layer is named.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium import cli, resume
from podium.config import TrainConfig
from podium.errors import CheckpointError, ConfigError
from podium.skipped_batches import Skips, as_skips, batch_of, is_same_run, load
from podium.starts import check_reference
from profiling.parity import parse_meshes

_OTHERS = 4  # batches behind the bad one, tried on the same weights
_ROWS = 3  # of the worst rows the documents are named
# Of another mesh or platform sums differ in their order, and bfloat16 in its last bit.
_LOSS_TOLERANCE, _NORM_TOLERANCE = 1e-2, 1e-1

_EXAMPLE = """example:
  python -m profiling.replay --workdir=runs/quickstart --step=412 --mesh=fsdp4

Exit code 0 with a verdict: sound, data, numerics or hardware; 2: it cannot be replayed.
"""


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step came to."""

    loss: float
    grad_norm: float
    spike_z: float
    skipped: bool
    param_norm: float  # after the step

    def is_bad(self, spike_z: float) -> bool:
        """Whether the run would have taken note of it."""
        numbers = (self.loss, self.grad_norm, self.param_norm)
        return not all(map(math.isfinite, numbers)) or self.spike_z > spike_z


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the replay found."""

    verdict: str  # "sound", "data", "numerics", "hardware"
    why: str
    recorded: Step | None
    replayed: Step
    documents: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    layers: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def main(argv: Sequence[str]) -> None:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.replay",
        description="Runs a step of a run again: was it data, numerics or hardware?",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--workdir", metavar="D", required=True, help="the run folder")
    parser.add_argument("--step", type=int, required=True, help="as in metrics.jsonl")
    parser.add_argument("--mesh", help="e.g. data2.fsdp4 (the run's own)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if args.step < 1:
        parser.error(f"--step is {args.step}; expected 1 or more, as in metrics.jsonl")
    workdir = Path(args.workdir)
    cfg = resume.load_run(workdir)
    if cfg.has_reference:
        check_reference(workdir, cfg)
    recorded = _recorded(workdir, args.step)
    if args.mesh:
        cfg = dataclasses.replace(cfg, mesh=parse_meshes(args.mesh, "--mesh")[0])
    found = replay(cfg, workdir, args.step, recorded, is_same=not args.mesh)
    if args.json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        _print(args.step, found)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a run noted of a step, and the batches that it had left out until then."""

    step: Step | None  # None: it was not done, the devices computed it in two ways
    skips: Skips
    what: str = ""


def _recorded(workdir: Path, step: int) -> Recorded:
    """The newest record of a step, or its metrics."""
    from podium.trainer.flight_recorder import CORRUPTION, records
    from podium.trainer.metrics import read_metrics

    if found := records(workdir, step):
        tree = json.loads(found[-1].read_text())
        skips, what = as_skips(tree["skipped_batches"]), tree["what"]
        is_corrupt = what.startswith(CORRUPTION)
        return Recorded(None if is_corrupt else _step(tree["metrics"][-1]), skips, what)
    rows = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    row = next((r for r in rows if r["step"] == step and "loss" in r), None)
    if row is None:
        raise ConfigError(
            f"{workdir} knows nothing of step {step}: it is not in metrics.jsonl, and "
            "there is no record in its folder faults; give a step that was trained"
        )
    return Recorded(_step(row), load(workdir))


def _step(row: dict[str, Any]) -> Step:
    def number(name: str) -> float:
        return math.nan if row[name] is None else float(row[name])

    return Step(
        number("loss"),
        number("grad_norm"),
        number("spike_z"),
        bool(row["skipped"]),
        number("param_norm"),
    )


def replay(
    cfg: TrainConfig,
    workdir: Path,
    step: int,
    recorded: Recorded,
    *,
    is_same: bool,
) -> Verdict:
    """Repeats the run up to a step, then tries it. `is_same`: on the run's own mesh."""
    from podium.sharding.mesh import use_virtual_cpu_devices

    use_virtual_cpu_devices(cfg.mesh)
    from profiling.replay_run import Replay

    folder = resume.checkpoints_folder(workdir, cfg.checkpoint.folder)
    before = [s for s in resume.whole_steps(folder) if s < step]
    start = 0
    if before:
        good = [s for s in reversed(before) if _is_good(folder, s)]
        if not good:
            raise CheckpointError(resume.all_damaged(folder, {before[-1]: str(folder)}))
        # Not one that the run saved after it had gone back and left out other batches.
        known = ((s, resume.skipped_batches(workdir, cfg, s)) for s in good)
        start = next((s for s, k in known if is_same_run(k, recorded.skips, s)), 0)
    cli.say(f"replay: from {f'checkpoint {start}' if start else 'the first step'}, "
            f"{step - start} steps")  # fmt: skip
    run = Replay(cfg, workdir, start)
    for number in range(start + 1, step):
        run.train(batch_of(recorded.skips, number))
    batch = batch_of(recorded.skips, step)
    replayed = _step(run.observe(batch))
    spike_z = cfg.faults.spike_z
    if recorded.step is None:
        again = _step(run.observe(batch))
        how = "twice the same" if repr(again) == repr(replayed) else "in two ways, too"
        why = f"{recorded.what}. Here it comes out {how}"
        return Verdict("hardware", why, None, replayed)
    if not _reproduces(recorded.step, replayed, is_same=is_same):
        return Verdict(
            "hardware",
            "the same step on the same batch comes out differently here",
            recorded.step,
            replayed,
        )
    if not replayed.is_bad(spike_z):
        why = "it comes out as recorded, and nothing is wrong with it"
        return Verdict("sound", why, recorded.step, replayed)
    others = [_step(run.observe(batch + i)) for i in range(1, _OTHERS + 1)]
    num_bad = sum(other.is_bad(spike_z) for other in others)
    in_float32 = _step(run.observe_in_float32(batch))
    layers = [dataclasses.asdict(layer) for layer in run.layer_stats(batch)]
    first = next((s["name"] for s in layers if not math.isfinite(s["largest"])), None)
    where = f"; the first layer that is no number is {first}" if first else ""
    if not first and (found := run.gradient_overflow(batch)):
        where = f"; activations are numbers, the first gradients that are none: {found}"
    if not in_float32.is_bad(spike_z):
        why = f"in float32 the same step is sound{where}"
        return Verdict("numerics", why, recorded.step, replayed, layers=layers)
    if num_bad > _OTHERS // 2:
        why = f"{num_bad} of {_OTHERS} other batches are as bad on these weights{where}"
        return Verdict("numerics", why, recorded.step, replayed, layers=layers)
    why = f"{_OTHERS - num_bad} of {_OTHERS} other batches are sound on these weights"
    documents = run.worst_documents(batch, _ROWS)
    return Verdict("data", why, recorded.step, replayed, documents, layers)


def _is_good(folder: Any, step: int) -> bool:
    from podium import checksums

    return checksums.find_damage(folder.inside(str(step))) is None


def _reproduces(recorded: Step, replayed: Step, *, is_same: bool) -> bool:
    for a, b, tolerance in (
        (recorded.loss, replayed.loss, _LOSS_TOLERANCE),
        (recorded.grad_norm, replayed.grad_norm, _NORM_TOLERANCE),
    ):
        if not (math.isfinite(a) and math.isfinite(b)):
            # metrics.jsonl does not tell NaN from infinity.
            if math.isfinite(a) or math.isfinite(b):
                return False
        elif not math.isclose(a, b, rel_tol=1e-6 if is_same else tolerance):
            return False
    return True


def _print(step: int, found: Verdict) -> None:
    print(f"step {step}: {found.verdict}: {found.why}")
    for name in ("recorded", "replayed"):
        value: Step | None = getattr(found, name)
        if value is not None:
            print(
                f"  {name:<9} loss {value.loss:.6g}, grad_norm {value.grad_norm:.6g}, "
                f"spike_z {value.spike_z:.1f}, param_norm {value.param_norm:.6g}"
            )
    if found.documents:
        print("the documents of the rows with the highest loss:")
    for d in found.documents:
        print(
            f"  loss {d['row_loss']:.4g}  row {d['row']}  {d['source']} item {d['item']}"
            f"  ({d['shard']} record {d['record']})"
        )
    if found.layers and found.verdict == "numerics":
        print("the largest activation behind each part:")
        for layer in found.layers:
            print(f"  {layer['name']:<14} {layer['largest']:.4g}")


if __name__ == "__main__":
    cli.run(main)
