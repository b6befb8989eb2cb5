# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The models and slices on which MaxText and Podium are compared, as each is told them.

Same architecture, tokens a chip, compute type and optimizer: AdamW with float32
moments, float32 parameters, bfloat16 compute, layers scanned, gradients clipped at 1.
"""

import dataclasses
from pathlib import Path

from configs.families import llama_2_7b, mixtral_8x7b
from podium import cli
from podium.aot.chips import parse_slice
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.config_model import ModelConfig
from podium.models.flops import active_param_count
from podium.trainer.compiler_options import TPU_OPTIONS

ROOT = Path(__file__).parent.parent
COMMON = {  # of every MaxText row; the rest is its base.yml
    "run_name": "compare",
    "base_output_directory": "/tmp",
    "dataset_type": "synthetic",
    "enable_checkpointing": False,
    "steps": 10,
    "attention": "flash",
    "compile_topology_num_slices": 1,
}


def flags(kind: str) -> str:
    """Our compiler options, as MaxText takes them."""
    return " ".join(f"--{key}={value}" for key, value in TPU_OPTIONS[kind].items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one slice; the variants differ in what the backward pass keeps."""

    model: ModelConfig
    topology: str
    seq_len: int
    rows_per_chip: int
    maxtext: dict[str, dict[str, object]]  # variant -> settings
    remats: tuple[str, ...]  # our variants; the first is the one to beat MaxText

    @property
    def podium(self) -> dict[str, TrainConfig]:
        """Variant -> our config."""
        return {remat: self._config(remat) for remat in self.remats}

    def _config(self, remat: str) -> TrainConfig:
        chips = parse_slice(self.topology).num_chips
        return TrainConfig(
            num_steps=1000,
            global_batch_seqs=self.rows_per_chip * chips,
            model=dataclasses.replace(self.model, remat=remat),
            data=DataConfig(seq_len=self.seq_len),
            mesh=MeshConfig(fsdp=chips),
        )

    def settings(self, variant: str) -> list[str]:
        """MaxText's command line."""
        values = {
            **COMMON,
            "compile_topology": self.topology,
            "ici_fsdp_parallelism": parse_slice(self.topology).num_chips,
            "per_device_batch_size": self.rows_per_chip,
            "max_target_length": self.seq_len,
            **self.maxtext[variant],
        }
        return [f"{key}={value}" for key, value in values.items()]

    @property
    def useful_flops(self) -> float:
        """6 x parameters x tokens of one device, those of idle experts left out.

        Counted once, from our closed form, for both.
        """
        tokens = self.rows_per_chip * self.seq_len
        return 6.0 * active_param_count(self.model) * tokens


ROWS = {
    # The shape of MaxText's own 52B run on v4, configs/tpu/v4/52b.sh, made larger.
    "102b": Row(
        model=cli.load_config(str(ROOT / "configs" / "dense_100b_v4_256.py")).model,
        topology="v4-256",
        seq_len=2048,
        rows_per_chip=3,
        maxtext={
            "full": {
                "base_num_decoder_layers": 80,
                "base_emb_dim": 10_240,
                "base_mlp_dim": 40_960,
                "base_num_query_heads": 80,
                "base_num_kv_heads": 80,
                "head_dim": 128,
                "mlp_activations": "['gelu']",
                "vocab_size": 50_304,
                "num_vocab_tiling": 8,
                "remat_policy": "full",
                "compile_xla_flags": "--xla_enable_async_all_gather=true",
            }
        },
        # With what the host holds meanwhile, 20 GB a chip, a step of less work.
        remats=("full", "query:host,key:host"),
    ),
    # configs/tpu/v5e/llama2_7b.sh; its seven compiler flags are defaults by now.
    "7b": Row(
        model=llama_2_7b(),
        topology="v5e-256",
        seq_len=2048,
        rows_per_chip=4,
        maxtext={
            "save_qkv_proj": {
                "model_name": "llama2-7b",
                "remat_policy": "save_qkv_proj",
                "use_iota_embed": True,
            },
            "full": {"model_name": "llama2-7b", "remat_policy": "full"},
            # Not theirs: what the same compiler makes of their program with our options.
            "full+our_options": {
                "model_name": "llama2-7b",
                "remat_policy": "full",
                "compile_xla_flags": flags("TPU v5 lite"),
            },
        },
        remats=("full", "qkv"),
    ),
    "mixtral": Row(
        model=mixtral_8x7b(),
        topology="v5p-128",
        seq_len=4096,
        rows_per_chip=4,
        maxtext={
            "full": {"model_name": "mixtral-8x7b", "remat_policy": "full"},
            "full+our_options": {
                "model_name": "mixtral-8x7b",
                "remat_policy": "full",
                "compile_xla_flags": flags("TPU v5"),
            },
        },
        remats=("full",),
    ),
}
