# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes chat.json: what `transformers` makes of conversations in chat templates.

python -m tests.golden.make_chat     (an environment of its own: transformers>=5,<6)

Text, ids and the mask of the assistant's tokens are of apply_chat_template alone, for
templates with {% generation %} in them.
"""

import json
import pathlib

import tokenizers
import transformers
from jinja2 import TemplateError
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from tests.golden.chat_templates import CONVERSATIONS, SPECIAL_TOKENS, TEMPLATES


def small_tokenizer(kind: str) -> tokenizers.Tokenizer:
    """A BPE of a few hundred tokens, learned from the templates and this file."""
    tok = tokenizers.Tokenizer(models.BPE(byte_fallback=kind == "spm"))
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "spm":
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tok.decoder = decoders.Metaspace(prepend_scheme="first")
        special += [f"<0x{i:02X}>" for i in range(256)]
        alphabet = []
    else:
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 420,
        special_tokens=special,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    here = pathlib.Path(__file__)
    lines = [here.read_text(), here.with_name("chat_templates.py").read_text()]
    tok.train_from_iterator(lines, trainer)
    return tok


def main() -> None:
    """Writes the file and prints its size."""
    out = {"transformers": transformers.__version__, "tokenizers": {}, "rows": []}
    for kind in ("bytelevel", "spm"):
        tok = small_tokenizer(kind)
        out["tokenizers"][kind] = json.loads(tok.to_str())
        for name, (_, tagged, bos, eos) in TEMPLATES.items():
            fast = transformers.PreTrainedTokenizerFast(
                tokenizer_object=tok, bos_token=bos, eos_token=eos
            )
            fast.chat_template = tagged
            for number, messages in enumerate(CONVERSATIONS):
                row = {"tokenizer": kind, "template": name, "conversation": number}
                try:
                    text = fast.apply_chat_template(messages, tokenize=False)
                    prompt = fast.apply_chat_template(
                        messages, tokenize=False, add_generation_prompt=True
                    )
                    found = fast.apply_chat_template(
                        messages, return_dict=True, return_assistant_tokens_mask=True
                    )
                except TemplateError as error:
                    out["rows"].append({**row, "error": str(error)})
                    continue
                row |= {"text": text, "prompt": prompt, "ids": found["input_ids"]}
                out["rows"].append({**row, "mask": found["assistant_masks"]})
    path = pathlib.Path(__file__).with_name("chat.json")
    path.write_text(json.dumps(out, ensure_ascii=False) + "\n")
    print(f"{path}: {len(out['rows'])} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
