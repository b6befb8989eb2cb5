# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from podium.errors import DataError
from podium.input import manifest as m
from tests.hostile import cases


def _shard(name, **changes):
    values = {
        "file": f"{name}.tfrecord",
        "index": f"{name}.index.npy",
        "records": 5,
        "documents": 4,
        "tokens": 50,
        "bytes": 6,
        "sha256": "00",
        "index_sha256": "11",
        "sources": (
            m.SourceRange(0, 3, 7, "/a/é.jsonl"),
            m.SourceRange(3, 2, 0, "/b.txt"),
        ),
    }
    return m.Shard(**values | changes)


def _manifest(**changes):
    values = {
        "tokenizer": m.TokenizerInfo(
            kind="bytes",
            vocab_size=257,
            sha256="22",
            file=None,
            bos_id=None,
            eos_id=256,
        ),
        "token_dtype": "uint16",
        "splits": {"train": (_shard("train-0"), _shard("train-1")), "eval": ()},
        "created_by": {"podium": "0", "commit": None, "command": ["x"]},
    }
    return m.Manifest(**values | changes)


@pytest.fixture
def folder(tmp_path):
    m.save_manifest(tmp_path, _manifest())
    for name in ("train-0", "train-1"):
        (tmp_path / f"{name}.tfrecord").write_bytes(b"123456")
        (tmp_path / f"{name}.index.npy").write_bytes(b"")
    return tmp_path


def _rewrite(folder, change):
    """Applies `change` to the JSON and sets the fingerprint that goes with it."""
    path = folder / m.MANIFEST_FILE
    tree = json.loads(path.read_text())
    tree = change(tree) or tree
    tree["fingerprint"] = m._fingerprint(tree)
    path.write_text(json.dumps(tree))


def test_what_was_saved_is_loaded(folder):
    loaded = m.load_manifest(folder)
    assert loaded == _manifest()
    assert loaded.fingerprint == _manifest().fingerprint
    assert loaded.num_tokens("train") == 100
    assert loaded.num_records("eval") == 0


def test_the_fingerprint_ignores_who_wrote_it_and_nothing_else():
    print_of = _manifest().fingerprint
    assert _manifest(created_by={"podium": "9"}).fingerprint == print_of
    splits = {"train": (_shard("train-0", sha256="01"),), "eval": ()}
    assert _manifest(splits=splits).fingerprint != print_of


def test_the_fingerprint_is_the_sha256_of_canonical_json(folder):
    """As another program would compute it from docs/data-format.md."""
    tree = json.loads((folder / m.MANIFEST_FILE).read_text())
    printed = tree.pop("fingerprint")
    del tree["created_by"]
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == printed


@pytest.mark.parametrize(
    ("record", "source"),
    [
        (0, ("/a/é.jsonl", 7)),
        (2, ("/a/é.jsonl", 9)),
        (3, ("/b.txt", 0)),
        (4, ("/b.txt", 1)),
    ],
)
def test_a_record_knows_its_source(record, source):
    assert _shard("s").source(record) == source


def test_a_folder_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no manifest.json.*podium.prepare --input="):
        m.load_manifest(tmp_path)


def test_an_edited_manifest_is_an_error(folder):
    path = folder / m.MANIFEST_FILE
    path.write_text(path.read_text().replace('"tokens": 50', '"tokens": 51', 1))
    with pytest.raises(DataError, match="was changed after it was written"):
        m.load_manifest(folder)


def test_a_later_format_is_an_error_that_names_both_versions(folder):
    _rewrite(folder, lambda tree: tree | {"format_version": 3})
    with pytest.raises(DataError, match="format_version 3; this podium reads 1 and 2"):
        m.load_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "train-0.tfrecord").write_bytes(b"12345"), "5 bytes.* says 6"),
        (lambda f: (f / "train-1.tfrecord").unlink(), "No such file"),
        (lambda f: (f / "train-1.index.npy").unlink(), "No such file"),
        (lambda f: (f / m.MANIFEST_FILE).write_bytes(b"{"), "not valid JSON"),
        (lambda f: (f / m.MANIFEST_FILE).write_bytes(b"\xff"), "not valid JSON"),
        (lambda f: (f / m.MANIFEST_FILE).write_text("[" * 99_999), "not valid JSON"),
        (lambda f: (f / m.MANIFEST_FILE).write_text("[]"), "not a manifest"),
    ],
)
def test_damaged_folders_are_one_line_errors(folder, damage, says):
    damage(folder)
    with pytest.raises(DataError, match=says) as caught:
        m.load_manifest(folder)
    assert "\n" not in str(caught.value)


def _set(tree, path, value):
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("token_dtype",), "uint32", "needs uint16"),
        (("token_dtype",), "int64", "unexpected value 'int64'"),
        (("tokenizer", "eos_id"), 257, "beyond vocab_size"),
        (("tokenizer", "eos_id"), None, "unexpected value 'None'"),
        (("tokenizer", "file"), "tokenizer.json", "bytes with file"),
        (("tokenizer", "kind"), "magic", "unexpected value 'magic'"),
        (("splits",), {"train": []}, "splits are"),
        (("splits", "train", 0, "file"), "../secret", "not a plain file name"),
        (("splits", "train", 0, "index"), "", "not a plain file name"),
        (("splits", "train", 0, "records"), 6, "sources and records disagree"),
        (("splits", "train", 0, "documents"), 6, "sources and records disagree"),
        (("splits", "train", 0, "records"), -1, "unexpected value '-1'"),
        (("splits", "train", 0, "records"), True, "unexpected value 'True'"),
        (("splits", "train", 0, "sources", 1, 0), 4, "leave out a record"),
        (("splits", "train", 0, "color"), "red", "unknown keys 'color'"),
    ],
)
def test_contents_that_contradict_are_errors_with_their_place(
    folder, path, value, says
):
    _rewrite(folder, lambda tree: _set(tree, path, value))
    with pytest.raises(DataError, match=says) as caught:
        m.load_manifest(folder)
    assert "manifest.json" in str(caught.value)


def _load(folder):
    """The manifest, or the message of the DataError."""
    try:
        return m.load_manifest(folder), ""
    except DataError as error:
        return None, str(error)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["file", "splits", "train", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@hypothesis.given(st.data())
@cases(1500)
def test_any_value_anywhere_loads_or_is_a_data_error(folder, data):
    """With the right fingerprint, so that the checks behind it are reached."""
    path = folder / m.MANIFEST_FILE
    tree = json.loads(json.dumps(_manifest().to_json()))
    at = tree
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        inner = at[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            at = inner
            continue
        at[key] = data.draw(_JSON)
        break
    try:
        tree["fingerprint"] = m._fingerprint(tree)
    except ValueError:
        tree["fingerprint"] = ""
    path.write_text(json.dumps(tree))
    loaded, message = _load(folder)
    assert isinstance(loaded, m.Manifest) or (message and "\n" not in message)


@hypothesis.given(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 5))
@cases(1200)
def test_damaged_bytes_of_a_manifest_are_a_data_error(folder, at, new, removed):
    path = folder / m.MANIFEST_FILE
    m.save_manifest(folder, _manifest())
    raw = path.read_bytes()
    at %= len(raw)
    path.write_bytes(raw[:at] + new + raw[at + removed :])
    loaded, message = _load(folder)
    if loaded:  # spaces and `created_by` may change without harm
        assert loaded.fingerprint == _manifest().fingerprint
    else:
        assert "\n" not in message
