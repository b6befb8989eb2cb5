# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The verbs of a folder mean the same on a disk and in a bucket."""

import logging

import google_crc32c
import pytest

import podium.storage
from podium.errors import ConfigError, StorageError
from podium.storage import File, is_refusal, is_remote, open_folder, refusal
from tests import gcs


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with gcs.bucket(tmp_path_factory.mktemp("bucket")) as refusals:
        yield refusals


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path, served):
    if request.param == "disk":
        (tmp_path / "run").mkdir()
        return open_folder(tmp_path / "run")
    return open_folder(f"gs://{gcs.BUCKET}/{tmp_path.name}-{request.node.name}")


def test_what_is_written_is_listed_described_and_read(folder):
    folder.write("a.json", b"one")
    if not is_remote(folder.path):
        (folder._root / "7" / "d").mkdir(parents=True)
    step = folder.inside("7")
    step.write("d/b", b"two" * 1000)
    assert folder.names() == ["7", "a.json"]
    assert folder.files() == ["7/d/b", "a.json"]
    assert folder.read("a.json") == b"one"
    assert step.describe("d/b") == File(3000, google_crc32c.value(b"two" * 1000))
    folder.move("7", "7.damaged")
    assert folder.files() == ["7.damaged/d/b", "a.json"]
    folder.remove("7.damaged")
    folder.remove("a.json")
    assert folder.names() == folder.files() == []


@pytest.mark.parametrize("end", [b"", b"\r", b"\n", b"\r\n", b"\n\n--"])
def test_bytes_come_back_whatever_they_end_in(folder, end, tmp_path):
    data = b"\r\n\x00one\r\r\n" + end
    folder.write("a", data)
    (tmp_path / "b").write_bytes(data)
    folder.put(tmp_path / "b", "b")
    assert folder.read("a") == folder.read("b") == data
    assert folder.describe("a").num_bytes == len(data)


def test_what_is_not_there_has_no_names_and_cannot_be_read(folder):
    assert folder.inside("none").names() == []
    with pytest.raises(FileNotFoundError):
        folder.read("none")


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again(served, status):
    folder = open_folder(f"gs://{gcs.BUCKET}/busy")
    served.next(2, status)
    folder.write("a", b"one")
    served.next(2, status)
    assert folder.read("a") == b"one"
    assert served.left == 0


def test_a_wait_for_a_server_is_not_silent(served, monkeypatch, capsys):
    folder = open_folder(f"gs://{gcs.BUCKET}/silent")
    monkeypatch.setattr(podium.storage, "_SILENT_SECS", 0.01)
    served.next(2, 503)
    folder.names()
    assert f"{folder}: no answer for 0.01 s, trying again" in capsys.readouterr().err
    monkeypatch.setattr(podium.storage, "_SILENT_SECS", 60)
    folder.names()
    assert not capsys.readouterr().err


def test_what_an_account_may_not_do_is_said_in_one_line(served):
    folder = open_folder(f"gs://{gcs.BUCKET}/mine")
    served.next(20, 403)
    with pytest.raises(StorageError, match=r"^gs://podium-tests/mine: .*Object Admin"):
        folder.write("a", b"one")
    served.next(0, 403)
    # Where nobody answers, gcsfs would log a stack when it gives up.
    assert not logging.getLogger("gcsfs.retry").isEnabledFor(logging.ERROR)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("Forbidden: b/o"), True),
        (ValueError('PERMISSION_DENIED: gs://b/o: HTTP response code: 403'), True),
        (OSError("Too many requests, 429"), True),
        (PermissionError(13, "Permission denied"), True),
        (ConnectionResetError(), True),
        (OSError("Cannot connect to host storage.googleapis.com:443"), True),
        (ValueError("DATA_LOSS: gs://b/403/state/d: wrong checksum"), False),
        (FileNotFoundError(2, "No such file or directory"), False),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_from_what_is_damaged(error, says):
    assert is_refusal(error) == says
    around = Exception("Encountered error while reading")
    around.__cause__ = error
    assert is_refusal(around) == says


def test_a_network_that_does_not_reach_is_named():
    told = refusal(OSError("Cannot connect to host storage.googleapis.com:443"))
    assert told.endswith("; is this machine on a network that reaches it?")


@pytest.mark.parametrize("address", ["s3://b", "gs://", "gs:///"])
def test_another_kind_of_address_is_refused(address):
    with pytest.raises(ConfigError, match=f"{address}: expected a folder or gs://"):
        open_folder(address)
