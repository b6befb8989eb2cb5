# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model too small for its tokenizer is told so before the text is read."""

from pathlib import Path

import pytest

from launch import checks
from podium import cli, train
from podium.errors import ConfigError
from podium.text_tokens import check_text_tokens
from podium.tokenizer import train_bpe


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe(["some words and some more words"], 260).save(folder)
    return folder / "tokenizer.json"


def config(**settings):
    return cli.load_config("configs/quickstart.py", settings)


@pytest.mark.parametrize(
    ("given", "rows", "tokens"),
    [("bytes", 256, 257), ("bpe:1024", 1000, 1024), (None, 259, 260)],
)
def test_a_model_with_too_few_rows_is_refused(given, rows, tokens, tokenizer):
    name = given or str(tokenizer)
    settings = {"data.tokenizer": name, "model.vocab_size": str(rows)}
    with pytest.raises(
        ConfigError, match=f"--config.model.vocab_size={tokens} or more"
    ):
        check_text_tokens(config(**settings))
    check_text_tokens(config(**settings | {"model.vocab_size": str(tokens)}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bpe:many", "expected a size"),
        ("bpe:9", "at least 257"),
        ("no.json", "no such"),
    ],
)
def test_a_tokenizer_that_is_none_is_named(name, message):
    with pytest.raises(ConfigError, match=f"--config.data.tokenizer={name}: {message}"):
        check_text_tokens(config(**{"data.tokenizer": name}))


def test_gold_data_has_a_tokenizer_of_its_own():
    check_text_tokens(config(**{"data.paths": "gold", "model.vocab_size": "9"}))


def test_training_says_so_before_it_prepares_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "prepare_text", lambda *_: pytest.fail("prepared"))
    with pytest.raises(ConfigError, match="vocab_size=1024 or more"):
        train.make_data(config(**{"model.vocab_size": "9"}), tmp_path, is_resumed=False)


def test_a_job_has_no_tokenizer_from_outside_the_checkout(tokenizer):
    cfg = config(**{"data.tokenizer": str(tokenizer)})
    with pytest.raises(ConfigError, match=r"data.tokenizer is .* outside the checkout"):
        checks.check_text(cfg, {}, Path())
