# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A small transformer on the Python standard library's own sources, on a CPU.

python -m podium.train --config=configs/quickstart.py --workdir=runs/quickstart

The same run on 8 virtual devices, to the same loss:
  … --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2
Your own files: --config.data.text=DIR --workdir=runs/mine
"""

import sysconfig

from podium.config import EvalConfig, MuonConfig, OptimConfig, SampleConfig, TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    cfg = to_config_dict(
        TrainConfig(
            eval=EvalConfig(ngram_baselines=True),
            optim=OptimConfig(optimizer=MuonConfig()),
            sample=SampleConfig(),
        )
    )
    cfg.num_steps = 500
    cfg.global_batch_seqs = 8
    cfg.model.vocab_size = 1024
    cfg.model.num_layers = 4
    cfg.model.embed_dim = 256
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 4
    cfg.model.mlp.dim = 768
    cfg.model.dtype = "float32"  # bfloat16 is fast on CPUs with AVX512-BF16 only
    cfg.model.remat = "dots"  # the fastest on a CPU: less memory to write and read
    cfg.data.text = sysconfig.get_paths()["stdlib"]
    cfg.data.tokenizer = "bpe:1024"
    cfg.data.eval_fraction = 0.005
    cfg.data.seq_len = 256
    cfg.optim.peak_lr = 5e-3
    cfg.optim.schedule.warmup_steps = 20
    cfg.eval.every_steps = 100
    cfg.checkpoint.every_steps = 100
    return cfg
