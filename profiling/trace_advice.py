# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The bottleneck of a trace in a sentence, and the setting that would relieve it.

A rule of thumb a bottleneck, by the run's own config where it lies beside the trace.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiling.trace_times import Times

_MUCH = 0.1  # of the step: a share that is worth a setting
_WORDS = {
    "compute": "matmuls and kernels",
    "memory": "operations that wait for memory",
    "collective": "exchange between devices that nothing hides",
    "transfer": "copies to and from the host's memory",
    "infeed_wait": "waiting for input",
    "idle": "idle devices",
}


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to do first."""

    bottleneck: str  # a key of PARTS
    sentence: str
    setting: str  # "global_batch_seqs=16"
    reason: str  # why that

    @property
    def line(self) -> str:
        """As it is written on a command line."""
        return f"--config.{self.setting}"


def config_beside(path: Path) -> dict[str, Any] | None:
    """The settings of the run that a trace lies in; None where there is none."""
    for folder in (path, *path.resolve().parents[:5]):
        file = folder / "config.json"
        if file.is_file():
            try:
                tree = json.loads(file.read_bytes())
            except ValueError:
                return None
            return tree if isinstance(tree, dict) and "model" in tree else None
    return None


def advise(found: Times, cfg: dict[str, Any] | None, *, is_cpu: bool = False) -> Advice:
    """By the part that takes most of the step."""
    part = max(found.parts, key=lambda p: found.parts[p])
    share = found.parts[part] / found.step_secs
    settings = _Settings(found, cfg, is_cpu=is_cpu)
    rule: Callable[[], tuple[str, str]] = getattr(settings, part)
    setting, reason = rule()
    sentence = (
        f"The step is bound by {_WORDS[part]}: {share:.0%} of "
        f"{1000 * found.step_secs:.4g} ms{_most_of_it(found, part)}."
    )
    return Advice(part, sentence, setting, reason)


def _most_of_it(found: Times, part: str) -> str:
    """The largest piece of a part."""
    sums: dict[tuple[str, str, str], float] = {}
    for row in found.ops:
        if row.op.kind == part:
            key = row.op.category, row.op.scope or row.op.part, row.op.phase
            sums[key] = sums.get(key, 0.0) + row.secs
    if not sums:
        return ""
    (category, scope, phase), secs = max(sums.items(), key=lambda item: item[1])
    where = " ".join(word for word in (scope, phase) if word)
    named = f"{category} in {where}" if where else category
    return f", {secs / found.parts[part]:.0%} of that {named}"


class _Settings:
    """(setting, reason) for each part; defaults where no config is known."""

    def __init__(self, found: Times, cfg: dict[str, Any] | None, *, is_cpu: bool):
        self._found, self._cfg, self._is_cpu = found, cfg or {}, is_cpu

    def _get(self, path: str, default: Any) -> Any:
        node: Any = self._cfg
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        return default if node is None else node

    def _again(self) -> float:
        """The share of the step that computes again."""
        again = sum(r.secs for r in self._found.ops if r.op.phase == "recompute")
        return again / self._found.step_secs

    def _update(self) -> float:
        """The share of the step that is the optimizer's."""
        sums = self._found.by("scope")
        secs = sum(s for (scope,), s in sums.items() if scope.startswith("optimizer"))
        return secs / self._found.step_secs

    def _once(self) -> str:
        share = f"{self._update():.0%} of the step"
        return f"{share} is the optimizer, which works once for twice the tokens"

    def _more_rows(self, why: str) -> tuple[str, str]:
        return f"global_batch_seqs={2 * self._get('global_batch_seqs', 8)}", why

    def infeed_wait(self) -> tuple[str, str]:
        """More readers."""
        threads = 2 * self._get("data.num_threads", 2)
        return f"data.num_threads={threads}", "more shards are read at once"

    def idle(self) -> tuple[str, str]:
        """What the host does instead, or work too small to keep devices busy."""
        held = self._found.idle_while
        what = max(held, key=lambda k: held[k], default="")
        if what and held[what] > self._found.parts["idle"] / 2:
            section = {"save": "checkpoint", "evaluation": "eval"}[what]
            every = 2 * self._get(f"{section}.every_steps", 500)
            return f"{section}.every_steps={every}", f"the {what} holds up the steps"
        return self._more_rows(
            "a larger step keeps the devices busy between hand-overs"
        )

    def transfer(self) -> tuple[str, str]:
        """What waits on the host could stay."""
        if self._get("optim.state_memory", "device") == "host":
            return "optim.state_memory=device", "the moments stay on the device"
        remat = self._get("model.remat", "none")
        if ":host" in remat:
            kept = remat.replace(":host", "")
            return f"model.remat={kept}", "activations stay on the device"
        return self._more_rows("more computation lies beside each copy")

    def collective(self) -> tuple[str, str]:
        """Fewer devices that exchange activations, or more tokens for each weight."""
        kinds = [r.op for r in self._found.ops if r.op.kind == "collective"]
        is_sent_on = bool(kinds) and (
            "all-to-all" in kinds[0].category or "permute" in kinds[0].category
        )
        axes = ("context", "expert", "stage") if is_sent_on else ("tensor",)
        for axis in axes:
            size = self._get(f"mesh.{axis}", 1)
            if size > 1:
                return (
                    f"mesh.{axis}={size // 2}",
                    f"half as many devices exchange activations along {axis}; give the "
                    "other half to fsdp or data",
                )
        return self._more_rows(
            "weights and gradients are exchanged once a step, for twice the tokens"
        )

    def memory(self) -> tuple[str, str]:
        """Fewer bytes."""
        if self._again() > _MUCH and (less := self._less_remat()):
            return less
        if not self._is_cpu and self._get("model.dtype", "bfloat16") == "float32":
            return "model.dtype=bfloat16", "half the bytes of every activation"
        if self._update() > 2 * _MUCH:
            return self._more_rows(self._once())
        if self._get("model.layer_loop", "scan") == "scan":
            return (
                "model.layer_loop=unroll",
                "layers' weights are not sliced and copied",
            )
        return self._more_rows("matmuls grow faster than what lies between them")

    def compute(self) -> tuple[str, str]:
        """Less work, or faster numbers."""
        if self._again() > _MUCH and (less := self._less_remat()):
            return less
        if not self._is_cpu and self._get("model.dtype", "bfloat16") == "float32":
            return "model.dtype=bfloat16", "matrix units are built for it"
        if self._update() > 2 * _MUCH:
            return self._more_rows(self._once())
        if not self._is_cpu and not self._get("model.quantization", None):
            return (
                "model.quantization.kind=int8",
                "eight-bit matmuls, twice as fast where the chip has them; else this is "
                "as it should be, and more devices make it faster",
            )
        grows = "data" if self._get("mesh.data", 1) == -1 else "fsdp"
        return (
            f"mesh.{grows}=-1",
            "this is as it should be; more devices make it faster",
        )

    def _less_remat(self) -> tuple[str, str] | None:
        remat = self._get("model.remat", "full")
        if remat == "none":
            return None
        less = "dots" if remat == "full" else "none"
        share = f"{self._again():.0%} of the step computes activations again"
        return f"model.remat={less}", f"{share}; memory permitting"
