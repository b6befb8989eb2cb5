# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import errno
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from podium.trainer import board
from podium.trainer.metrics import Metrics, read_metrics


@pytest.fixture
def disk(monkeypatch):
    """Writes that a disk takes before it is full; None: all of them."""
    room = {"writes": None}
    write = os.write

    def limited(file, data):
        if room["writes"] is not None:
            if not room["writes"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            room["writes"] -= 1
        return write(file, data)

    monkeypatch.setattr(os, "write", limited)
    return room


def steps(folder):
    return [row["step"] for row in read_metrics(folder)]


def test_rows_that_a_full_disk_refuses_are_written_when_there_is_room(
    tmp_path, disk, capsys
):
    with Metrics(tmp_path, first_step=0, tensorboard_every=1) as metrics:
        metrics.write(1, {"loss": 1.0})
        disk["writes"] = 0
        metrics.write(2, {"loss": 1.0})
        metrics.write(3, {"loss": 1.0})
        assert steps(tmp_path) == [1]
        disk["writes"] = None
        metrics.write(4, {"loss": 1.0})
        assert steps(tmp_path) == [1, 2, 3, 4]
    assert capsys.readouterr().err.count("No space left on device; training") == 1


def test_rows_are_in_the_file_once_they_are_flushed(tmp_path):
    with Metrics(tmp_path, first_step=0, tensorboard_every=100) as metrics:
        metrics.write(1, {"loss": 1.0})
        metrics.flush()
        assert steps(tmp_path) == [1]


def test_tensorboard_goes_on_in_a_new_file_where_one_could_not_be_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(board, "_AGAIN_SECS", 0.0)
    shown = board.Board(tmp_path, first_step=0)
    shown.add(1, {"loss": 1.0, "bad": None})
    writer = shown._writer

    def full():
        del writer.flush
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.flush = full
    shown.add(2, {"loss": 2.0})
    shown.add(3, {"loss": 3.0})
    shown.close()
    assert capsys.readouterr().err.count("TensorBoard shows will have a gap") == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert 3 in [e.step for e in found.Scalars("loss")]
