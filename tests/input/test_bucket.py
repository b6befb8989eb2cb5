# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A data set in a bucket is read as the one on the disk is."""

import numpy as np
import pytest

from podium.config import DataConfig
from podium.errors import DataError, StorageError
from podium.input.check import check_datasets
from podium.input.loader import Loader
from podium.input.manifest import load_manifest
from podium.input.spec import StreamSpec
from podium.storage import open_folder
from tests import gcs


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with gcs.bucket(tmp_path_factory.mktemp("bucket")) as refusals:
        yield refusals


@pytest.fixture
def both(gold, documents, served, tmp_path):
    """The same data set on the disk and in the bucket."""
    disk = gold(documents(3, 30, 70))
    bucket = open_folder(f"gs://{gcs.BUCKET}/{tmp_path.name}")
    for path in disk.iterdir():
        bucket.write(path.name, path.read_bytes())
    return disk, bucket


def batches(folder, packing):
    data = DataConfig(paths=(str(folder),), seq_len=16, packing=packing)
    check_datasets(data, [load_manifest(folder)])
    spec = StreamSpec(
        data=data, split="train", seed=1, global_batch_seqs=4, rows=range(4)
    )
    loader = Loader(spec)
    return [loader.read(step) for step in range(12)]  # more than an epoch


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_the_batches_are_those_of_the_disk_though_the_server_is_busy(
    both, served, packing
):
    disk, bucket = both
    want = batches(disk, packing)
    served.next(3, 503)
    np.testing.assert_array_equal(want, batches(bucket.path, packing))
    assert served.left == 0


def test_what_is_wrong_in_a_bucket_is_named_before_a_run(both):
    _, bucket = both
    data = DataConfig(paths=(bucket.path,), seq_len=16)
    manifest = load_manifest(bucket.path)
    shard = manifest.splits["train"][0]
    whole = bucket.read(shard.file)
    bucket.write(shard.file, whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    with pytest.raises(DataError, match=rf"{bucket}/{shard.file}: record 0 "):
        check_datasets(data, [manifest])
    bucket.write(shard.file, whole[:-1])
    with pytest.raises(DataError, match=rf"{bucket}/{shard.file}: .* bytes, the"):
        load_manifest(bucket.path)
    bucket.remove(shard.file)
    with pytest.raises(DataError, match=rf"{bucket}/{shard.file}: No such file"):
        load_manifest(bucket.path)
    bucket.remove("manifest.json")
    with pytest.raises(DataError, match=rf"{bucket} holds no manifest\.json beside"):
        load_manifest(bucket.path)
    with pytest.raises(DataError, match=r"gs://podium-tests/none does not exist"):
        load_manifest("gs://podium-tests/none")


def test_a_refusal_is_no_damage(both, served):
    _, bucket = both
    data = DataConfig(paths=(bucket.path,), seq_len=16, on_damage="skip")
    spec = StreamSpec(
        data=data, split="train", seed=1, global_batch_seqs=4, rows=range(4)
    )
    loader = Loader(spec)
    served.next(10**6, 403)
    try:
        with pytest.raises(DataError, match="role Storage Object Admin"):
            loader.read(0)
        with pytest.raises(StorageError, match="role Storage Object Admin"):
            load_manifest(bucket.path)
    finally:
        served.next(0, 200)
    assert len(loader.read(0))
