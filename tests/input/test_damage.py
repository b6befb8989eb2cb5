# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Damage met while batches are read: `data.on_damage`."""

import dataclasses
import itertools
import os
import shutil

import numpy as np
import pytest

from podium.config import DataConfig
from podium.errors import DataError
from podium.input import pipeline
from podium.input.ledger import documents_of_step
from podium.input.loader import Loader
from podium.input.manifest import load_manifest, save_manifest
from podium.input.server import InputServer
from podium.input.spec import StreamSpec

PACKINGS = ["concat", "best_fit"]
BAD = 17  # record of the first train shard


def spec_of(folder, *, rows=range(6), on_damage="skip", batch=6, **data):
    data = {"seq_len": 16, "packing": "concat", **data}
    return StreamSpec(
        data=DataConfig(paths=(str(folder),), on_damage=on_damage, **data),
        split="train",
        seed=5,
        global_batch_seqs=batch,
        rows=rows,
    )


@pytest.fixture(scope="module")
def sound(gold, documents):
    return gold(documents(0, 120, 40), documents(1, 20, 20))


@pytest.fixture
def folder(sound, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    return folder


def shard_of(folder):
    shard = load_manifest(folder).splits["train"][0]
    return folder / shard.file, np.load(folder / shard.index)


def damage(folder, record=BAD, at="payload", by=0):
    path, index = shard_of(folder)
    raw = bytearray(path.read_bytes())
    raw[int(index[record][at]) + by] ^= 0x40
    path.write_bytes(raw)
    return path


def epoch(loader):
    return range(loader.order.num_rows // 6 + 1)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_skipped_record_becomes_padding_and_nothing_else_moves(
    sound, folder, packing, shuffle
):
    path = damage(folder)
    data = {"packing": packing, "shuffle": shuffle}
    whole, holed = (Loader(spec_of(f, **data)) for f in (sound, folder))
    met = set()
    num_positions = 0
    for step in epoch(whole):
        want, got = whole.read(step), holed.read(step)
        _, chunks = whole.chunks(step)
        is_bad = np.zeros(want.shape[1:], bool)
        for row, column, document, _, length in zip(
            *(f.tolist() for f in chunks), strict=True
        ):
            is_bad[row, column : column + length] |= document == BAD
        np.testing.assert_array_equal(got[:, ~is_bad], want[:, ~is_bad])
        padding = got[:, is_bad]
        assert (padding == np.array([[0], [-1], [0], [0]])).all()
        damaged = holed.take_damaged(step)
        assert bool(damaged) == is_bad.any()
        assert not holed.take_damaged(step)
        met.update(damaged)
        num_positions += is_bad.sum()
    assert num_positions > 0
    [only] = met
    assert (only.file, only.record) == (str(path), BAD)
    assert only.byte == int(shard_of(folder)[1][BAD]["offset"])
    assert "CRC-32C of its data" in only.fault


def test_the_default_ends_with_shard_record_and_byte(folder):
    path = damage(folder)
    loader = Loader(spec_of(folder, on_damage="error"))
    byte = int(shard_of(folder)[1][BAD]["offset"])
    with pytest.raises(DataError) as caught:
        list(map(loader.read, epoch(loader)))
    message = str(caught.value)
    assert f"{path}: record {BAD} at byte {byte} is damaged (CRC-32C of its" in message
    assert "data.on_damage=skip" in message
    assert "\n" not in message


def test_a_resumed_stream_skips_the_same_whatever_it_read_before(gold):
    """A token id beyond the vocabulary damns the whole record, also where a step holds
    another part of it and the bad part was not read yet."""
    record = [1] * 39 + [5000] + [1] * 40 + [0]
    long = gold([record, *([[2] * 9 + [0]] * 30)])
    data = {"seq_len": 8, "batch": 1, "rows": range(1)}
    through = Loader(spec_of(long, **data))
    steps = range(through.order.num_rows)
    batches = [through.read(step) for step in steps]
    assert not any((batch == 5000).any() for batch in batches)
    assert sum((batch[2] == 0).sum() for batch in batches) >= len(record)
    for step in steps:
        alone = Loader(spec_of(long, **data))
        np.testing.assert_array_equal(alone.read(step), batches[step])
    [fault] = {d.fault for step in steps for d in through.take_damaged(step)}
    assert fault == "token id 5000 is beyond the vocabulary of 1000"


def test_a_manifest_that_lies_about_the_vocabulary_is_found(folder):
    manifest = load_manifest(folder)
    info = dataclasses.replace(manifest.tokenizer, vocab_size=900)
    save_manifest(folder, dataclasses.replace(manifest, tokenizer=info))
    loader = Loader(spec_of(folder, on_damage="error"))
    with pytest.raises(
        DataError, match=r"record \d+ at byte \d+ is damaged \(token id"
    ):
        list(map(loader.read, epoch(loader)))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("hosts", [2, 3])
def test_each_process_skips_what_one_process_skips(folder, packing, hosts):
    for record in (3, BAD, 44):
        damage(folder, record)
    whole = Loader(spec_of(folder, packing=packing))
    share = 6 // hosts
    parts = [
        Loader(spec_of(folder, rows=range(h * share, (h + 1) * share), packing=packing))
        for h in range(hosts)
    ]
    for step in epoch(whole):
        np.testing.assert_array_equal(
            whole.read(step), np.concatenate([p.read(step) for p in parts], axis=1)
        )
        names = {d.record for p in parts for d in p.take_damaged(step)}
        assert names == {d.record for d in whole.take_damaged(step)}


def test_only_the_damaged_one_of_several_data_sets_is_skipped(sound, folder):
    damage(folder)
    paths = (str(sound), str(folder))
    data = DataConfig(paths=paths, seq_len=16, on_damage="skip")
    spec = StreamSpec(
        data=data, split="train", global_batch_seqs=6, rows=range(6), is_one_pass=True
    )
    loader = Loader(spec)
    twin = Loader(
        StreamSpec(
            data=DataConfig(paths=(str(sound), str(sound)), seq_len=16),
            split="train",
            global_batch_seqs=6,
            rows=range(6),
            is_one_pass=True,
        )
    )
    files = set()
    for step in range(loader.stop_step):
        got, want = loader.read(step), twin.read(step)
        damaged = loader.take_damaged(step)
        files |= {d.file for d in damaged}
        assert (got != want).any() == bool(damaged)
    assert [f.startswith(str(folder)) for f in files] == [True]


# --- files that vanish or shrink under a reader --------------------------------------


@pytest.mark.parametrize("is_read_before", [True, False])
def test_a_shard_cut_short_under_the_reader_is_named(folder, is_read_before):
    loader = Loader(spec_of(folder, on_damage="error", shuffle=False))
    steps = epoch(loader)
    if is_read_before:
        list(map(loader.read, steps))
    path, index = shard_of(folder)
    os.truncate(path, int(index[BAD]["payload"]))
    with pytest.raises(DataError, match=rf"{path}: record {BAD} at byte ") as caught:
        list(map(loader.read, steps))
    assert "bytes are there" in str(caught.value)


def test_a_shard_that_vanished_is_named(folder):
    loader = Loader(spec_of(folder, on_damage="error"))
    path, _ = shard_of(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path}: record \d+ .*No such file"):
        list(map(loader.read, epoch(loader)))


def test_skipping_ends_where_more_than_single_records_are_damaged(folder, monkeypatch):
    monkeypatch.setattr("podium.input.loader._FEW_CHUNKS", 50)
    loader = Loader(spec_of(folder))
    shard_of(folder)[0].unlink()  # half of the data
    with pytest.raises(DataError, match=r"more than 10% are not skipped") as caught:
        list(map(loader.read, epoch(loader)))
    assert "\n" not in str(caught.value)


# --- through the input process -------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with InputServer.start(tf_data_after_steps=None) as server:
        yield server


def test_the_stream_names_what_each_batch_was_left_without(server, folder):
    damage(folder)
    spec = spec_of(folder)
    loader = Loader(spec)
    stream = server.open(spec)
    steps = epoch(loader)
    wanted = {}
    for step, (got_step, batch) in zip(steps, stream, strict=False):
        assert got_step == step
        np.testing.assert_array_equal(np.stack(batch), loader.read(step))
        wanted[step] = loader.take_damaged(step)
        if step % 2:  # asked for less often than batches come
            found = stream.take_damaged(step)
            assert found == wanted[step - 1] + wanted[step]
    assert sum(map(len, wanted.values())) > 0
    stream.close()


def test_a_shard_cut_short_does_not_kill_the_input_process(server, folder):
    spec = spec_of(folder, on_damage="error", prefetch_batches=1)
    stream = server.open(spec)
    path, _ = shard_of(folder)
    for _ in range(len(epoch(Loader(spec)))):  # every page of the file has been seen
        next(stream)
    os.truncate(path, 100)
    with pytest.raises(DataError, match=rf"{path}: record \d+ at byte"):
        for _ in stream:
            pass
    assert not server.worker("direct").is_dead()


def test_tf_data_skips_as_the_direct_way_does(folder):
    damage(folder)
    spec = spec_of(folder, num_threads=2)
    direct, loader = Loader(spec), Loader(spec)
    steps = epoch(loader)
    out = np.empty(loader.shape, np.int32)
    count = 0
    for step, fill in itertools.islice(pipeline.tf_data(loader), len(steps)):
        fill(out)
        np.testing.assert_array_equal(out, direct.read(step))
        found = direct.take_damaged(step)
        assert loader.take_damaged(step) == found
        count += len(found)
    assert count


def test_the_ledger_still_names_a_skipped_record(folder):
    damage(folder)
    spec = spec_of(folder)
    loader = Loader(spec)
    for step in epoch(loader):
        loader.read(step)
        if damaged := loader.take_damaged(step):
            entries = documents_of_step(
                spec.data, seed=5, global_batch_seqs=6, step=step
            )
            names = {(e.shard, e.record) for e in entries}
            assert all((os.path.basename(d.file), d.record) in names for d in damaged)
            break
    else:
        pytest.fail("the damaged record was never met")
