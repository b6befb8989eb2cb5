# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Orbax save and restore: state, data position, config, data fingerprints.

One folder per step, D/checkpoints/<step>/, written in the background while the next
steps run and renamed when whole. `state` holds the arrays, `run` a JSON object with
the step, the seed, the config and the fingerprints of the data: the data position is
the step and the seed, nothing else. `checksums.json` says that all of it was written,
and what.
"""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from podium import checksums
from podium.config import CheckpointConfig, TrainConfig
from podium.config_dict import from_json_dict, to_json_dict
from podium.config_model import ModelConfig
from podium.errors import CheckpointError, PodiumError, StorageError
from podium.models import bind
from podium.models.attention_dispatch import IMPLEMENTATIONS
from podium.restore_limit import LEAST_GROUP_BYTES, InTurns, largest_read_bytes
from podium.resume import (
    SavedBase,
    checkpoints_folder,
    clear_unfinished,
    find_checkpoint,
)
from podium.sharding.rules import ShardingRules
from podium.skipped_batches import Skips
from podium.storage import is_refusal, refusal
from podium.trainer.guard import Recent
from podium.trainer.state import StateLayout, TrainState, param_layout


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: str | Path, cfg: CheckpointConfig):
        folder = checkpoints_folder(workdir, cfg.folder)
        self._folder, self._is_first = folder, jax.process_index() == 0
        self._is_alone, self._has_failed = jax.process_count() == 1, False
        self._being_saved: int | None = None
        _quieten_orbax()
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
            epath.Path(folder.path),
            options=ocp.CheckpointManagerOptions(
                # Called by the first process alone, before the folder is renamed.
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_checksums,
                    barrier_sync_fn=_barrier(),
                ),
                preservation_policy=managers.AnyPreservationPolicy(keep),
                # The loop decides when; Orbax would skip a final step otherwise.
                save_decision_policy=managers.FixedIntervalPolicy(1),
            ),
            item_handlers={
                # Weights and moments hardly shrink (8% at 3.5 times the CPU time).
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
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
        skips: Skips = (),
        base: SavedBase | None = None,
    ) -> None:
        """Starts a save; returns when the arrays are copied, not when written.

        Waits for the save before it, and raises what became of that one.
        """
        self.wait()
        run = {
            "step": step,
            "seed": cfg.seed,
            "config": to_json_dict(cfg),
            "fingerprints": fingerprints,
            "skipped_batches": list(skips),
            **({"base": base._asdict()} if base else {}),
        }
        self._being_saved = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(_tree(state)), run=ocp.args.JsonSave(run)
                ),
                metrics=None if eval_loss is None else {"eval_loss": eval_loss},
            )
        except BaseException:
            self._give_up()
            raise

    @property
    def is_saving(self) -> bool:
        """Whether a save is still being written."""
        return self._manager.is_saving_in_progress()

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

        Without what is frozen below adapters, which is not saved.

        Raises CheckpointError, naming the tensors, if the model differs.
        """
        want = _tree(layout.abstract())
        self._check(step, want, complete=True)
        with self._reading(step):
            tree = self._read(step, want)
        recent = Recent(**tree.pop("recent"))
        return TrainState(**{"ema": None, **tree}, recent=recent)

    def restore_params(self, step: int, shapes: Any, shardings: Any) -> Any:
        """The weights alone; the averaged ones if the run kept them."""
        want = self._wanted(step, shapes, shardings)
        with self._reading(step):
            tree = self._read(step, want, partial_restore=True)
        return next(iter(tree.values()))

    def each_param(
        self, step: int, shapes: Any, shardings: Any
    ) -> Iterator[tuple[tuple[str, ...], jax.Array]]:
        """The same one after the other, with their paths: whoever takes them can let go
        of one before the next is read."""
        want = self._wanted(step, shapes, shardings)
        for path, leaf in jax.tree_util.tree_leaves_with_path(want):
            names = tuple(key.key for key in path)
            one: dict[str, Any] = {}
            bind.insert(one, names, leaf)
            with self._reading(step):
                tree = self._read(step, one, partial_restore=True)
            yield names[1:], jax.tree.leaves(tree)[0]

    def _wanted(self, step: int, shapes: Any, shardings: Any) -> dict[str, Any]:
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
        return want

    def _read(self, step: int, want: Any, *, partial_restore: bool = False) -> Any:
        """The arrays, a few at a time; of them as much as the largest read takes."""
        saved = self._manager.item_metadata(step)["state"].tree
        args = ocp.args.PyTreeRestore(
            want,
            restore_args=ocp.checkpoint_utils.construct_restore_args(want),
            partial_restore=partial_restore,
        )
        num_bytes = largest_read_bytes(want, saved)
        handler = ocp.PyTreeCheckpointHandler(
            restore_concurrent_gb=max(1.01 * num_bytes, LEAST_GROUP_BYTES) / 1e9,  # pyright: ignore[reportArgumentType]
            type_handler_registry=ocp.type_handlers.create_type_handler_registry(
                (jax.Array, InTurns())
            ),
        )
        with ocp.Checkpointer(handler) as reader:
            return reader.restore(
                epath.Path(self._folder.path) / str(step) / "state", args=args
            )

    def wait(self) -> None:
        """Blocks until a started save is whole. Raises what went wrong with it."""
        try:
            self._manager.wait_until_finished()
        except BaseException:
            self._give_up()
            raise
        if self._being_saved is None:
            return
        step, self._being_saved = str(self._being_saved), None
        if self._is_first:
            checksums.write(self._folder.inside(step), has_late=True)

    def close(self) -> None:
        """Lets go of the threads."""
        if self._has_failed and not self._is_alone:
            return
        # A save that failed was told; Orbax would raise it anew, in place of what ends
        # the run.
        with contextlib.suppress(Exception):
            self._manager.close()

    def _give_up(self) -> None:
        self._being_saved, self._has_failed = None, True
        if not self._is_alone:
            return  # Orbax would wait five minutes for the others; the run ends
        # Where it began to fail in this thread, another has an error in store as well,
        # which the next save would be given.
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()
        with contextlib.suppress(OSError, PodiumError):  # what went wrong is known
            clear_unfinished(self._folder)

    def _write_checksums(self) -> None:
        name = next(n for n in self._folder.names() if self._is_unfinished(n))
        checksums.write(self._folder.inside(name), has_late=False)

    def _is_unfinished(self, name: str) -> bool:
        """On a disk what is being written has a longer name; in a bucket its own."""
        step = str(self._being_saved)
        return name == step or name.startswith(f"{step}.orbax-checkpoint-tmp")

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Whatever Orbax makes of a damaged checkpoint is a CheckpointError.

        One that the disk or the bucket refuses is not damaged: a StorageError.
        """
        try:
            yield
        except PodiumError:
            raise
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            if is_refusal(error):
                raise StorageError(
                    f"{self._folder}/{step}: {refusal(error)}"
                ) from error
            why = " ".join(str(error).split())[:120]
            raise CheckpointError(
                f"{self._folder}/{step} is damaged ({type(error).__name__}: {why}); "
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


def _barrier() -> Callable[..., None]:
    """Where the processes meet that write one checkpoint, each in a thread.

    Orbax also meets the others when writing failed, for up to twenty minutes, before it
    tells us; they cannot come, as they wait for what this process did not write.
    """
    meet = ocp.multihost.get_barrier_sync_fn()

    def wait(*, key: str, timeout_ms: int) -> None:
        if sys.exc_info()[1] is None:
            meet(key=key, timeout_ms=timeout_ms)

    return wait


def _quieten_orbax() -> None:
    """Each of its threads logs the error, with a stack, that we get and say in a line."""
    for name in ("absl", "asyncio"):
        log = logging.getLogger(name)
        if _is_news not in log.filters:
            log.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    is_orbax = "orbax" in record.pathname and record.levelno >= logging.ERROR
    return not is_orbax and "exception was never retrieved" not in record.getMessage()


def saved_config(workdir: str | Path, step: int | None = None) -> TrainConfig:
    """The config that a checkpoint was saved with, the newest unless `step` is given."""
    checkpoints = Checkpoints(workdir, CheckpointConfig())
    try:
        run = checkpoints.run(find_checkpoint(workdir, step))
        return _for_this_platform(from_json_dict(TrainConfig, run["config"]))
    finally:
        checkpoints.close()


def restore_params(
    workdir: str | Path,
    step: int | None = None,
    *,
    rules: ShardingRules | None = None,
    model: ModelConfig | None = None,
) -> tuple[TrainConfig, Any]:
    """Config and weights of a run, for sampling and evaluation on any platform.

    The newest checkpoint unless `step` is given; on one device unless `rules` are;
    for the run's own model unless `model` is given, which must have the same shapes.
    Adapters come merged with the weights below them.
    """
    step = find_checkpoint(workdir, step)
    checkpoints = Checkpoints(workdir, CheckpointConfig())
    try:
        cfg = from_json_dict(TrainConfig, checkpoints.run(step)["config"])
        cfg = _for_this_platform(cfg)
        if cfg.lora is not None:
            from podium.base_weights import merged_params  # which is made of this file

            merged = merged_params(checkpoints, step, model or cfg.model, rules)
            return dataclasses.replace(cfg, lora=None), merged
        of = bind.abstract(model or cfg.model)
        if rules is None:
            one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            shardings = jax.tree.map(lambda _: one, of.shapes)
        else:
            shardings = param_layout(of, rules)
        return cfg, checkpoints.restore_params(step, of.shapes, shardings)
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
    tree = {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "recent": dataclasses.asdict(state.recent),
    }
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
