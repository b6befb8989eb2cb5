# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.errors import ConfigError
from podium.preparation.sources import find_units


def _find(*inputs, leave_out=(), limit=1000, text_key="text"):
    return find_units(
        [str(i) for i in inputs],
        text_key=text_key,
        max_document_bytes=limit,
        data_dir=None,
        leave_out=[str(p) for p in leave_out],
    )


def _names(units):
    return [os.path.basename(u.uri) for u in units]


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.txt",
        "a.py",
        "LICENSE",
        "sub/c.md",
        "sub/.hidden.txt",
        ".git/config",
        "__pycache__/x.txt",
        "lib/site-packages/y.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return tmp_path


def test_a_folder_gives_every_visible_file_in_order_of_names(tree):
    assert _names(_find(tree)) == ["LICENSE", "a.py", "b.txt", "c.md"]


def test_a_glob_gives_what_it_matches_and_a_file_itself(tree):
    assert _names(_find(tree / "**" / "*.md", tree / "a.py")) == ["c.md", "a.py"]
    assert _names(_find(tree / "s*")) == ["c.md"]


def test_a_file_named_twice_counts_once(tree):
    assert _names(_find(tree / "sub", tree / "sub" / "c.md", tree / "sub")) == ["c.md"]


def test_a_hidden_file_that_is_named_is_taken(tree):
    assert _names(_find(tree / "sub" / ".hidden.txt")) == [".hidden.txt"]


def test_the_output_inside_an_input_is_left_out(tree):
    assert _names(_find(tree, leave_out=[tree / "sub"])) == ["LICENSE", "a.py", "b.txt"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing/here", "does not exist"), ("*.nothing", "matches nothing")],
)
def test_an_input_that_is_not_there_is_an_error(tmp_path, name, says):
    with pytest.raises(ConfigError, match=says):
        _find(tmp_path / name)


def test_what_cannot_be_read_becomes_a_reject_without_being_opened(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "picture.PNG").write_bytes(b"\x89PNG")
    assert [(u.kind, u.reason, u.detail) for u in _find(tmp_path)] == [
        ("reject", "unreadable", "No such file or directory"),
        ("reject", "empty", ""),
        ("reject", "binary", ""),
        ("reject", "unreadable", "not a regular file"),
    ]


def test_folders_behind_links_are_not_entered_but_files_are(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("a")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "b.txt").symlink_to(tmp_path / "real" / "a.txt")
    assert _names(_find(tmp_path)) == ["b.txt", "a.txt"]


def test_a_long_text_is_cut_into_pieces_of_the_limit(tmp_path):
    (tmp_path / "long.txt").write_bytes(b"x" * 25)
    units = _find(tmp_path, limit=10)
    assert [(u.start, u.stop, u.size_bytes) for u in units] == [
        (0, 10, 10),
        (10, 20, 10),
        (20, 25, 5),
    ]


def test_formats_are_told_by_their_names(tmp_path):
    for name in ("a.jsonl", "b.NDJSON", "c.jsonl.gz", "d.json"):
        (tmp_path / name).write_text("{}")
    assert [u.kind for u in _find(tmp_path)] == ["jsonl", "jsonl", "jsonl_gz", "text"]


def test_parquet_gives_a_unit_a_row_group_with_its_first_row(tmp_path):
    table = pa.table({"text": ["a", "b", "c", "d", "e"]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    assert [(u.start, u.first_item) for u in _find(tmp_path)] == [
        (0, 0),
        (1, 2),
        (2, 4),
    ]


def test_parquet_without_the_column_or_damaged_is_one_reject(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    pq.write_table(
        pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet"
    )
    units = _find(tmp_path)
    assert [(u.kind, u.reason) for u in units] == [
        ("reject", "no text"),
        ("reject", "corrupt Parquet"),
        ("reject", "empty"),
    ]
    assert units[0].detail == "no column 'text'; there are body"
    assert all("\n" not in u.detail for u in units)
