# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import struct
import tempfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from podium.errors import DataError
from podium.input import records
from tests.hostile import cases

SIZES = [1, 100, 111, 112, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152]


def test_crc32c_has_its_published_check_value_and_tensorflows_mask():
    crc = 0xE3069283  # of "123456789": RFC 3720, appendix B.4 lists more
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    assert records.masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32


@pytest.mark.parametrize("size", SIZES)
def test_a_record_holds_the_tokens_where_it_says_at_every_varint_length(size):
    tokens = bytes(i % 251 for i in range(size))
    frame, payload = records.encode_record(tokens)
    assert frame[payload : payload + size] == tokens
    assert len(frame) == payload + size + records.FOOTER_BYTES
    data = records.decode_record(frame, 0, "f")
    assert data[slice(*records.token_span(data, "f"))] == tokens


def test_records_are_read_one_after_the_other():
    wanted = [b"ab", b"cd" * 100, b"ef"]
    frames = [records.encode_record(tokens)[0] for tokens in wanted]
    file = io.BytesIO(b"".join(frames))
    offset = 0
    for tokens in wanted:
        data = records.decode_record(file.getvalue(), offset, "f")
        assert data.endswith(tokens)
        offset += records.HEADER_BYTES + len(data) + records.FOOTER_BYTES
    assert offset == len(file.getvalue())


def test_read_frames_gives_every_record_and_notices_a_short_file(tmp_path):
    wanted = [b"ab", b"cd" * 100]
    raw = b"".join(records.encode_record(tokens)[0] for tokens in wanted)
    path = tmp_path / "f.tfrecord"
    path.write_bytes(raw)
    with path.open("rb") as file:
        assert [d[-2:] for d in records.read_frames(file, "f")] == [b"ab", b"cd"]
    path.write_bytes(raw[:-1])
    with path.open("rb") as file, pytest.raises(DataError, match="cut off"):
        list(records.read_frames(file, "f"))


def test_an_example_written_by_protobuf_in_another_order_is_understood():
    value = b"\x12\x06\x0a\x04\x0a\x02hi"  # value before key: allowed in protobuf
    entry = value + b"\x0a\x06tokens"
    other = b"\x0a\x01x\x12\x05\x1a\x03\x0a\x01\x07"  # an int64 feature `x`
    features = b"".join(b"\x0a" + bytes([len(e)]) + e for e in (other, entry))
    data = b"\x0a" + bytes([len(features)]) + features
    assert data[slice(*records.token_span(data, "f"))] == b"hi"


def test_an_example_without_tokens_is_an_error():
    with pytest.raises(DataError, match="0 values"):
        records.token_span(b"", "f")


def parse(path, *, token_bytes=2, **counts):
    raw = path.read_bytes()
    return records.parse_index(raw, str(path), token_bytes=token_bytes, **counts)


@pytest.fixture
def index_file(tmp_path):
    frames = [records.encode_record(b"\1\0" * n) for n in (3, 1, 200)]
    entries, at = [], 0
    for (frame, payload), n in zip(frames, (3, 1, 200), strict=True):
        entries.append((at, at + payload, n))
        at += len(frame)
    path = tmp_path / "i.npy"
    np.save(path, np.array(entries, records.INDEX_DTYPE))
    return path, at


def test_an_index_is_read_back(index_file):
    path, size = index_file
    index = parse(path, records=3, file_bytes=size)
    assert index["tokens"].tolist() == [3, 1, 200]


@pytest.mark.parametrize("change", ["offset", "payload", "tokens"])
def test_an_index_entry_that_points_elsewhere_is_an_error(index_file, change):
    path, size = index_file
    index = np.load(path)
    index[change][1] += 1
    np.save(path, index)
    with pytest.raises(DataError, match="do not describe"):
        parse(path, records=3, file_bytes=size)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"records": 4}, r"expected \(4,\)"),
        ({"file_bytes": 7}, "7 bytes"),
        ({"token_bytes": 4}, "do not describe"),
    ],
)
def test_an_index_of_another_shard_is_an_error(index_file, wrong, says):
    path, size = index_file
    right = {"token_bytes": 2, "records": 3, "file_bytes": size}
    with pytest.raises(DataError, match=says):
        parse(path, **right | wrong)


def _corrupt(raw: bytes, draw) -> bytes:
    """`raw` with a few bytes changed, added, removed, or its end cut off."""
    out = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        kind = draw(st.sampled_from(["set", "insert", "delete", "cut"]))
        if kind == "set" and out:
            out[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            out[at:at] = draw(st.binary(max_size=9))
        elif kind == "delete":
            del out[at : at + draw(st.integers(1, 9))]
        else:
            del out[at:]
    return bytes(out)


@hypothesis.given(st.data())
@cases(1200)
def test_damage_to_a_record_is_a_data_error_and_nothing_else(data):
    tokens = data.draw(st.binary(min_size=1, max_size=200))
    frame, _ = records.encode_record(tokens)
    damaged = _corrupt(frame, data.draw)
    try:
        found = records.decode_record(damaged, 0, "f")
    except DataError:
        return
    # Then what was damaged lies behind the record, or was put back as it was.
    assert damaged.startswith(frame)
    assert found[slice(*records.token_span(found, "f"))] == tokens


@hypothesis.given(st.lists(st.binary(min_size=1, max_size=40), min_size=1), st.data())
@cases(400)
def test_of_a_damaged_file_come_the_records_before_the_damage(tokens, data):
    frames = [records.encode_record(each)[0] for each in tokens]
    wanted = [frame[records.HEADER_BYTES : -records.FOOTER_BYTES] for frame in frames]
    damaged = _corrupt(b"".join(frames), data.draw)
    found = []
    with tempfile.TemporaryFile() as file:
        file.write(damaged)
        file.seek(0)
        with contextlib.suppress(DataError):
            for each in records.read_frames(file, "f"):
                found.append(each)
            # A file that ends between two records is whole, as far as it goes.
            assert damaged == b"".join(frames[: len(found)])
    assert found == wanted[: len(found)]


@hypothesis.given(st.data())
@cases(1000)
def test_damage_to_an_example_is_a_data_error_and_nothing_else(data):
    """With right checksums around it, as another program's mistake would have."""
    frame, _ = records.encode_record(data.draw(st.binary(min_size=1, max_size=200)))
    damaged = _corrupt(frame[records.HEADER_BYTES : -records.FOOTER_BYTES], data.draw)
    try:
        start, stop = records.token_span(damaged, "f")
    except DataError:
        return
    assert 0 <= start <= stop <= len(damaged)


@hypothesis.given(st.data())
@cases(800)
def test_damage_to_an_index_is_a_data_error_and_nothing_else(index_file, data):
    path, size = index_file
    raw = path.read_bytes()
    broken = path.with_suffix(".broken")
    broken.write_bytes(_corrupt(raw, data.draw))
    try:
        index = parse(broken, records=3, file_bytes=size)
    except DataError:
        return
    assert index.tolist() == np.load(path).tolist()


def test_a_length_that_passes_its_checksum_but_not_the_file_is_an_error():
    length = struct.pack("<Q", 2**63)
    header = length + struct.pack("<I", records.masked_crc32c(length))
    with pytest.raises(DataError, match="cut off"):
        records.decode_record(header + b"x" * 100, 0, "f")
