# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What one device holds and computes under a mesh, in closed form: sizes, no times.

The counts follow `models/flops.py` and the rules `ShardingConfig`; a letter is a
dimension as in the model's code (D width, F MLP width, N query heads, K kv heads, H
head dim, V vocabulary, T row).
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property

from podium.config import TrainConfig
from podium.config_mesh import MESH_AXES
from podium.config_model import CapacityConfig, MoeConfig
from podium.models.flops import attention_flops_per_token
from podium.models.pipeline_schedule import Schedule, make_schedule


@dataclasses.dataclass(frozen=True)
class Shares:
    """A config on a mesh whose sizes are all written out."""

    cfg: TrainConfig
    sizes: Mapping[str, int]  # axis -> devices along it

    def axes(self, logical: str) -> tuple[str, ...]:
        """Mesh axes, of size above 1, that split a logical axis."""
        named = getattr(self.cfg.sharding, logical)
        if named is None:  # opt_embed: as embed
            named = self.cfg.sharding.embed
        return tuple(a for a in named if self.sizes[a] > 1)

    def parts(self, logical: str) -> int:
        """Into how many parts a logical axis is split."""
        if logical not in self._parts:
            self._parts[logical] = math.prod(self.sizes[a] for a in self.axes(logical))
        return self._parts[logical]

    @cached_property
    def _parts(self) -> dict[str, int]:
        return {}

    @cached_property
    def moe(self) -> MoeConfig | None:
        """The experts, if the model has some."""
        mlp = self.cfg.model.mlp
        return mlp if isinstance(mlp, MoeConfig) else None

    @cached_property
    def schedule(self) -> Schedule | None:
        """Of the pipeline; None without one. Raises ConfigError where rows do not
        divide into its microbatches."""
        stages = self.parts("layers")
        if stages == 1:
            return None
        cfg = self.cfg
        return make_schedule(
            cfg.model.pipeline,
            stages=stages,
            rows=cfg.global_batch_seqs // cfg.grad_accum_steps,
            devices=self.parts("batch") // self._stages_of_batch,
        )

    @cached_property
    def _stages_of_batch(self) -> int:
        return math.prod(self.sizes[a] for a in self.axes("batch") if a == "stage")

    @cached_property
    def layers(self) -> float:
        """Layers that a device holds; of all as if they were in the repeating stack."""
        return self.cfg.model.num_layers / self.parts("layers")

    @cached_property
    def passes(self) -> float:
        """Layers that a device runs forward in a micro-batch: in a pipeline its own once
        a microbatch, and those that it runs on nothing while it waits."""
        plan = self.schedule
        return self.layers * (plan.num_times / plan.repeats if plan else 1)

    @cached_property
    def rows(self) -> float:
        """Rows of a micro-batch on a device, in a pipeline of a microbatch."""
        cfg = self.cfg
        rows = cfg.global_batch_seqs / cfg.grad_accum_steps / self.parts("batch")
        if self.schedule:
            rows *= self._stages_of_batch / self.schedule.microbatches
        return rows

    @cached_property
    def tokens(self) -> float:
        """Tokens that a device has at once inside attention and MLP."""
        return self.rows * self.cfg.data.seq_len / self.parts("length")

    @cached_property
    def head_tokens(self) -> float:
        """Tokens of a micro-batch on a device in the embedding and the loss, where stages
        share the rows."""
        cfg = self.cfg
        rows = cfg.global_batch_seqs / cfg.grad_accum_steps / self.parts("batch")
        return rows * cfg.data.seq_len / self.parts("length")

    @cached_property
    def residual_tokens(self) -> float:
        """The same between the parts of a block."""
        return self.rows * self.cfg.data.seq_len / self.parts("act_length")

    @cached_property
    def chosen(self) -> float:
        """Copies of a device's tokens that experts work on, one for each choice; with a
        capacity the slots, full or not."""
        if self.moe is None:
            return 0.0
        k, dispatch = self.moe.experts_per_token, self.moe.dispatch
        if isinstance(dispatch, CapacityConfig):
            return self.tokens * min(dispatch.factor * k, self.moe.num_experts)
        return self.tokens * k

    @cached_property
    def sent(self) -> float:
        """Rows of the arrays of a device's experts. Slots are exchanged; without a
        capacity the devices of an expert group gather each other's tokens."""
        if self.moe is not None and isinstance(self.moe.dispatch, CapacityConfig):
            return self.chosen
        return self.chosen * self.parts("experts")

    @cached_property
    def are_experts_apart(self) -> bool:
        """Whether a device's experts leave out rows that their group gathered, which are
        masked in both passes."""
        return self.sent > self.chosen

    # --- weights ---------------------------------------------------------------------

    @cached_property
    def dense_layer_params(self) -> float:
        """Of one layer, experts aside, on a device that has gathered the model width."""
        model, a = self.cfg.model, self.cfg.model.attention
        D, H = model.embed_dim, a.head_dim
        params = 2 * D * H * a.num_heads / self.parts("heads")
        params += 2 * D * H * a.num_kv_heads / self.parts("kv_heads")
        return params + self.dense_mlp_kernels * D * self.mlp_width

    @cached_property
    def expert_layer_params(self) -> float:
        """The experts of one layer that a device runs, gathered likewise."""
        if self.moe is None:
            return 0.0
        F = self.moe.dim / self.parts("mlp")
        return 3 * self.cfg.model.embed_dim * F * self.experts

    @cached_property
    def experts(self) -> float:
        """Experts of a layer on a device."""
        return self.moe.num_experts / self.parts("experts") if self.moe else 0.0

    @cached_property
    def mlp_width(self) -> float:
        """F of the dense MLP, or of the shared expert, on a device."""
        mlp = self.cfg.model.mlp
        width = mlp.dim * (mlp.num_shared_experts if isinstance(mlp, MoeConfig) else 1)
        return width / self.parts("mlp")

    @cached_property
    def dense_mlp_kernels(self) -> int:
        """Weights of the dense MLP."""
        return 2 if self.cfg.model.mlp.kind == "gelu" else 3

    @cached_property
    def table_params(self) -> float:
        """The embedding, or the output head, gathered along the model width."""
        model = self.cfg.model
        return model.vocab_rows * model.embed_dim / self.parts("vocab")

    @cached_property
    def num_tables(self) -> int:
        """1 where the head is the embedding."""
        return 1 if self.cfg.model.tie_embeddings else 2

    def params(self, width: str = "embed") -> float:
        """Parameters that a device keeps; of moments with width="opt_embed"."""
        L = self.layers
        dense = L * self.dense_layer_params + self.num_tables * self.table_params
        experts = L * self.expert_layer_params / self.parts("expert_embed")
        return dense / self.parts(width) + experts

    # --- operations of a forward pass, one layer, one micro-batch -----------------------

    @cached_property
    def expert_flops(self) -> float:
        """The experts' matmuls: of tokens chosen evenly, or of slots, the empty too."""
        if self.moe is None:
            return 0.0
        F = self.moe.dim / self.parts("mlp")
        return 2 * 3 * self.chosen * self.cfg.model.embed_dim * F

    @cached_property
    def attention_flops(self) -> float:
        """Scores and weighted values, causal, of all layers over their number."""
        cfg = self.cfg
        per_token = attention_flops_per_token(cfg.model, cfg.data.seq_len)
        return self.tokens * per_token / cfg.model.num_layers / self.parts("heads")

    @cached_property
    def head_flops(self) -> float:
        """Logits of a micro-batch. Devices that share rows by `tensor` share them here
        by the vocabulary."""
        return 2 * self.head_tokens * self.table_params


def shares(cfg: TrainConfig, num_devices: int) -> Shares:
    """Fills in the axis that is -1."""
    sizes = cfg.mesh.sizes()
    known = math.prod(n for n in sizes.values() if n != -1)
    left = num_devices // known
    return Shares(cfg, {a: left if sizes[a] == -1 else sizes[a] for a in MESH_AXES})
