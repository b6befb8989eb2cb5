# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Published models as ModelConfigs: what the released weights expect, to the letter.

Use one in a config file: `cfg.model = to_config_dict(families.llama_3_1_8b())`.
The numbers are those of the config.json that each family's authors released.
"""

import dataclasses

from podium.config_model import (
    AttentionConfig,
    AuxLossConfig,
    BiasConfig,
    DensePrefixConfig,
    LatentAttentionConfig,
    LayerNormConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RMSNormConfig,
)
from podium.config_positions import (
    LearnedPositionConfig,
    Llama3Scaling,
    RopeConfig,
    YarnScaling,
)


def gpt2_124m() -> ModelConfig:
    """GPT-2 small (Radford et al. 2019): 124,439,808 parameters."""
    return ModelConfig(
        vocab_size=50_257,
        num_layers=12,
        embed_dim=768,
        position=LearnedPositionConfig(max_tokens=1024),
        norm=LayerNormConfig(eps=1e-5),
        attention=AttentionConfig(
            num_heads=12,
            num_kv_heads=12,
            head_dim=64,
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        mlp=MlpConfig(kind="gelu", dim=3072, use_bias=True),
        tie_embeddings=True,
    )


def llama_2_7b() -> ModelConfig:
    """Llama 2 7B (arXiv:2307.09288): 6,738,415,616 parameters."""
    return ModelConfig(
        vocab_size=32_000,
        num_layers=32,
        embed_dim=4096,
        position=RopeConfig(theta=10_000.0),
        norm=RMSNormConfig(eps=1e-5),
        attention=AttentionConfig(num_heads=32, num_kv_heads=32, head_dim=128),
        mlp=MlpConfig(kind="swiglu", dim=11_008),
        tie_embeddings=False,
    )


def llama_3_8b() -> ModelConfig:
    """Llama 3 8B (arXiv:2407.21783): 8,030,261,248 parameters."""
    return ModelConfig(
        vocab_size=128_256,
        num_layers=32,
        embed_dim=4096,
        position=RopeConfig(theta=500_000.0),
        norm=RMSNormConfig(eps=1e-5),
        attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=128),
        mlp=MlpConfig(kind="swiglu", dim=14_336),
        tie_embeddings=False,
    )


def llama_3_1_8b() -> ModelConfig:
    """Llama 3.1 8B: Llama 3 8B with RoPE stretched from 8k to 128k tokens."""
    scaling = Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_tokens=8192
    )
    position = RopeConfig(theta=500_000.0, scaling=scaling)
    return dataclasses.replace(llama_3_8b(), position=position)


def llama_3_1_70b() -> ModelConfig:
    """Llama 3.1 70B (arXiv:2407.21783): 70,553,706,496 parameters."""
    return _llama_3_1(num_layers=80, embed_dim=8192, num_heads=64, mlp_dim=28_672)


def llama_3_1_405b() -> ModelConfig:
    """Llama 3.1 405B (arXiv:2407.21783): 405,853,388,800 parameters."""
    return _llama_3_1(num_layers=126, embed_dim=16_384, num_heads=128, mlp_dim=53_248)


def _llama_3_1(
    *, num_layers: int, embed_dim: int, num_heads: int, mlp_dim: int
) -> ModelConfig:
    small = llama_3_1_8b()
    return dataclasses.replace(
        small,
        num_layers=num_layers,
        embed_dim=embed_dim,
        attention=dataclasses.replace(small.attention, num_heads=num_heads),
        mlp=MlpConfig(kind="swiglu", dim=mlp_dim),
    )


def mistral_7b() -> ModelConfig:
    """Mistral 7B v0.1 (arXiv:2310.06825): 7,241,732,096 parameters."""
    return ModelConfig(
        vocab_size=32_000,
        num_layers=32,
        embed_dim=4096,
        position=RopeConfig(theta=10_000.0),
        norm=RMSNormConfig(eps=1e-5),
        attention=AttentionConfig(
            num_heads=32,
            num_kv_heads=8,
            head_dim=128,
            pattern=("local",),
            window_tokens=4096,
        ),
        mlp=MlpConfig(kind="swiglu", dim=14_336),
        tie_embeddings=False,
    )


def qwen_2_0_5b() -> ModelConfig:
    """Qwen 2 and 2.5 0.5B (arXiv:2407.10671): 494,032,768 parameters."""
    return ModelConfig(
        vocab_size=151_936,
        num_layers=24,
        embed_dim=896,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-6),
        attention=AttentionConfig(
            num_heads=14, num_kv_heads=2, head_dim=64, use_qkv_bias=True
        ),
        mlp=MlpConfig(kind="swiglu", dim=4864),
        tie_embeddings=True,
    )


def qwen_2_7b() -> ModelConfig:
    """Qwen 2 and 2.5 7B (arXiv:2407.10671): 7,615,616,512 parameters."""
    return ModelConfig(
        vocab_size=152_064,
        num_layers=28,
        embed_dim=3584,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-6),
        attention=AttentionConfig(
            num_heads=28, num_kv_heads=4, head_dim=128, use_qkv_bias=True
        ),
        mlp=MlpConfig(kind="swiglu", dim=18_944),
        tie_embeddings=False,
    )


def qwen_3_0_6b() -> ModelConfig:
    """Qwen 3 0.6B (arXiv:2505.09388): 596,049,920 parameters."""
    return ModelConfig(
        vocab_size=151_936,
        num_layers=28,
        embed_dim=1024,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-6),
        attention=AttentionConfig(
            num_heads=16,
            num_kv_heads=8,
            head_dim=128,
            qk_norm=RMSNormConfig(eps=1e-6),
        ),
        mlp=MlpConfig(kind="swiglu", dim=3072),
        tie_embeddings=True,
    )


def qwen_3_8b() -> ModelConfig:
    """Qwen 3 8B (arXiv:2505.09388): 8,190,735,360 parameters."""
    return ModelConfig(
        vocab_size=151_936,
        num_layers=36,
        embed_dim=4096,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-6),
        attention=AttentionConfig(
            num_heads=32,
            num_kv_heads=8,
            head_dim=128,
            qk_norm=RMSNormConfig(eps=1e-6),
        ),
        mlp=MlpConfig(kind="swiglu", dim=12_288),
        tie_embeddings=False,
    )


def mixtral_8x7b() -> ModelConfig:
    """Mixtral 8x7B (arXiv:2401.04088): 46,702,792,704 parameters, 12.9 B of them active."""
    return ModelConfig(
        vocab_size=32_000,
        num_layers=32,
        embed_dim=4096,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-5),
        attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=128),
        mlp=MoeConfig(
            num_experts=8,
            experts_per_token=2,
            dim=14_336,
            balance=AuxLossConfig(weight=0.02),
        ),
        tie_embeddings=False,
    )


def qwen_3_30b_a3b() -> ModelConfig:
    """Qwen 3 30B-A3B (arXiv:2505.09388): 30,532,122,624 parameters, 3.3 B active."""
    return ModelConfig(
        vocab_size=151_936,
        num_layers=48,
        embed_dim=2048,
        position=RopeConfig(theta=1_000_000.0),
        norm=RMSNormConfig(eps=1e-6),
        attention=AttentionConfig(
            num_heads=32,
            num_kv_heads=4,
            head_dim=128,
            qk_norm=RMSNormConfig(eps=1e-6),
        ),
        mlp=MoeConfig(
            num_experts=128,
            experts_per_token=8,
            dim=768,
            balance=AuxLossConfig(weight=0.001),
        ),
        tie_embeddings=False,
    )


def deepseek_v2_lite() -> ModelConfig:
    """DeepSeek-V2-Lite (arXiv:2405.04434): 15,706,484,224 parameters, 2.4 B active."""
    return ModelConfig(
        vocab_size=102_400,
        num_layers=27,
        embed_dim=2048,
        position=RopeConfig(theta=10_000.0, scaling=_deepseek_yarn(mscale=0.707)),
        norm=RMSNormConfig(eps=1e-6),
        attention=LatentAttentionConfig(
            num_heads=16,
            q_lora_rank=None,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
        ),
        mlp=MoeConfig(
            num_experts=64,
            experts_per_token=6,
            dim=1408,
            num_shared_experts=2,
            normalize=False,
            balance=AuxLossConfig(weight=0.001),
        ),
        dense_prefix=DensePrefixConfig(num_layers=1, mlp=MlpConfig(dim=10_944)),
        tie_embeddings=False,
    )


def deepseek_v3() -> ModelConfig:
    """DeepSeek-V3 (arXiv:2412.19437): 671,026,419,200 parameters, 37 B of them active.

    Without the multi-token prediction module that is released beside it.
    """
    return ModelConfig(
        vocab_size=129_280,
        num_layers=61,
        embed_dim=7168,
        position=RopeConfig(theta=10_000.0, scaling=_deepseek_yarn(mscale=1.0)),
        norm=RMSNormConfig(eps=1e-6),
        attention=LatentAttentionConfig(
            num_heads=128,
            q_lora_rank=1536,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
        ),
        mlp=MoeConfig(
            num_experts=256,
            experts_per_token=8,
            dim=2048,
            num_shared_experts=1,
            score="sigmoid",
            normalize=True,
            weight_scale=2.5,
            num_groups=8,
            groups_per_token=4,
            balance=BiasConfig(update_rate=1e-3, loss_weight=1e-4),
        ),
        dense_prefix=DensePrefixConfig(num_layers=3, mlp=MlpConfig(dim=18_432)),
        tie_embeddings=False,
    )


def _deepseek_yarn(*, mscale: float) -> YarnScaling:
    """From the 4k tokens of pretraining to 160k, as both models were released."""
    return YarnScaling(
        factor=40.0,
        beta_fast=32.0,
        beta_slow=1.0,
        original_max_tokens=4096,
        mscale=mscale,
        mscale_all_dim=mscale,
    )


def gemma_2_2b() -> ModelConfig:
    """Gemma 2 2B (arXiv:2408.00118): 2,614,341,888 parameters."""
    return _gemma_2(
        num_layers=26, embed_dim=2304, num_heads=8, num_kv_heads=4, mlp_dim=9216
    )


def gemma_2_9b() -> ModelConfig:
    """Gemma 2 9B (arXiv:2408.00118): 9,241,705,984 parameters."""
    return _gemma_2(
        num_layers=42, embed_dim=3584, num_heads=16, num_kv_heads=8, mlp_dim=14_336
    )


def _gemma_2(
    *, num_layers: int, embed_dim: int, num_heads: int, num_kv_heads: int, mlp_dim: int
) -> ModelConfig:
    return ModelConfig(
        vocab_size=256_000,
        num_layers=num_layers,
        embed_dim=embed_dim,
        position=RopeConfig(theta=10_000.0),
        norm=RMSNormConfig(eps=1e-6, scale_offset=1.0),
        norm_placement="pre_and_post",
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=256,
            soft_cap=50.0,
            query_scale=256**-0.5,
            pattern=("local", "global"),
            window_tokens=4096,
        ),
        mlp=MlpConfig(kind="geglu", dim=mlp_dim),
        tie_embeddings=True,
        embed_scale="sqrt_dim",
        final_soft_cap=30.0,
    )


def gemma_3_1b() -> ModelConfig:
    """Gemma 3 1B, text only (arXiv:2503.19786): 999,885,952 parameters."""
    norm = RMSNormConfig(eps=1e-6, scale_offset=1.0)
    return ModelConfig(
        vocab_size=262_144,
        num_layers=26,
        embed_dim=1152,
        position=RopeConfig(theta=1_000_000.0, local_theta=10_000.0),
        norm=norm,
        norm_placement="pre_and_post",
        attention=AttentionConfig(
            num_heads=4,
            num_kv_heads=1,
            head_dim=256,
            qk_norm=norm,
            query_scale=256**-0.5,
            pattern=("local", "local", "local", "local", "local", "global"),
            window_tokens=512,
        ),
        mlp=MlpConfig(kind="geglu", dim=6912),
        tie_embeddings=True,
        embed_scale="sqrt_dim",
    )


FAMILIES = {
    fn.__name__: fn
    for fn in (
        gpt2_124m,
        llama_2_7b,
        llama_3_8b,
        llama_3_1_8b,
        mistral_7b,
        qwen_2_0_5b,
        qwen_2_7b,
        qwen_3_0_6b,
        qwen_3_8b,
        mixtral_8x7b,
        qwen_3_30b_a3b,
        deepseek_v2_lite,
        deepseek_v3,
        gemma_2_2b,
        gemma_2_9b,
        gemma_3_1b,
    )
}
