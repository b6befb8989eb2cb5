# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import gzip
import itertools
import json
import os

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from podium.preparation import readers
from podium.preparation.sources import find_units

FIXTURE = [hypothesis.HealthCheck.function_scoped_fixture]


def _units(path, limit=1 << 20):
    return find_units(
        [str(path)],
        text_key="text",
        max_document_bytes=limit,
        data_dir=None,
        leave_out=(),
    )


def _read(path, limit=1 << 20):
    return [
        item
        for unit in _units(path, limit)
        for item in readers.read_unit(unit, text_key="text", max_document_bytes=limit)
    ]


def _texts(items):
    return [item.text for item in items if item.text is not None]


def _reasons(items):
    return [(item.number, item.reason) for item in items if item.reason]


def test_a_text_file_is_one_document_byte_for_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("tab\tand\r\nreturn, é\n\n".encode())
    assert _texts(_read(path)) == ["tab\tand\r\nreturn, é\n\n"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert _texts(_read(path)) == ["hello"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"caf\xe9", "not UTF-8"),
        (b" \n\t", "empty"),
        (b"\x7fELF\0\0", "binary"),
        (b"\xff\xfea\0", "binary"),  # UTF-16
    ],
)
def test_a_file_that_is_no_text_has_a_reason(tmp_path, raw, reason):
    path = tmp_path / "a"
    path.write_bytes(raw)
    assert _reasons(_read(path)) == [(0, reason)]


def test_a_file_that_went_away_or_changed_since_the_scan_has_a_reason(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    (unit,) = _units(path)
    path.write_text("hello, longer")
    keys = {"text_key": "text", "max_document_bytes": 100}
    assert _reasons(readers.read_unit(unit, **keys)) == [(0, "changed")]
    path.unlink()
    assert _reasons(readers.read_unit(unit, **keys)) == [(0, "unreadable")]
    path.mkdir()
    assert _reasons(readers.read_unit(unit, **keys))[0][1] in ("unreadable", "changed")
    path.rmdir()
    os.mkfifo(path)  # must not hang
    assert _reasons(readers.read_unit(unit, **keys)) == [(0, "changed")]


@hypothesis.given(
    st.text(st.sampled_from("ab\né中🙂"), min_size=1, max_size=60), st.integers(4, 20)
)
@hypothesis.settings(max_examples=300, deadline=None, suppress_health_check=FIXTURE)
def test_pieces_of_a_file_put_together_are_the_file(tmp_path, text, limit):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    items = _read(path, limit)
    pieces = [item.text for item in items if item.text]
    blank = [item for item in items if item.reason]
    assert {item.reason for item in blank} <= {"empty"}
    if not blank:
        assert "".join(pieces) == text
    assert sum(item.starts_document for item in items if item.text) <= 1


def test_pieces_end_at_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    lines = [f"line {i}\n" for i in range(100)]
    path.write_text("".join(lines))
    pieces = _texts(_read(path, 64))
    assert len(pieces) > 5
    assert all(piece.endswith("\n") for piece in pieces)
    assert "".join(pieces) == "".join(lines)


def test_only_the_first_piece_starts_a_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("line\n" * 100)
    assert [i.starts_document for i in _read(path, 200)] == [True, False, False]


def test_jsonl_gives_its_lines_and_reasons_for_the_others(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "one"}',
        b"",
        b"{broken",
        b'{"body": "no key"}',
        b'{"text": 7}',
        b"[1]",
        b'{"text": "caf\xe9"}',
        b'{"text": "\\ud800"}',
        b'{"text": "  "}',
        b"[" * 100_000,
        b'{"text": "last \\u00e9", "more": 1}',
    ]
    path.write_bytes(b"\n".join(lines))  # no line end behind the last
    items = _read(path)
    assert _texts(items) == ["one", "last é"]
    assert _reasons(items) == [
        (2, "invalid JSON"),
        (3, "no text"),
        (4, "no text"),
        (5, "no text"),
        (6, "not UTF-8"),
        (7, "not UTF-8"),
        (8, "empty"),
        (9, "invalid JSON"),
    ]
    assert items[-1].number == 10


def test_a_gzipped_jsonl_is_read_and_a_short_one_gives_what_it_holds(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    lines = [json.dumps({"text": os.urandom(600).hex()}) for _ in range(50)]
    raw = gzip.compress("\n".join(lines).encode())
    path.write_bytes(raw)
    assert len(_texts(_read(path))) == 50
    path.write_bytes(raw[: len(raw) // 2])
    items = _read(path)
    assert 0 < len(_texts(items)) < 50
    assert _reasons(items) == [(len(_texts(items)), "corrupt gzip")]


def test_a_line_beyond_the_limit_is_skipped_and_the_next_one_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
    lines = [json.dumps({"text": text}) for text in ("a", "b" * 1000, "c")]
    for name, write in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(write("\n".join(lines).encode()))
        items = _read(tmp_path / name)
        assert _texts(items) == ["a", "c"]
        assert _reasons(items) == [(1, "line too long")]
        assert items[-1].number == 2
    (unit,) = _units(tmp_path / "a.jsonl")
    halves = [(0, 500), (500, unit.stop)]  # the border lies in the long line
    first, second = (
        [
            item.text
            for item in readers.read_unit(
                dataclasses.replace(unit, start=start, stop=stop),
                text_key="text",
                max_document_bytes=1000,
            )
        ]
        for start, stop in halves
    )
    assert (first, second) == (["a", None], ["c"])


@hypothesis.given(
    st.lists(st.text(st.sampled_from("aé🙂"), max_size=9), min_size=1, max_size=9),
    st.data(),
)
@hypothesis.settings(max_examples=200, deadline=None, suppress_health_check=FIXTURE)
def test_a_jsonl_cut_anywhere_gives_every_line_once(tmp_path, texts, data):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": "x" + t}, ensure_ascii=False) for t in texts]
    path.write_bytes("\n".join(lines).encode())
    (unit,) = _units(path)
    cuts = data.draw(st.lists(st.integers(1, unit.stop - 1), max_size=4))
    borders = [0, *sorted(set(cuts)), unit.stop]
    items = [
        item
        for start, stop in itertools.pairwise(borders)
        for item in readers.read_unit(
            dataclasses.replace(unit, start=start, stop=stop),
            text_key="text",
            max_document_bytes=1000,
        )
    ]
    assert _texts(items) == ["x" + t for t in texts]
    assert sum(item.read_bytes for item in items) == unit.stop


def test_a_long_json_text_comes_in_pieces_of_one_item(tmp_path):
    path = tmp_path / "a.jsonl"
    text = "line\n" * 100
    path.write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "b"}))
    items = _read(path, 200)
    assert "".join(_texts(items[:-1])) == text
    assert [(i.number, i.starts_document) for i in items] == [
        (0, True),
        (0, False),
        (0, False),
        (1, True),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_parquet_rows_are_documents(tmp_path, kind):
    path = tmp_path / "a.parquet"
    values = ["one", None, "", "zwei é"]
    raw = [v.encode() if v is not None and kind == pa.binary() else v for v in values]
    table = pa.table({"id": [1, 2, 3, 4], "text": pa.array(raw, kind)})
    pq.write_table(table, path)
    items = _read(path)
    assert _texts(items) == ["one", "zwei é"]
    assert _reasons(items) == [(1, "no text"), (2, "empty")]


def test_parquet_with_bytes_that_are_no_text_or_no_strings_has_reasons(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([b"ok", b"\xff"], pa.binary())}), path)
    assert _reasons(_read(path)) == [(1, "not UTF-8")]
    pq.write_table(pa.table({"text": [1, 2]}), path)
    (item,) = _read(path)
    assert (item.reason, item.detail) == ("no text", "column 'text' is int64")


def test_parquet_with_a_dictionary_column_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"text": column}), path)
    assert _texts(_read(path)) == ["a", "b", "a"]


def test_damaged_parquet_pages_cost_a_row_group_and_not_the_run(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [os.urandom(50).hex() for _ in range(100)]})
    pq.write_table(table, path, row_group_size=50, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[40:1000] = os.urandom(960)  # pages of the first row group
    path.write_bytes(raw)
    items = _read(path)
    assert len(_texts(items)) == 50
    assert _reasons(items) == [(0, "corrupt Parquet")]
