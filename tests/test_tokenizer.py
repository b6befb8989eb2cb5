# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from podium import tokenizer as t
from podium.errors import ConfigError, DataError
from podium.input.manifest import Manifest, save_manifest, token_dtype_for

TEXTS = [
    "def f(x):\n    return x + 1  # it's 'quoted'\n\n\nclass A:\n\tpass\n" * 3,
    "The quick brown fox, 12345 jumps; the lazy dog's tail.\r\n" * 3,
    "Ünïcödé 中文字 русский текст 🙂\u00a0\u2003wide\u3000spaces\u0085.\n" * 3,
]


@pytest.fixture(scope="module")
def bpe():
    return t.train_bpe(TEXTS, 370)


def _names(tokens, **kwargs):
    """A word-level tokenizer whose special tokens are `tokens`."""
    vocab = {"a": 0, "b": 1, "[UNK]": 2}
    tok = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.add_special_tokens(list(tokens))
    if kwargs:
        ids = [(name, tok.token_to_id(name)) for name in tokens]
        tok.post_processor = processors.TemplateProcessing(special_tokens=ids, **kwargs)
    return tok


def _save(tok, folder):
    path = folder / "tokenizer.json"
    tok.save(str(path))
    return path


def test_bytes_are_their_own_ids_and_256_ends_a_document():
    tok = t.bytes_tokenizer()
    assert (tok.vocab_size, tok.eos_id, tok.bos_id, tok.kind) == (
        257,
        256,
        None,
        "bytes",
    )
    assert tok.encode("é!") == [0xC3, 0xA9, 0x21]
    assert tok.encode_document("a") == [97, 256]
    assert tok.decode([0xC3, 0xA9, 256]) == "é"


def test_a_trained_bpe_has_the_size_asked_for_and_one_special_token(bpe):
    assert bpe.vocab_size == 370
    assert bpe.encode_document("")[-1] == bpe.eos_id
    assert bpe.kind == "bpe"


@pytest.mark.parametrize("text", TEXTS)
def test_a_trained_bpe_gives_text_back_and_shortens_it(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert len(ids) < len(text.encode())


def test_training_does_not_depend_on_order_or_threads(bpe):
    code = (
        "import sys, json; from podium.tokenizer import train_bpe; "
        "print(train_bpe(json.load(sys.stdin), 370).sha256)"
    )
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(TEXTS[::-1]),
            env={"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == bpe.sha256


def test_too_little_text_for_the_vocabulary_is_an_error_with_a_size_that_works():
    with pytest.raises(ConfigError, match=r"bpe:9999: the text gives only \d+ tokens"):
        t.train_bpe(["some text"], 9999)
    with pytest.raises(ConfigError, match="at least 257"):
        t.train_bpe(["some text"], 256)


def test_text_that_spells_a_special_token_is_ordinary_text(bpe):
    text = f"a{t.END_OF_TEXT}b"
    assert bpe.eos_id not in bpe.encode(text)
    assert bpe.decode(bpe.encode(text)) == text


_ODD = st.text(
    st.sampled_from(
        " \n\t\r\v\f\x1c\x85\xa0\u2003\u3000\u180e'sdrevlmtAz09_!(\x00é中²½🙂"
    )
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


@hypothesis.given(_ODD)
@hypothesis.settings(max_examples=300, deadline=None)
def test_encoding_by_words_gives_the_ids_of_the_library(bpe, text):
    library = bpe._tokenizer.encode(text, add_special_tokens=False).ids
    assert bpe.encode(text) == library


def test_every_kind_of_white_space_is_cut_where_the_library_cuts(bpe):
    spaces = [chr(c) for c in range(0x3100) if chr(c).isspace() or c < 0xB0]
    for pattern in ("a{0}b", "  {0}x\n{0}\n {0}\n\nz{0}  {0}", "!{0}!'{0}s 1{0}2"):
        texts = [pattern.format(c) for c in spaces]
        library = bpe._tokenizer.encode_batch(texts, add_special_tokens=False)
        assert bpe.encode_batch(texts) == [x.ids for x in library]


@pytest.mark.parametrize("word", ["quick", " brown", "12345", " '", "():", "\n   "])
@pytest.mark.parametrize("next_character", "é中½🙂\u0301\u2003")
def test_words_that_go_on_in_unicode_are_not_cut(bpe, word, next_character):
    """The library has merged the letters of `word`, so a cut inside it would show."""
    for text in (word + next_character, f"x{word}{next_character} y"):
        library = bpe._tokenizer.encode(text, add_special_tokens=False).ids
        assert bpe.encode(text) == library


def test_a_long_text_is_encoded_like_a_short_one(bpe, monkeypatch):
    text = "\n".join(TEXTS)
    want = bpe.encode(text)
    monkeypatch.setattr("podium.tokenizer_words._CHUNK_CHARS", 7)
    monkeypatch.setattr("podium.tokenizer_words._MAX_WORDS", 3)
    monkeypatch.setattr("podium.tokenizer_words._MAX_WORD_CHARS", 4)
    bpe._words._words.clear()
    assert bpe.encode(text) == want


# The pre-tokenizer of Llama 3, as in its tokenizer.json.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_long_text_is_cut_for_the_library_only_where_that_changes_nothing(
    bpe, tmp_path, monkeypatch, is_marked
):
    tok = tokenizers.Tokenizer.from_str(bpe._tokenizer.to_str())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if is_marked:  # as Llama 2 does: every text starts with a token of its own
        tok.normalizer = normalizers.Prepend("q")
    found = t.huggingface_tokenizer(_save(tok, tmp_path))
    assert found._words is None
    text = "\n".join(TEXTS * 5)
    whole = tok.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(t, "_LONG_CHARS", 100)
    parts = list(found._parts(text))
    assert "".join(parts) == text
    assert (len(parts) > 10) == (not is_marked)
    assert found.encode(text) == whole


def test_ids_are_packed_little_endian_in_the_narrowest_type(bpe):
    (raw,) = bpe.to_bytes(["x + 1"])
    assert np.frombuffer(raw, "<u2").tolist() == bpe.encode("x + 1")
    assert (token_dtype_for(65536), token_dtype_for(65537)) == ("uint16", "uint32")


def test_a_saved_tokenizer_is_loaded_from_its_data_set(bpe, tmp_path):
    bpe.save(tmp_path)
    save_manifest(
        tmp_path,
        Manifest(
            tokenizer=bpe.info,
            token_dtype="uint16",
            splits={"train": (), "eval": ()},
            created_by={},
        ),
    )
    loaded = t.load_tokenizer(tmp_path)
    assert loaded.encode(TEXTS[0]) == bpe.encode(TEXTS[0])
    assert loaded.info == bpe.info
    raw = (tmp_path / "tokenizer.json").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == bpe.sha256
    (tmp_path / "tokenizer.json").write_bytes(raw + b" ")
    with pytest.raises(DataError, match="not the tokenizer"):
        t.load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("tok", "bos", "eos"),
    [
        (_names(["<|endoftext|>"]), None, "<|endoftext|>"),
        (_names(["<stop>"]), None, "<stop>"),
        (_names(["<s>", "</s>", "<pad>"], single="<s> $A"), "<s>", "</s>"),
        (_names(["<s>", "<stop>"], single="<s> $A <stop>"), "<s>", "<stop>"),
        (
            _names(["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
            None,
            "<|endoftext|>",
        ),
    ],
)
def test_bos_and_eos_are_found_in_a_tokenizer_json(tmp_path, tok, bos, eos):
    found = t.huggingface_tokenizer(_save(tok, tmp_path))
    assert found.eos_id == tok.token_to_id(eos)
    assert found.bos_id == (tok.token_to_id(bos) if bos else None)
    first = [] if bos is None else [found.bos_id]
    assert found.encode_document("a b") == [*first, 0, 1, found.eos_id]


def test_a_special_token_in_the_text_is_ordinary_text_for_the_library_too(tmp_path):
    found = t.huggingface_tokenizer(_save(_names(["</s>"]), tmp_path))
    assert found.encode("a </s> b") == [0, 2, 1]  # 2: unknown


def test_an_unclear_eos_is_an_error_that_says_what_to_pass(tmp_path):
    path = _save(_names(["<one>", "<two>"]), tmp_path)
    with pytest.raises(ConfigError, match=r"--eos=TOKEN.*<one>, <two>"):
        t.huggingface_tokenizer(path)
    assert t.huggingface_tokenizer(path, eos="<two>").eos_id == 4
    with pytest.raises(ConfigError, match=r"no token '<three>'.*<one>, <two>"):
        t.huggingface_tokenizer(path, eos="<three>")


def test_a_tokenizer_json_that_cuts_and_pads_does_neither_here(tmp_path):
    tok = _names(["</s>", "<pad>"])
    tok.enable_truncation(2)
    tok.enable_padding(length=8, pad_token="<pad>", pad_id=4)
    found = t.huggingface_tokenizer(_save(tok, tmp_path))
    assert found.encode("a b a b") == [0, 1, 0, 1]


def test_added_tokens_keep_the_library_in_charge(tmp_path):
    """A token that is added but not special is cut out of the text before words are."""
    tok = t.train_bpe(TEXTS, 300)._tokenizer
    tok.add_tokens(["turn x"])
    found = t.huggingface_tokenizer(_save(tok, tmp_path))
    assert found.encode("return x") == tok.encode("return x").ids
    assert 300 in found.encode("return x")


@pytest.mark.parametrize("text", ["{}", "nonsense", ""])
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"not a tokenizer.json") as caught:
        t.huggingface_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        t.huggingface_tokenizer(tmp_path / "tokenizer.json")
