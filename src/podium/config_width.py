# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Settings found on a narrow model, used on a wide one: `model.width_transfer`."""

import dataclasses
from typing import Literal

from podium.config_setting import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MupConfig:
    """Maximal update parametrisation, muP (arXiv:2203.03466, table 8), from a base model.

    Learning rate, decay and init_std are those of the base model. At its sizes nothing
    changes, to the bit; `models/width.py` says what does at others.
    """

    base_embed_dim: int = setting(256, "model width of the base", low=1)
    base_mlp_dim: int | None = setting(
        None, "hidden width of its MLP or expert; None: in proportion", low=1
    )
    base_num_heads: int | None = setting(
        None, "its query heads; None: in proportion to embed_dim", low=1
    )
    base_head_dim: int | None = setting(
        None, "channels of its heads, as heads get wider; None: as many as here", low=1
    )
    zero_init: tuple[Literal["query", "head"], ...] = setting(
        (), "kernels that begin at 0, so that no width begins elsewhere (appendix D.2)"
    )
