# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.

    r(y) = beta * (log p(y | x) - log p_ref(y | x))       implicit reward, eq. 5
    loss = -log sigmoid(r(chosen) - r(rejected))          mean over pairs

With label smoothing e, (1 - e) of that and e of the same with the pair turned round
(conservative DPO; the "sigmoid" loss of TRL). A pair is two neighbouring segments of a
row, 2 n + 1 chosen and 2 n + 2 rejected; log p is the sum over its scored tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from podium.config import DpoConfig
from podium.input.batch import Batch

_PAIR_TOKENS = 4  # at least: each of two sequences has one before the one it predicts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PreferenceSums:
    """Sums over pairs, so that batches and devices add up exactly."""

    loss: Any  # []
    pairs: Any  # [] with a scored token on both sides
    correct: Any  # [] pairs whose chosen reward is the higher; a tie is half
    chosen: Any  # [] rewards
    rejected: Any  # []
    tokens: Any  # [] scored tokens
    balance: Any  # [] as in LossSums

    def objective(self, num_pairs: Array, num_tokens: Array) -> Array:
        """What is minimised: the mean over pairs, and the balance over tokens."""
        balance = self.balance / jnp.maximum(num_tokens, 1.0)
        return self.loss / jnp.maximum(num_pairs, 1.0) + balance

    def mean(self) -> Array:
        """Loss per pair; no number where there is none."""
        return self.loss / self.pairs

    def metrics(self, z_loss: float = 0.0) -> dict[str, Array]:
        """What a step reports of them. `z_loss` is none of this objective's."""
        pairs = jnp.maximum(self.pairs, 1.0)
        return {
            "pairs": self.pairs,
            "reward_accuracy": self.correct / pairs,
            "reward_margin": (self.chosen - self.rejected) / pairs,
            "reward_chosen": self.chosen / pairs,
            "reward_rejected": self.rejected / pairs,
        }

    def held_out(self) -> dict[str, float]:
        """What an evaluation reports of them."""
        found = {f"eval_{k}": float(v) for k, v in self.metrics().items()}
        return {"eval_loss": float(self.mean()), **found}


def preference_sums(
    logprobs_BT: Float[Array, "B T"],
    reference_BT: Float[Array, "B T"],
    batch: Batch,
    cfg: DpoConfig,
) -> PreferenceSums:
    """Sums of the loss over the pairs of a batch.

    Args:
        logprobs_BT, reference_BT: of the targets, by the model and by the reference; 0
            where nothing is scored.
        batch: says which segment a position is of.
    """
    chosen_BTP, rejected_BTP = _sides(batch)
    reward_BT1 = cfg.beta * (logprobs_BT - reference_BT)[..., None]
    chosen_BP = jnp.sum(jnp.where(chosen_BTP, reward_BT1, 0.0), axis=1)
    rejected_BP = jnp.sum(jnp.where(rejected_BTP, reward_BT1, 0.0), axis=1)
    is_pair_BP = chosen_BTP.any(1) & rejected_BTP.any(1)
    margin_BP = chosen_BP - rejected_BP
    right_BP, wrong_BP = jax.nn.log_sigmoid(margin_BP), jax.nn.log_sigmoid(-margin_BP)
    loss_BP = -(1 - cfg.label_smoothing) * right_BP - cfg.label_smoothing * wrong_BP

    def total(x_BP: Array) -> Array:
        return jnp.sum(jnp.where(is_pair_BP, x_BP, 0.0))

    return PreferenceSums(
        loss=total(loss_BP),
        pairs=total(jnp.ones_like(loss_BP)),
        correct=total(0.5 + 0.5 * jnp.sign(margin_BP)),
        chosen=total(chosen_BP),
        rejected=total(rejected_BP),
        tokens=jnp.sum(batch.targets >= 0, dtype=jnp.int32).astype(jnp.float32),
        balance=jnp.zeros((), jnp.float32),
    )


def num_pairs(batch: Batch) -> Array:
    """How many pairs of a batch have a scored token on both sides, as float32."""
    chosen_BTP, rejected_BTP = _sides(batch)
    both = chosen_BTP.any(1) & rejected_BTP.any(1)
    return jnp.sum(both, dtype=jnp.int32).astype(jnp.float32)


def _sides(batch: Batch) -> tuple[Array, Array]:
    """Whether a scored position is of the chosen, or rejected, side of a pair: [B, T, P].

    A select and a sum instead of a scatter: it fuses, and takes positions in any order,
    on any device.
    """
    P = max(1, batch.targets.shape[1] // _PAIR_TOKENS)
    segment_BT1 = jnp.where(batch.targets >= 0, batch.segment_ids, 0)[..., None]
    pair_P = jnp.arange(P, dtype=segment_BT1.dtype)[None, None]
    return segment_BT1 == 2 * pair_P + 1, segment_BT1 == 2 * pair_P + 2
