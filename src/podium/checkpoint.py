# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Orbax save and restore: state, data position, config, data fingerprints.

One folder per step, D/checkpoints/<step>/, written in the background while the next
steps run and renamed when whole. `state` holds the arrays, `run` a JSON object with
the step, the seed, the config and the fingerprints of the data: the data position is
the step and the seed, nothing else.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from podium.config import CheckpointConfig, TrainConfig
from podium.config_dict import from_json_dict, to_json_dict
from podium.errors import CheckpointError, PodiumError
from podium.models import bind
from podium.models.attention_dispatch import IMPLEMENTATIONS
from podium.resume import find_checkpoint
from podium.sharding.rules import ShardingRules
from podium.trainer.state import StateLayout, TrainState, param_layout


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: str | Path, cfg: CheckpointConfig):
        self._folder = Path(workdir) / "checkpoints"
        keep: list[Any] = [managers.LatestN(cfg.keep_last)]
        if cfg.keep_every_steps:
            keep.append(managers.EveryNSteps(cfg.keep_every_steps))
        if cfg.keep_best:
            best = managers.BestN(
                get_metric_fn=lambda metrics: metrics["eval_loss"],
                reverse=True,  # the lowest is best
                n=cfg.keep_best,
                keep_checkpoints_without_metrics=False,
            )
            keep.append(best)
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(keep),
                # The loop decides when; Orbax would skip a final step otherwise.
                save_decision_policy=managers.FixedIntervalPolicy(1),
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self,
        state: TrainState,
        *,
        step: int,
        cfg: TrainConfig,
        fingerprints: list[str],
        eval_loss: float | None,
    ) -> None:
        """Starts a save; returns when the arrays are copied, not when written."""
        run = {
            "step": step,
            "seed": cfg.seed,
            "config": to_json_dict(cfg),
            "fingerprints": fingerprints,
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(_tree(state)), run=ocp.args.JsonSave(run)
            ),
            metrics=None if eval_loss is None else {"eval_loss": eval_loss},
        )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The checkpoint with the lowest eval loss that is still kept."""
        steps = [
            (info.metrics["eval_loss"], info.step)
            for info in self._manager._checkpoints
            if info.metrics
        ]
        return min(steps)[1] if steps else None

    def steps(self) -> list[int]:
        """All whole checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def run(self, step: int) -> dict[str, Any]:
        """The JSON object saved beside the state."""
        args = ocp.args.Composite(run=ocp.args.JsonRestore())
        with self._reading(step):
            return self._manager.restore(step, args=args)["run"]

    def restore(self, step: int, layout: StateLayout) -> TrainState:
        """The state of a step, each device reading its own shard, on any mesh.

        Raises CheckpointError, naming the tensors, if the model differs.
        """
        want = _tree(layout.abstract())
        self._check(step, want, complete=True)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                want, restore_args=ocp.checkpoint_utils.construct_restore_args(want)
            )
        )
        with self._reading(step):
            tree = self._manager.restore(step, args=args)["state"]
        return TrainState(**{"ema": None, **tree})

    def restore_params(self, step: int, shapes: Any, shardings: Any) -> Any:
        """The weights alone; the averaged ones if the run kept them."""
        with self._reading(step):
            saved = self._manager.item_metadata(step)["state"].tree
        name = "ema" if "ema" in saved else "params"
        want = {
            name: jax.tree.map(
                lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh),
                shapes,
                shardings,
            )
        }
        self._check(step, want, complete=False)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                want,
                restore_args=ocp.checkpoint_utils.construct_restore_args(want),
                partial_restore=True,
            )
        )
        with self._reading(step):
            return self._manager.restore(step, args=args)["state"][name]

    def wait(self) -> None:
        """Blocks until every started save is whole."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and lets go of the threads."""
        self._manager.close()

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Whatever Orbax makes of a damaged checkpoint is a CheckpointError."""
        try:
            yield
        except PodiumError:
            raise
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            why = " ".join(str(error).split())[:120]
            raise CheckpointError(
                f"{self._folder / str(step)} is damaged ({type(error).__name__}: {why}); "
                "delete that folder, and the checkpoint before it is used"
            ) from error

    def _check(self, step: int, want: Any, *, complete: bool) -> None:
        with self._reading(step):
            saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        wanted = _shapes(want)
        if not complete:
            saved = {k: v for k, v in saved.items() if k.split("/")[0] in want}
        wrong = [
            f"{name}: saved {_show(saved.get(name))}, this config {_show(wanted.get(name))}"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckpointError(
                f"checkpoint {step} is of another model or optimizer: "
                f"{'; '.join(wrong[:5])}{more}. Use the config it was saved with, "
                "or another --workdir."
            )


def restore_params(
    workdir: str | Path, step: int | None = None, *, rules: ShardingRules | None = None
) -> tuple[TrainConfig, Any]:
    """Config and weights of a run, for sampling and evaluation on any platform.

    The newest checkpoint unless `step` is given; on one device unless `rules` are.
    """
    step = find_checkpoint(workdir, step)
    checkpoints = Checkpoints(workdir, CheckpointConfig())
    try:
        cfg = from_json_dict(TrainConfig, checkpoints.run(step)["config"])
        cfg = _for_this_platform(cfg)
        model = bind.abstract(cfg.model)
        if rules is None:
            one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            shardings = jax.tree.map(lambda _: one, model.shapes)
        else:
            shardings = param_layout(model, rules)
        return cfg, checkpoints.restore_params(step, model.shapes, shardings)
    finally:
        checkpoints.close()


def _for_this_platform(cfg: TrainConfig) -> TrainConfig:
    """With attention chosen anew where the one trained with is for another platform."""
    attention, platform = cfg.model.attention, jax.default_backend()
    if any(
        i.name == attention.implementation and platform not in i.platforms
        for i in IMPLEMENTATIONS
    ):
        attention = dataclasses.replace(attention, implementation="auto")
    model = dataclasses.replace(cfg.model, attention=attention)
    return dataclasses.replace(cfg, model=model)


def _tree(state: TrainState) -> dict[str, Any]:
    tree = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    return tree if state.ema is None else {**tree, "ema": state.ema}


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: hasattr(x, "shape")
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            tuple(leaf.shape),
            str(leaf.dtype),
        )
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _show(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "nothing" if entry is None else f"{entry[1]}{list(entry[0])}"
