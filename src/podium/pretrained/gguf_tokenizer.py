# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer in a GGUF's metadata -> the files of a model folder of transformers.

A GGUF holds tokens, merges and the name of a way to cut text into words; the ways are
those of llama.cpp's `llm_tokenizer_bpe`, in the words of the models' own tokenizer.json.
"""

import json
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from podium.errors import DataError
from podium.pretrained import side_files
from podium.pretrained.gguf_file import GgufFile
from podium.tokenizer import TOKENIZER_FILE

_AT = "tokenizer.ggml."
_CONTROL, _USER_DEFINED = 3, 4  # of token_type
_LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class _Way(NamedTuple):
    """How text is cut before the merges, by the name in `tokenizer.ggml.pre`."""

    words: Any  # a pre-tokenizer
    ignore_merges: bool = False  # a word that is a token is taken whole
    adds_bos: bool = False  # where the metadata do not say


def _ways() -> dict[str, _Way]:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    llama_3 = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return {
        "gpt-2": _Way(words),
        "smollm": _Way(pre_tokenizers.Sequence([digits, words])),
        "llama-bpe": _Way(llama_3, ignore_merges=True, adds_bos=True),
    }


def tokenizer_files(file: GgufFile) -> dict[str, dict[str, Any]]:
    """tokenizer.json, tokenizer_config.json and generation_config.json by name.

    Raises DataError for a tokenizer that is not a byte-level BPE of a known way to cut
    words, or that is damaged.
    """
    meta = _Metadata(file)
    kind = meta.of("model")
    if kind != "gpt2":
        raise DataError(
            f"{file.path}: {_AT}model is {kind!r}, which is not supported; supported: "
            "'gpt2', byte-level BPE"
        )
    tokens = meta.of("tokens")
    tok, adds_bos = _tokenizer(meta, tokens)
    named = {
        name: meta.token(f"{key}_token_id", tokens)
        for name, key in (
            *(("bos", "bos"), ("eos", "eos")),
            *(("unk", "unknown"), ("pad", "padding")),
        )
    }
    if named["eos"] is None:
        raise DataError(f"{file.path}: {_AT}eos_token_id is missing")
    before = [named["bos"]] if adds_bos and named["bos"] is not None else []
    after = [named["eos"]] if meta.of("add_eos_token", False) else []
    if before or after:
        tok.post_processor = _borders(tokens, before, after)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, i in named.items():
        if i is not None:
            config[f"{name}_token"] = tokens[i]
    config["clean_up_tokenization_spaces"] = False
    if template := file.metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return {
        TOKENIZER_FILE: json.loads(tok.to_str()),
        side_files.TOKENIZER_CONFIG: config,
        side_files.GENERATION: token_ids(file),
    }


def token_ids(file: GgufFile) -> dict[str, Any]:
    """Special tokens as config.json and generation_config.json name them.

    A text ends at eos, and at the end of a turn where that is another token.
    """
    meta = _Metadata(file)
    eos = [meta.of(f"{key}_token_id", None) for key in ("eos", "eot", "eom")]
    ids = {
        "bos_token_id": meta.of("bos_token_id", None),
        "eos_token_id": list(dict.fromkeys(i for i in eos if i is not None)),
        "pad_token_id": meta.of("padding_token_id", None),
    }
    if len(ids["eos_token_id"]) == 1:
        (ids["eos_token_id"],) = ids["eos_token_id"]
    return {key: value for key, value in ids.items() if value is not None}


class _Metadata:
    """The fields `tokenizer.ggml.*`."""

    def __init__(self, file: GgufFile):
        self._file = file

    def of(self, name: str, *default: Any) -> Any:
        """A field. Raises DataError where one without default lacks."""
        found = self._file.metadata
        if _AT + name not in found and not default:
            raise self.wrong(f"{_AT}{name} is missing")
        return found.get(_AT + name, *default)

    def token(self, name: str, tokens: list[str]) -> int | None:
        """A field that is the id of a token."""
        i = self.of(name, None)
        if i is not None and not 0 <= i < len(tokens):
            raise self.wrong(f"{_AT}{name} is {i}; there are {len(tokens):,} tokens")
        return i

    def wrong(self, what: str) -> DataError:
        return DataError(f"{self._file.path}: {what}")


def _tokenizer(meta: _Metadata, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer without its post-processor, and whether texts begin with bos."""
    pre, ways = meta.of("pre", "default"), _ways()
    if pre not in ways:
        raise meta.wrong(
            f"{_AT}pre is {pre!r}, which is not supported; supported: "
            f"{', '.join(map(repr, ways))}"
        )
    way = ways[pre]
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
        raise meta.wrong(f"{_AT}tokens has {twice!r} twice")
    kinds = meta.of("token_type", [1] * len(tokens))
    if len(kinds) != len(tokens):
        raise meta.wrong(
            f"{_AT}token_type has {len(kinds):,} entries for {len(tokens):,} tokens"
        )
    merges = [tuple(merge.split(" ")) for merge in meta.of("merges")]
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise meta.wrong(f"{_AT}merges has {' '.join(wrong[0])!r}; expected two tokens")
    try:
        model = models.BPE(ids, merges, ignore_merges=way.ignore_merges)
    except Exception as error:  # the library raises bare Exception
        raise meta.wrong(f"{_AT}merges do not fit the tokens: {error}") from error
    tok = tokenizers.Tokenizer(model)
    tok.pre_tokenizer, tok.decoder = way.words, decoders.ByteLevel()
    tok.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tok, meta.of("add_bos_token", way.adds_bos)


def _borders(tokens: list[str], before: list[int], after: list[int]) -> Any:
    """Puts these tokens around a text."""
    names = [*(tokens[i] for i in before), "$A", *(tokens[i] for i in after)]
    pair = [*names, *(f"{name.replace('$A', '$B')}:1" for name in names)]
    special = [(tokens[i], i) for i in dict.fromkeys((*before, *after))]
    return processors.TemplateProcessing(
        single=names, pair=pair, special_tokens=special
    )
