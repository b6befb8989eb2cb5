# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every setting once: type, default, unit, check.

The frozen dataclasses below, and those of the model in `config_model.py`, are the
truth. Config files (`configs/*.py`) are diffs against `base()`, an
`ml_collections.ConfigDict` made from them; past the command line only dataclasses
exist. `config_dict.py` converts between the two. No jax here: launching a job and
starting an input worker read this file and nothing heavier.
"""

import dataclasses
import math
import re
from typing import Literal

from podium.config_dpo import DpoConfig, check_dpo
from podium.config_launch import LaunchConfig
from podium.config_lora import DoraConfig, LoraConfig, check_lora
from podium.config_mesh import MeshConfig, ShardingConfig
from podium.config_model import ModelConfig
from podium.config_positions import LearnedPositionConfig
from podium.config_setting import setting
from podium.config_tracking import TrackingConfig
from podium.errors import ConfigError

# --- data ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which tokens, in which order, packed how. Order: a function of (seed, step)."""

    paths: tuple[str, ...] = setting(
        (), "gold data folders (podium.prepare); empty: made from `text`"
    )
    weights: tuple[float, ...] = setting(
        (), "share of the sequences from each of `paths`; empty: by token count"
    )
    text: str | None = setting(
        None,
        "raw files to prepare first: a folder, glob, .jsonl, .parquet or tfds:NAME",
    )
    tokenizer: str = setting(
        "bpe:8192", "for `text`: bytes, bpe:SIZE, or a tokenizer.json"
    )
    eval_fraction: float = setting(
        0.02, "for `text`: share of documents held out", low=0.0, high=0.5
    )
    seq_len: int = setting(2048, "tokens in a row (T)", unit="tokens", low=2)
    packing: Literal["concat", "best_fit"] = setting(
        "concat", "cut documents at row ends, or fit whole ones where they go"
    )
    on_damage: Literal["error", "skip"] = setting(
        "error", "a damaged record ends the run, or is left out, counted and named"
    )
    shuffle: bool = setting(True, "visit rows in a keyed permutation, new each epoch")
    num_threads: int = setting(2, "parallel reads in the input process", low=1)
    prefetch_batches: int = setting(4, "host batches ready ahead of the step", low=1)

    def __post_init__(self):
        if self.weights and len(self.weights) != len(self.paths):
            raise ConfigError(
                f"data.weights has {len(self.weights)} entries, data.paths "
                f"{len(self.paths)}: give one weight per path, or none"
            )
        if any(not (w > 0 and math.isfinite(w)) for w in self.weights):
            raise ConfigError(f"data.weights {self.weights} must all be above 0")


# --- optimisation --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up to peak, then a decay that ends at `end_lr_ratio` * peak."""

    kind: Literal["cosine", "wsd", "linear", "inverse_sqrt", "constant"] = setting(
        "cosine", "shape after the warm-up; wsd: stable, then decay_steps of 1-sqrt"
    )
    warmup_steps: int = setting(100, "linear warm-up", unit="steps", low=0)
    decay_steps: int | None = setting(
        None, "wsd: length of the decay; None: a tenth of the run", unit="steps", low=1
    )
    end_lr_ratio: float = setting(0.1, "final rate over peak", low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """arXiv:1711.05101; decay is multiplied by the current rate, as in optax.adamw."""

    kind: Literal["adamw"] = "adamw"
    b1: float = setting(0.9, "decay of the first moment", low=0.0, below=1.0)
    b2: float = setting(0.95, "decay of the second moment", low=0.0, below=1.0)
    eps: float = setting(1e-8, "added to the denominator", above=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdafactorConfig:
    """Factored second moments, arXiv:1804.04235."""

    kind: Literal["adafactor"] = "adafactor"
    decay_rate: float = setting(0.8, "second-moment decay exponent", low=0.0, below=1.0)
    clipping_threshold: float = setting(1.0, "update RMS clip", above=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig:
    """arXiv:2302.06675."""

    kind: Literal["lion"] = "lion"
    b1: float = setting(0.9, "interpolation of the update", low=0.0, below=1.0)
    b2: float = setting(0.99, "decay of the momentum", low=0.0, below=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Orthogonalised momentum for kernels, AdamW elsewhere. Jordan et al. 2024."""

    kind: Literal["muon"] = "muon"
    beta: float = setting(0.95, "momentum", low=0.0, below=1.0)
    ns_steps: int = setting(5, "Newton-Schulz iterations", low=1)
    b1: float = setting(0.9, "AdamW part: first moment", low=0.0, below=1.0)
    b2: float = setting(0.95, "AdamW part: second moment", low=0.0, below=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optax chain: clip, scale, decay, schedule."""

    optimizer: AdamWConfig | AdafactorConfig | LionConfig | MuonConfig = setting(
        AdamWConfig(), "the update rule"
    )
    peak_lr: float = setting(3e-4, "highest learning rate", low=0.0)
    schedule: ScheduleConfig = setting(ScheduleConfig(), "rate over the steps")
    weight_decay: float = setting(0.1, "on kernels and embeddings, times lr", low=0.0)
    clip_norm: float | None = setting(
        1.0, "global L2 norm of the gradient; None: off", above=0.0
    )
    state_memory: Literal["device", "host"] = setting(
        "device",
        "where moments wait between steps; host: they come layer by layer, when updated",
    )
    ema_decay: float | None = setting(
        None, "keep an average of the weights, used by eval; None: off", low=0, below=1
    )

    def __post_init__(self):
        is_small = isinstance(self.optimizer, AdafactorConfig)
        if is_small and self.state_memory == "host":
            raise ConfigError(
                "optim.state_memory is 'host', but adafactor keeps means of rows and "
                "columns alone, which take no room; use 'device'"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Token cross-entropy in float32."""

    z_loss: float = setting(0.0, "weight of logsumexp**2 (arXiv:2204.02311)", low=0.0)
    chunk_tokens: int = setting(
        4096, "tokens per device whose logits exist at once", unit="tokens", low=1
    )


# --- the run -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save, where, and what to keep."""

    every_steps: int | None = setting(
        500,
        "save interval; the last step too; None: found from what a save costs and how "
        "often the run is interrupted",
        unit="steps",
        low=1,
    )
    folder: str | None = setting(
        None, "where they lie, also gs://BUCKET/PATH; None: in the run folder"
    )
    keep_last: int = setting(3, "newest checkpoints kept", low=1)
    keep_every_steps: int | None = setting(
        None, "also keep every multiple of this for good", unit="steps", low=1
    )
    keep_best: int = setting(1, "checkpoints with the lowest eval loss kept", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Held-out loss, weighted by token."""

    every_steps: int = setting(250, "interval; the last step too", unit="steps", low=1)
    num_batches: int | None = setting(
        None, "batches of the eval split; None: all of it", unit="batches", low=1
    )
    by: Literal["total", "dataset", "source"] = setting(
        "dataset", "what else the loss is given for: each data set, or each source"
    )
    max_groups: int = setting(
        20, "sources are grouped by folder into at most so many", low=1
    )
    ngram_baselines: bool = setting(
        False, "at the end, also the loss of unigram and bigram models of the data"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Traces for XProf, written to D/traces."""

    steps: str | None = setting(
        None, "first:last, last excluded, e.g. 10:15; None: off", unit="steps"
    )
    port: int | None = setting(
        None,
        "where XProf captures from the running job, plus the process number; None: off",
        low=1024,
        high=65535,
    )

    def __post_init__(self):
        if self.steps is not None and self.window() is None:
            raise ConfigError(
                f"profile.steps is {self.steps!r:.60}; expected e.g. '10:15'"
            )

    def window(self) -> range | None:
        """The traced steps."""
        found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", self.steps or "")
        window = range(*map(int, found.groups())) if found else range(0)
        return window or None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """What follows on a loss or gradient that is no number, or spikes.

    skip: the step changes no weight. rewind: the newest checkpoint is restored and the
    batches since are left out. stop: exit 1.
    """

    on_non_finite: Literal["skip", "rewind", "stop"] = setting(
        "skip", "a loss or gradient that is no number"
    )
    on_spike: Literal["keep", "skip", "rewind", "stop"] = setting(
        "keep", "a spike; keep: it is recorded and learnt from"
    )
    spike_z: float = setting(
        10.0, "robust z-score of loss or gradient norm from which it is one", above=0.0
    )
    max_in_a_row: int = setting(
        10, "skipped steps in a row with which the run ends", unit="steps", low=1
    )
    max_rewinds: int = setting(3, "rewinds after which the run ends", low=0)
    verify_every_steps: int | None = setting(
        None,
        "a step is computed twice more and compared bit by bit, replicas of weights too; "
        "None: off",
        unit="steps",
        low=1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """When a run that hangs, or has lost one of its processes, leaves."""

    min_secs: float = setting(
        120.0, "a step may always take this long", unit="s", above=0.0
    )
    times_median: float = setting(
        20.0, "and so many times the median of the last hundred", above=1.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Text generated when the run ends."""

    prompt: str = setting("def ", "what it continues")
    num_tokens: int = setting(100, "tokens to generate", unit="tokens", low=1)
    temperature: float = setting(0.8, "0: greedy", low=0.0)
    top_p: float = setting(0.95, "nucleus", above=0.0, high=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    seed: int = setting(0, "of the weights and of the data order", low=0)
    num_steps: int = setting(1000, "optimizer steps", unit="steps", low=1)
    global_batch_seqs: int = setting(
        8, "batch size: rows in a step, all devices", low=1
    )
    grad_accum_steps: int = setting(1, "micro-batches that make a step", low=1)
    model: ModelConfig = setting(ModelConfig(), "the network")
    init_from: str | None = setting(
        None,
        "run folder, or imported model, with whose weights a run begins; None: random",
    )
    lora: LoraConfig | DoraConfig | None = setting(
        None, "adapters are trained, init_from's weights stay; None: all is trained"
    )
    data: DataConfig = setting(DataConfig(), "the tokens")
    optim: OptimConfig = setting(OptimConfig(), "the update")
    loss: LossConfig = setting(LossConfig(), "the objective")
    dpo: DpoConfig | None = setting(
        None, "preferences as the objective; None: the next token"
    )
    mesh: MeshConfig = setting(MeshConfig(), "the devices")
    sharding: ShardingConfig = setting(ShardingConfig(), "which axis splits what")
    checkpoint: CheckpointConfig = setting(CheckpointConfig(), "saves")
    eval: EvalConfig | None = setting(EvalConfig(), "held-out loss; None: off")
    log_every_steps: int = setting(10, "interval of metrics", unit="steps", low=1)
    profile: ProfileConfig = setting(ProfileConfig(), "traces")
    peer_secs: int = setting(
        30,
        "of several processes, one that is silent this long is lost, and all leave",
        unit="s",
        low=2,
    )
    faults: FaultsConfig = setting(FaultsConfig(), "bad losses and gradients")
    watchdog: WatchdogConfig | None = setting(
        WatchdogConfig(), "ends a run that hangs; None: off"
    )
    sample: SampleConfig | None = setting(None, "text at the end; None: off")
    tracking: TrackingConfig = setting(
        TrackingConfig(), "services that show the run, beside its folder"
    )
    launch: LaunchConfig | None = setting(None, "machines in Google Cloud; None: here")

    @property
    def has_reference(self) -> bool:
        """Whether the run holds other weights to be measured against: with adapters dpo
        has them already, below those."""
        return self.dpo is not None and self.lora is None

    def __post_init__(self):
        if self.global_batch_seqs % self.grad_accum_steps:
            raise ConfigError(
                f"global_batch_seqs ({self.global_batch_seqs}) must be a multiple of "
                f"grad_accum_steps ({self.grad_accum_steps})"
            )
        check_lora(self.lora, self.init_from, self.optim.state_memory)
        if self.dpo is not None:
            check_dpo(
                self.dpo,
                self.init_from,
                self.data.packing,
                self.loss.z_loss,
                is_lora=self.lora is not None,
            )
        position = self.model.position
        if (
            isinstance(position, LearnedPositionConfig)
            and self.data.seq_len > position.max_tokens
        ):
            raise ConfigError(
                f"data.seq_len ({self.data.seq_len}) is beyond the learned positions; "
                f"set model.position.max_tokens ({position.max_tokens}) at least as high"
            )
        window = self.profile.window()
        if window and not max(1, window.start) < min(window.stop, self.num_steps + 1):
            raise ConfigError(
                f"profile.steps is {self.profile.steps!r}, but the run has steps 1 to "
                f"{self.num_steps}: nothing would be traced; choose some of those"
            )
        if self.optim.schedule.warmup_steps >= self.num_steps > 1:
            raise ConfigError(
                f"optim.schedule.warmup_steps ({self.optim.schedule.warmup_steps}) "
                f"must be below num_steps ({self.num_steps}); add "
                f"--config.optim.schedule.warmup_steps={self.num_steps // 10}"
            )
