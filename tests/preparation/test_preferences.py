# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of answers -> two sequences with one loss mask."""

import re

import numpy as np
import pytest

from podium.preparation.chat import TemplateMisfitError
from podium.preparation.conversations import RefusedError
from tests.golden.chat_templates import CONVERSATIONS
from tests.preparation.test_chat import SAID, UINT16, encoder, ids_and_mask

OTHER = [SAID[0], {"role": "assistant", "content": "c d e"}]


def sides_of(encoded):
    """[(ids, mask)] of both sequences."""
    ids, mask = ids_and_mask(encoded)
    at = mask.index(2)
    return [(ids[:at], mask[:at]), (ids[at:], [0, *mask[at + 1 :]])]


def test_both_sides_are_the_conversations_they_are():
    chosen, rejected = (
        ids_and_mask(encoder().encode({"messages": m}, UINT16)) for m in (SAID, OTHER)
    )
    pairs = encoder(records="preferences")
    for line in (
        {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": OTHER[1:]},
        {"messages": SAID[:1], "chosen": SAID[1:], "rejected": OTHER[1:]},
        {"chosen": SAID, "rejected": OTHER},
    ):
        found = pairs.encode(line, UINT16)
        assert sides_of(found) == [chosen, rejected]
        assert found.key.endswith("<|im_start|>assistant\n")


def test_an_answer_in_the_prompt_is_context():
    before = CONVERSATIONS[0]
    line = {"prompt": [*before, SAID[0]], "chosen": SAID[1:], "rejected": OTHER[1:]}
    whole = encoder().encode({"messages": [*before, *SAID]}, UINT16)
    (ids, mask), _ = sides_of(encoder(records="preferences").encode(line, UINT16))
    assert ids == ids_and_mask(whole)[0]
    assert 0 < sum(mask) < sum(ids_and_mask(whole)[1])
    assert mask[-3:] == ids_and_mask(whole)[1][-3:]


def test_texts_are_taken_as_they_are_and_ended_as_documents():
    pairs = encoder(template=None, records="preferences", eos="<|endoftext|>")
    line = {"prompt": "What is", "chosen": " a list", "rejected": " it"}
    found = pairs.encode(line, UINT16)
    assert found.key == "What is"
    tok = pairs._tokenizer
    for (ids, mask), answer in zip(sides_of(found), (" a list", " it"), strict=True):
        assert (
            tok.decode(ids, skip_special_tokens=False)
            == f"What is{answer}<|endoftext|>"
        )
        scored = np.array(ids)[np.array(mask) == 1].tolist()
        assert tok.decode(scored, skip_special_tokens=False) == f"{answer}<|endoftext|>"


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ({"prompt": "a", "chosen": "b"}, "no pair", "no key 'rejected'; there are"),
        ({"messages": SAID}, "no pair", "no key 'chosen'"),
        ({"chosen": "a", "rejected": "b"}, "no pair", "neither all texts nor messages"),
        (
            {"prompt": "a", "chosen": SAID, "rejected": OTHER},
            "no pair",
            "neither all texts",
        ),
        ({"chosen": SAID[1:], "rejected": OTHER[1:]}, "no pair", "begin apart"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            "same answers",
            "same tokens",
        ),
        ({"prompt": SAID, "chosen": SAID[:1], "rejected": OTHER[1:]}, "no answer", ""),
        ({"chosen": SAID, "rejected": OTHER, "tools": [1]}, "tools", "not supported"),
    ],
)
def test_a_line_that_is_no_pair_says_why(line, reason, detail):
    with pytest.raises(RefusedError) as refused:
        encoder(records="preferences").encode(line, UINT16)
    assert refused.value.reason == reason
    assert re.search(detail, refused.value.detail)


def test_messages_need_a_template():
    with pytest.raises(TemplateMisfitError, match="no chat template beside"):
        encoder(template=None, records="preferences").encode(
            {"chosen": SAID, "rejected": OTHER}, UINT16
        )
