# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A data set of which any byte may be wrong is read as it was written, or refused."""

import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.check import check_datasets
from podium.input.loader import Loader
from podium.input.manifest import load_manifest
from podium.input.spec import StreamSpec
from podium.input.tfrecord import Documents
from tests.hostile import cases

BATCH = 4


@pytest.fixture(scope="module")
def sound(gold, documents):
    return gold(documents(0, 12, 30), documents(1, 3, 10), num_shards=2)


@pytest.fixture(scope="module")
def whole(sound):
    return contents(sound)


@pytest.fixture(scope="module")
def copy(sound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "data"
    shutil.copytree(sound, folder)
    return folder


def contents(folder):
    """What a reader makes of a data set: every token of both splits. May refuse it."""
    manifest = load_manifest(folder)
    check_datasets(DataConfig(paths=(str(folder),)), [manifest])
    splits = [Documents(folder, split) for split in ("train", "eval")]
    return manifest.fingerprint, *(s.read_range(0, len(s)).tolist() for s in splits)


def outcome(make, *args):
    """(what `make` returns, None), or (None, the message of its refusal)."""
    try:
        return make(*args), None
    except DataError as error:
        return None, str(error)


def restore(copy, sound):
    for path in sound.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())


def damaged_file(copy, sound, draw) -> pathlib.Path:
    """Harms one file of the data set, whatever another damaged before put back."""
    restore(copy, sound)
    names = sorted(p.name for p in sound.iterdir() if p.is_file())
    path = copy / draw(st.sampled_from(names))
    raw = bytearray(path.read_bytes())
    at = draw(st.integers(0, len(raw) - 1))
    how = draw(st.sampled_from(["flip", "flip", "flip", "set", "cut", "grow", "file"]))
    if how == "flip":
        raw[at] ^= 1 << draw(st.integers(0, 7))
    elif how == "set":
        new = draw(st.binary(max_size=9))
        raw[at : at + len(new)] = new
    elif how == "cut":
        del raw[at:]
    elif how == "grow":
        raw += draw(st.binary(max_size=30))
    else:
        raw[:] = (copy / draw(st.sampled_from(names))).read_bytes()
    path.write_bytes(bytes(raw))
    return path


@hypothesis.given(st.data())
@cases(800)
def test_a_data_set_with_any_byte_changed_is_as_written_or_refused(
    sound, copy, whole, data
):
    path = damaged_file(copy, sound, data.draw)
    is_as_it_was = path.read_bytes() == (sound / path.name).read_bytes()
    found, refusal = outcome(contents, copy)
    if refusal:
        assert not is_as_it_was
        assert path.name in refusal
        assert "\n" not in refusal
        return
    # White space in a manifest, and `created_by`, are in no checksum.
    assert is_as_it_was or path.name == "manifest.json"
    assert found == whole


def spec_of(folder, packing):
    return StreamSpec(
        data=DataConfig(
            paths=(str(folder),), seq_len=16, on_damage="skip", packing=packing
        ),
        split="train",
        global_batch_seqs=BATCH,
        rows=range(BATCH),
    )


@hypothesis.given(st.data(), st.sampled_from(["concat", "best_fit"]))
@cases(300)
def test_what_is_not_skipped_is_what_was_written(sound, copy, data, packing):
    path = damaged_file(copy, sound, data.draw)
    loader, _ = outcome(Loader, spec_of(copy, packing))
    if loader is None:
        return
    true = Loader(spec_of(sound, packing))
    for step in range(loader.order.num_rows // BATCH + 1):
        got, want = loader.read(step), true.read(step)
        damaged = loader.take_damaged(step)
        is_padding = (got == np.array([0, -1, 0, 0])[:, None, None]).all(0)
        is_other = (got != want).any(0)
        assert (is_other <= is_padding).all()
        assert bool(damaged) == is_other.any()
        assert {pathlib.Path(d.file).name for d in damaged} <= {path.name}


@hypothesis.given(st.data())
@cases(200)
def test_a_file_that_shrinks_or_changes_under_the_reader_is_named(sound, copy, data):
    restore(copy, sound)
    opened = Documents(copy, "train")
    was_read = data.draw(st.booleans())
    if was_read:
        opened.read_range(0, len(opened))
    path = damaged_file(copy, sound, data.draw)
    true = Documents(sound, "train")
    for i in range(len(opened)):
        found, refusal = outcome(opened.read_range, i, i + 1)
        if refusal:
            assert path.name in refusal
        elif not was_read:  # else verified already: what changes later is not seen
            assert (found == true.read_range(i, i + 1)).all()
