# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The command with data and checkpoints in a bucket: the run that it is on a disk."""

import json

from podium.resume import whole_steps
from podium.storage import open_folder
from podium.trainer.events import read_events
from podium.trainer.metrics import read_metrics
from tests import gcs
from tests.test_bad_input import CONFIG, run

GOLD, SAVED = f"gs://{gcs.BUCKET}/gold", f"gs://{gcs.BUCKET}/run/checkpoints"


def curve(workdir):
    return [(row["step"], row["loss"]) for row in read_metrics(workdir)]


def test_data_and_checkpoints_in_a_bucket(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    texts = [{"text": f"number {i}: " + "to be or not " * (i % 5)} for i in range(60)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    made = run(
        "podium.prepare", f"--input={tmp_path / 'texts.jsonl'}", "--tokenizer=bytes",
        f"--output={tmp_path / 'gold'}",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    def train(name, data, *more):
        return run(
            "podium.train",
            f"--config={tmp_path / 'config.py'}",
            f"--workdir={tmp_path / name}",
            f"--config.data.paths={data}",
            "--config.optim.schedule.kind=constant",  # whatever the number of steps
            *more,
        )

    disk = train("disk", tmp_path / "gold")
    assert disk.returncode == 0, disk.stderr
    with gcs.bucket(tmp_path / "served") as refusals:
        bucket = open_folder(GOLD)
        for path in (tmp_path / "gold").iterdir():
            if path.is_file():
                bucket.write(path.name, path.read_bytes())
        refusals.next(2, 503)
        more = (GOLD, f"--config.checkpoint.folder={SAVED}")
        first = train("bucket", *more, "--config.num_steps=7")
        assert first.returncode == 0, first.stderr
        # The weights are restored out of the bucket, too, and the data read on.
        again = train("bucket", *more)
        assert again.returncode == 0, again.stderr
        assert max(whole_steps(open_folder(SAVED))) == 12
        verified = run("podium.prepare", f"--verify={GOLD}")
        assert verified.returncode == 0, verified.stderr
    assert curve(tmp_path / "bucket") == curve(tmp_path / "disk")
    assert [
        e["step"] for e in read_events(tmp_path / "bucket") if e["event"] == "restore"
    ] == [7]
    assert not (tmp_path / "bucket" / "checkpoints").exists()
