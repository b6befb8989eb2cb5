# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A config.json as it is read: nothing in it is passed over in silence.

Every field is either taken, harmless, or an error that names it: a field that changes
what the model computes and that nobody read would make a model that is almost right.
"""

from typing import Any

from podium.config_dict import shown
from podium.errors import ConfigError

Tree = dict[str, Any]
_REQUIRED: Any = object()

# What says nothing about the forward pass, in any family.
HARMLESS = frozenset(
    """
    _name_or_path architectures attention_dropout attn_pdrop auto_map aux_loss_alpha
    bad_words_ids begin_suppress_tokens bos_token_id cache_implementation
    chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id ep_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id id2label initializer_factor initializer_range
    is_llama_config keys_to_ignore_at_inference label2id length_penalty max_length
    max_position_embeddings min_length model_type n_ctx no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_router_logits output_scores pad_token_id prefix
    pretraining_tp problem_type remove_invalid_values reorder_and_upcast_attn
    repetition_penalty resid_pdrop return_dict return_dict_in_generate
    router_jitter_noise sep_token_id seq_aux summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    suppress_tokens task_specific_params temperature tokenizer_class top_k top_p
    torch_dtype transformers.js_config transformers_version typical_p unsloth_fixed
    unsloth_version use_cache
    """.split()  # noqa: SIM905 (a page long as a list)
)


class Fields:
    """The fields of a config.json, each to be taken once."""

    def __init__(self, tree: Tree, family: str, where: str = "config.json"):
        self.family, self.where = family, where
        self._tree, self._left = tree, dict(tree)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of a field. Raises ConfigError where one without default lacks."""
        if name not in self._tree and default is _REQUIRED:
            raise ConfigError(
                f"{self.where}: {name!r} is missing, which {self.family} models have"
            )
        self._left.pop(name, None)
        return self._tree.get(name, default)

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        """As `take`, of a field that is a number."""
        value = self.take(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and value is not default:
            raise ConfigError(
                f"{self.where}: {name!r} is {shown(value)}; expected a number"
            )
        return value

    def only(self, name: str, *allowed: Any, default: Any = _REQUIRED) -> Any:
        """As `take`, of a field for which we support these values alone."""
        value = self.take(name, default)
        if value not in allowed and value is not default:
            raise ConfigError(
                f"{self.where}: {name!r} is {shown(value)}, which is not supported for "
                f"{self.family}; supported: {', '.join(map(repr, allowed))}"
            )
        return value

    def inside(self, name: str, tree: Any) -> "Fields":
        """The fields of an object that is a field's value."""
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{self.where}: {name!r} is {shown(tree)}; expected an object"
            )
        return Fields(tree, self.family, f"{self.where}: {name}")

    def done(self) -> None:
        """Raises ConfigError for a field that nobody took and that is switched on."""
        for name, value in self._left.items():
            if name in HARMLESS or not value:
                continue
            raise ConfigError(
                f"{self.where}: the field {name!r} ({shown(value)}) is not supported for "
                f"{self.family}: what it changes in the model would be lost"
            )
