# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A small transformer on the Python standard library's own sources, on a CPU.

python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart

The same run on 8 virtual devices, to the same loss:
  … --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2
Your own files: --config.data.text=DIR
"""

import sysconfig

from podium.config import EvalConfig, SampleConfig, TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    cfg = to_config_dict(
        TrainConfig(eval=EvalConfig(ngram_baselines=True), sample=SampleConfig())
    )
    cfg.num_steps = 500
    cfg.global_batch_seqs = 16
    cfg.model.vocab_size = 4096
    cfg.model.num_layers = 4
    cfg.model.embed_dim = 256
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 4
    cfg.model.mlp.dim = 768
    cfg.model.dtype = "float32"  # XLA:CPU computes bfloat16 more slowly
    cfg.data.text = sysconfig.get_paths()["stdlib"]
    cfg.data.tokenizer = "bpe:4096"
    cfg.data.seq_len = 256
    cfg.optim.peak_lr = 2e-3
    cfg.optim.schedule.warmup_steps = 50
    cfg.eval.every_steps = 100
    cfg.checkpoint.every_steps = 100
    return cfg
