# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""TFDS is imported in a process of its own: it brings TensorFlow, which takes long."""

import json
import subprocess
import sys

from podium.input.manifest import load_manifest
from podium.input.records import decode_record, token_span

BUILDER = """
import pathlib
import numpy as np
import tensorflow_datasets as tfds

FOLDER = pathlib.Path(__file__).parent


class Builder(tfds.core.GeneratorBasedBuilder):
    name = "local_texts"
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "line": tfds.features.Scalar(np.int64)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._lines("train.txt"), "test": self._lines("test.txt")}

    def _generate_examples(self):
        raise NotImplementedError

    def _lines(self, name):
        for i, line in enumerate((FOLDER / name).read_text().splitlines()):
            yield i, {"text": line, "line": i}
"""

RUN = """
import json
import texts_builder
from podium.errors import ConfigError
from podium.prepare import PrepareSpec, prepare

folder = texts_builder.FOLDER


def spec(name, output, **changes):
    return PrepareSpec(
        inputs=(name,), output=str(folder / output), tokenizer="bytes",
        data_dir=str(folder / "tfds"), num_workers=1, **changes,
    )


def message(**changes):
    try:
        prepare(spec(**changes))
    except ConfigError as error:
        return str(error)


prepare(spec("tfds:local_texts", "out", eval_fraction=0.2))  # builds it first
prepare(spec("tfds:local_texts:1.2.0#test", "test", eval_fraction=0.0))
errors = [
    message(name="tfds:local_texts#validation", output="x"),
    message(name="tfds:local_texts", output="x", text_key="line"),
    message(name="tfds:no_such_texts", output="x"),
]
print(json.dumps(errors))
"""


def test_a_tfds_data_set_is_built_if_need_be_and_read(tmp_path):
    lines = [f"line {i} é" for i in range(60)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "test.txt").write_text("only\none")
    (tmp_path / "texts_builder.py").write_text(BUILDER)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    split, feature, missing = json.loads(done.stdout)
    assert "no split 'validation'; there are" in split
    assert "'line' is no text feature" in feature
    assert "Features: text, line" in feature
    assert "tfds:no_such_texts: TFDS cannot give this data set" in missing

    found = _documents(tmp_path / "out")
    uri = "tfds:local_texts/1.2.0#train"
    assert sorted(text for text, *_ in found) == sorted(lines)
    assert {source for _, source, _ in found} == {uri}
    assert sorted(item for *_, item in found) == list(range(60))
    assert sorted(text for text, *_ in _documents(tmp_path / "test")) == ["one", "only"]

    # Built, it is found on disk by a process that knows nothing of the class.
    again = subprocess.run(
        [
            *(sys.executable, "-m", "podium.prepare", "--input=tfds:local_texts"),
            *(f"--data_dir={tmp_path / 'tfds'}", "--tokenizer=bytes", "--json"),
            *("--eval_fraction=0.2", f"--output={tmp_path / 'again'}"),
        ],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rejects"] == {}
    assert _documents(tmp_path / "again") == found


def _documents(folder):
    found = []
    for shards in load_manifest(folder).splits.values():
        for shard in shards:
            raw = (folder / shard.file).read_bytes()
            offset = 0
            for record in range(shard.records):
                data = decode_record(raw, offset, shard.file)
                offset += len(data) + 16
                tokens = data[slice(*token_span(data, shard.file))]
                text = tokens[:-2].decode("utf-16-le").encode("latin-1").decode()
                found.append((text, *shard.source(record)))
    return found
