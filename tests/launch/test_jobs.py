# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher as a user runs it, with Google's clients and their services on loopback."""

import json

import pytest

from launch import vertex
from podium import cli

COMMAND = [
    "--config=configs/quickstart.py",
    "--slice=v5e-8",
    "--config.launch.project=my-project",
    "--config.launch.bucket=gs://podium-tests/jobs",
    "--config.launch.image=us-docker.pkg.dev/p/r/i:t",
    "--config.launch.run=mine",
]
SUBMIT = "POST /v1/.*/customJobs$"
QUOTA = (
    "The following quota metrics exceed quota limits: "
    "aiplatform.googleapis.com/custom_model_training_tpu_v5e"
)


@pytest.fixture
def launch(google, capsys):
    """Runs the command line; exit code and the lines of standard error."""

    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            cli.run(vertex.main, argv)
        return stop.value.code, capsys.readouterr().err.splitlines()

    return run


def test_a_job_is_submitted_and_the_way_to_it_is_shown(launch, google):
    code, said = launch(*COMMAND)
    assert code == 0
    (number,) = google.jobs
    assert f"job       {number} submitted" in said
    page = f"/vertex-ai/locations/us-central1/training/{number}?project=my-project"
    assert said[-2].endswith(page)
    assert said[-1] == (
        "follow    python -m launch.vertex logs mine --follow --project=my-project "
        "--region=us-central1"
    )


def test_what_is_sent_is_what_a_dry_run_prints(launch, google, capsys):
    import yaml
    from google.cloud.aiplatform_v1 import types

    assert vertex.main([*COMMAND, "--dry_run"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    launch(*COMMAND)
    (sent,) = google.jobs.values()
    fields = {key: sent[key] for key in ("displayName", "jobSpec", "labels")}
    assert types.CustomJob.from_json(json.dumps(fields)) == types.CustomJob.from_json(
        json.dumps(printed)
    )


def test_the_same_command_again_finds_the_job_instead_of_starting_another(
    launch, google
):
    google.job_states = []
    launch(*COMMAND)
    (job,) = google.jobs.values()
    for state in ("QUEUED", "RUNNING", "SUCCEEDED"):
        google.set_state(job, state)
        code, said = launch(*COMMAND)
        assert code == 0
        assert any(f"is {state} already, as asked for" in line for line in said)
    assert len(google.jobs) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_after_a_job_that_ended_badly_the_same_command_continues_its_run(
    launch, google, state
):
    launch(*COMMAND)
    (first,) = google.jobs.values()
    google.set_state(first, state)
    launch(*COMMAND)
    one, two = google.jobs.values()
    assert one["jobSpec"] == two["jobSpec"]


def test_a_run_at_work_is_not_given_to_another_config(launch, google):
    launch(*COMMAND)
    code, said = launch(*COMMAND, "--config.seed=1")
    assert code == 2
    assert (
        "run mine is at work as job 5000000000000000000, with other settings"
        in said[-1]
    )
    assert "launch.vertex cancel mine --project=my-project --region=us-c" in said[-1]
    assert len(google.jobs) == 1


BUILT = [word for word in COMMAND if not word.startswith("--config.launch.image")]


def test_a_run_at_work_costs_no_image(launch, google):
    google.job_states = []
    assert launch(*BUILT)[0] == 0
    builds = len(google.builds)
    assert launch(*BUILT)[0] == 0
    google.tags.clear()
    code, said = launch(*BUILT, "--config.seed=1")
    assert (code, len(google.builds), len(google.jobs)) == (2, builds, 1)
    assert "is at work as job" in said[-1]
    (sent,) = google.jobs.values()
    assert (
        "@sha256:" in sent["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["imageUri"]
    )


def test_ctrl_c_says_what_goes_on(launch, google, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(vertex.jobs, "submit", interrupt)
        code, said = launch(*COMMAND)
    assert code == 130
    assert "the same command finds it; see python -m launch.vertex list" in said[-2]
    monkeypatch.setattr(vertex.build, "deliver", interrupt)
    assert "what has begun goes on" in launch(*COMMAND)[1][-2]


def test_a_refusal_without_a_permission_still_names_a_role(launch, google):
    google.fail(SUBMIT, 403, "The caller does not have permission")
    assert "--role=roles/aiplatform.user" in launch(*COMMAND)[1][-1]


@pytest.mark.parametrize("code", [0, 500, 503, 504])
@pytest.mark.parametrize("late", [False, True])
def test_a_lost_request_or_a_lost_answer_makes_one_job(launch, google, code, late):
    google.fail(SUBMIT, code, "It is down.", times=1 if late else 3, late=late)
    exit_code, said = launch(*COMMAND)
    assert exit_code == 0
    assert len(google.jobs) == 1
    assert google.count(SUBMIT) == (1 if late else 4)
    assert any(line.startswith("submit: ") and "again in" in line for line in said)
    assert not any(".;" in line for line in said)


def test_a_lost_answer_of_a_job_that_failed_at_once_makes_one_job_too(launch, google):
    google.fail(SUBMIT, 503, late=True)
    google.fail("GET /v1/.*/customJobs$", 503)
    google.on_job = lambda job: google.set_state(job, "FAILED", "at once")
    launch(*COMMAND)
    assert len(google.jobs) == 1


def test_an_unanswered_search_for_the_job_is_repeated_too(launch, google):
    google.fail("GET /v1/.*/customJobs$", 503, times=2)
    google.fail("GET /v1/.*/customJobs$", 0)
    assert launch(*COMMAND)[0] == 0
    assert len(google.jobs) == 1


@pytest.mark.parametrize(
    ("code", "message", "fix"),
    [
        (
            403,
            "Permission 'aiplatform.customJobs.create' denied on resource '//aiplatform'",
            "gcloud projects add-iam-policy-binding my-project --member=user:YOUR_ACCOUNT "
            "--role=roles/aiplatform.user",
        ),
        (
            403,
            "You do not have permission to act as service account: me@p.iam. (or it may "
            "not exist) iam.serviceAccounts.actAs",
            "--role=roles/iam.serviceAccountUser",
        ),
        (
            403,
            "Vertex AI API has not been used in project 12 before or it is disabled. "
            "Enable aiplatform.googleapis.com",
            "gcloud services enable aiplatform.googleapis.com --project=my-project",
        ),
        (403, "This API method requires billing", "linkedaccount?project=my-project"),
        (403, "no", "--role=roles/aiplatform.user"),
        (
            429,
            QUOTA,
            "the quota aiplatform.googleapis.com/custom_model_training_tpu_v5e of project "
            "my-project in us-central1 does not suffice: ask for more at https://console.",
        ),
        (
            401,
            "Request had invalid credentials",
            "gcloud auth application-default login",
        ),
        (400, "Machine type x is not supported.", "Machine type x is not supported"),
    ],
)
def test_a_refusal_is_one_line_with_its_fix_and_is_not_repeated(
    launch, google, code, message, fix
):
    google.fail(SUBMIT, code, message)
    exit_code, said = launch(*COMMAND)
    assert exit_code == 2
    assert said[-1].startswith("CloudError: submit: ")
    assert fix in said[-1]
    assert "http://127" not in said[-1]
    assert google.count(SUBMIT) == 1
    assert not google.jobs


@pytest.mark.parametrize(
    "message",
    [
        "Too many requests, slow down",
        "Quota exceeded for quota metric 'Resource management (CRUD) requests' and limit "
        "'Resource management (CRUD) requests per minute per region' of service "
        "'aiplatform.googleapis.com'.",
    ],
)
def test_too_many_requests_are_repeated(launch, google, message):
    google.fail(SUBMIT, 429, message, times=2)
    assert launch(*COMMAND)[0] == 0
    assert len(google.jobs) == 1


def test_a_service_that_stays_away_ends_the_command_with_1(google, monkeypatch, capsys):
    from launch.cloud import Cloud, Patience

    brief = Patience(first_secs=0.01, most_secs=0.02, total_secs=0.1, poll_secs=0.01)
    monkeypatch.setattr(vertex, "Cloud", lambda p, r: Cloud(p, r, brief))
    google.fail(SUBMIT, 503, "The service is currently unavailable", times=1000)
    with pytest.raises(SystemExit) as stop:
        cli.run(vertex.main, COMMAND)
    assert stop.value.code == 1
    assert "try the same command again" in capsys.readouterr().err.splitlines()[-1]


def test_without_credentials_the_login_is_named(google, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.run(vertex.main, COMMAND)
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("run: gcloud auth application-default login")
