# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""An exported model says where it comes from, and the run where it went."""

import json

from podium import convert
from podium.code_commit import commit
from podium.pretrained.origin import EXPORTS_FILE, ORIGIN_FILE, origin_of
from podium.trainer.events import Events
from podium.trainer.tracking import write_state
from tests.pretrained.folders import imported


def test_an_export_names_run_step_data_and_commit(tmp_path):
    run = imported("llama_3_8b", tmp_path)
    write_state(run, run="mine-c0ffee")
    tree = json.loads((run / "data.json").read_text())
    tree |= {"paths": ["gs://b/gold"], "fingerprints": ["f" * 64]}
    (run / "data.json").write_text(json.dumps(tree))
    assert convert.main(["--to=hf", f"--input={run}", f"--output={tmp_path}/out"]) == 0
    found = json.loads((tmp_path / "out" / ORIGIN_FILE).read_text())
    assert found == {
        "run": "mine-c0ffee",
        "step": 0,
        "checkpoint": f"{run.absolute()}/checkpoints/0",
        "data": [{"path": "gs://b/gold", "fingerprint": "f" * 64}],
        "commit": None,  # nobody trained it here
        "exported_by": commit(),
    }
    (line,) = (run / EXPORTS_FILE).read_text().splitlines()
    told = json.loads(line)
    assert told.items() >= found.items()
    assert told["output"] == f"{tmp_path}/out"
    back = [f"--input={tmp_path}/out", f"--output={tmp_path}/in"]
    assert convert.main(["--from=hf", *back]) == 0


def test_the_commit_is_that_of_the_start_that_made_the_checkpoint(tmp_path):
    with Events(tmp_path) as events:
        events.add("start", step=0, commit="first")
        events.add("start", step=10, commit="second")
        events.add("start", step=5, commit="third")  # 10 was damaged: 6 to 10 again
        events.add("start", step=20, commit="fourth")
    made_by = {step: origin_of(tmp_path, step)["commit"] for step in (5, 6, 10, 20, 21)}
    assert made_by == {5: "first", 6: "third", 10: "third", 20: "third", 21: "fourth"}
