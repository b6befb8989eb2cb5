# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from launch import job, secrets
from podium.config_launch import LaunchConfig
from podium.errors import CloudError

ELSEWHERE = "projects/other-project/secrets/key/versions/3"
LAUNCH = LaunchConfig(
    project="my-project", secrets=("WANDB_API_KEY=wandb", f"OTHER={ELSEWHERE}")
)


def test_secrets_are_read_by_name_or_address(google):
    google.secrets["projects/my-project/secrets/wandb/versions/latest"] = b"abc\n"
    google.secrets[ELSEWHERE] = b" spaces stay "
    found = secrets.read_secrets(LAUNCH)
    assert found == {"WANDB_API_KEY": "abc", "OTHER": " spaces stay "}


def test_without_secrets_no_service_is_asked(google):
    assert secrets.read_secrets(LaunchConfig()) == {}
    assert not google.requests


def test_training_has_them_in_its_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("PODIUM_TRIED", raising=False)
    there = "import os, pathlib; pathlib.Path({!r}).write_text(os.environ[{!r}])"
    script = there.format(str(tmp_path / "told"), "PODIUM_TRIED")
    assert job._run([sys.executable, "-c", script], {"PODIUM_TRIED": "abc"}) == 0
    assert (tmp_path / "told").read_text() == "abc"


@pytest.mark.parametrize(
    ("code", "said", "advice"),
    [
        (404, "", "gcloud secrets list"),
        (
            403,
            "Permission 'secretmanager.versions.access' denied on resource",
            "--role=roles/secretmanager.secretAccessor",
        ),
    ],
)
def test_a_secret_that_cannot_be_read_is_a_mistake(google, code, said, advice):
    if said:
        google.fail("GET .*secrets", code, said)
    with pytest.raises(CloudError, match="secret wandb for WANDB_API_KEY") as error:
        secrets.read_secrets(LAUNCH)
    assert advice in str(error.value)
    assert not error.value.is_met_at_work
