# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A job that is followed, left, ended, continued and looked at."""

import json
import os
import signal

import pytest

from launch import follow, jobs, verbs, vertex
from launch.follow import Progress, progress
from podium import cli

FOLDER = "gs://podium-tests/follow/runs/{run}"
WHERE = ["--project=my-project", "--region=us-central1"]


@pytest.fixture
def job(google, cloud, request):
    """A job as the launcher submits one, of a run of its own."""
    run = request.node.name.replace("_", "-").split("[")[0][:60].rstrip("-")
    vertex.main(
        [
            *("--config=configs/quickstart.py", "--slice=v5e-8"),
            *("--config.launch.project=my-project", f"--config.launch.run={run}"),
            "--config.launch.bucket=gs://podium-tests/follow",
            "--config.launch.image=us-docker.pkg.dev/p/r/i:t",
        ]
    )
    return jobs.newest(cloud, run)


def number_of(job):
    return job.name.rpartition("/")[2]


def write(cloud, job, name, text):
    folder = job.job_spec.base_output_directory.output_uri_prefix
    path = folder.removeprefix("gs://podium-tests/")
    cloud.storage.bucket("podium-tests").blob(f"{path}/run/{name}").upload_from_string(
        text
    )


def rows(*steps):
    return "".join(
        json.dumps(
            {"step": s, "loss": 9.0 - s, "step_secs": 2.0, "tokens_per_sec": 1024}
        )
        + "\n"
        for s in steps
    )


def test_states_lines_and_progress_are_shown_each_once(google, cloud, job, capsys):
    google.job_states = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    google.print(number_of(job), "hello from host 0")
    google.print(number_of(job), "hello from host 1", task="workerpool1-0")
    write(cloud, job, "config.json", json.dumps({"num_steps": 500}))
    write(
        cloud, job, "metrics.jsonl", rows(1, 2, 3) + '{"step": 3, "eval_loss": 1.0}\n'
    )
    capsys.readouterr()
    assert follow.follow(cloud, job) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said if line.startswith("job")] == [
        "PENDING",
        "RUNNING",
        "SUCCEEDED",
    ]
    assert said.count("| hello from host 0") == 1
    assert said.count("| [workerpool1-0] hello from host 1") == 1
    told = "training  step 3 of 500  loss 6.0000  1,024 tokens/s  ETA 16 min 34 s"
    assert said.count(told) == 1


def test_a_progress_that_is_cut_or_missing_is_none():
    assert progress([], 5) is None
    assert progress([{"step": 1, "eval_loss": 2.0}], 5) is None
    found = progress([{"step": 4, "loss": None, "step_secs": 1.5}], 6)
    assert found == Progress(4, 6, None, None, 3.0)
    assert str(found) == "step 4 of 6  ETA 0 min 3 s"


def test_metrics_whose_beginning_is_cut_are_read(google, cloud, job):
    write(cloud, job, "metrics.jsonl", rows(*range(1, 3001)))
    files = follow.RunFiles(cloud, job.job_spec.base_output_directory.output_uri_prefix)
    assert files.progress().step == 3000


@pytest.mark.parametrize(
    ("state", "error", "code"),
    [
        ("FAILED", "The replica workerpool0-0 exited with a non-zero status of 1.", 1),
        ("FAILED", "The replica workerpool0-0 exited with a non-zero status of 2.", 2),
        (
            "FAILED",
            "The replica workerpool0-0 exited with a non-zero status of 134",
            75,
        ),
        ("FAILED", "The replica workerpool1-0 exited with a non-zero status of 99", 1),
        ("FAILED", "Internal error", 1),
        ("CANCELLED", "", 1),
        ("EXPIRED", "", 1),
        ("SUCCEEDED", "", 0),
    ],
)
def test_the_exit_code_mirrors_the_job(google, cloud, job, state, error, code, capsys):
    google.job_states, google.job_error = ["RUNNING", state], error
    assert follow.follow(cloud, job) == code
    last = capsys.readouterr().err.splitlines()[-1]
    if code:
        assert last.startswith(f"CloudError: job {number_of(job)} ended as {state}")
        assert error.rstrip(".") in last
        can_go_on = code == 75 or state == "CANCELLED"
        assert (f"vertex resume {number_of(job)} --follow" in last) == can_go_on


def test_a_job_that_lost_its_machines_is_said_to_start_again(
    google, cloud, job, capsys
):
    google.job_states = ["RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert follow.follow(cloud, job) == 0
    told = [x for x in capsys.readouterr().err.splitlines() if x.startswith("job ")]
    assert [": started again" in line for line in told] == [False, True, False, False]


def test_a_service_that_is_away_for_a_while_is_waited_for(google, cloud, job, capsys):
    google.job_states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    google.fail("GET .*/customJobs/", 503, times=2)
    google.fail("entries:list", 0)
    assert follow.follow(cloud, job) == 0
    assert "again in" in capsys.readouterr().err


def test_a_log_that_may_not_be_read_does_not_end_it(google, cloud, job, capsys):
    google.job_states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    message = "Permission 'logging.logEntries.list' denied"
    google.fail("entries:list", 403, message, times=9)
    assert follow.follow(cloud, job) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum("--role=roles/logging.viewer" in line for line in said) == 1


def interrupted_once(monkeypatch):
    real, calls = follow.follow, []

    def once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(follow, "follow", once)


@pytest.mark.parametrize(
    ("answer", "code", "state", "words"),
    [
        ("d", 130, "RUNNING", "goes on; follow it again: python -m launch.vertex logs"),
        ("c", 1, "CANCELLED", "is being cancelled; what was saved stays"),
        ("", 0, "SUCCEEDED", "SUCCEEDED"),
        (EOFError, 130, "RUNNING", "goes on"),
        (None, 130, "RUNNING", "goes on"),
    ],
)
def test_ctrl_c_asks_whether_to_detach_or_cancel(
    google, cloud, job, monkeypatch, answer, code, state, words, capsys
):
    interrupted_once(monkeypatch)
    google.set_state(google.jobs[number_of(job)], "RUNNING")
    google.job_states = ["SUCCEEDED"]

    def ask(text):
        assert "[d]etach, [c]ancel" in text
        if answer is EOFError:
            raise EOFError
        return answer

    with_terminal = None if answer is None else ask
    assert follow.follow_until_told(cloud, job, ask=with_terminal) == code
    assert google.jobs[number_of(job)]["state"] == f"JOB_STATE_{state}"
    assert words in capsys.readouterr().err


def test_sigterm_leaves_the_job_and_asks_nothing(
    google, cloud, job, monkeypatch, capsys
):
    def terminated(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    def ask(_):
        raise AssertionError

    # Else this process would go.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("not handled"))
    try:
        monkeypatch.setattr(follow, "follow", terminated)
        assert follow.follow_until_told(cloud, job, ask=ask) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "goes on; follow it again: python -m launch" in capsys.readouterr().err
    assert google.count("customJobs/.*:cancel") == 0


def run(*argv):
    with pytest.raises(SystemExit) as stop:
        cli.run(vertex.main, argv)
    return stop.value.code


def test_list_status_logs_cancel_and_resume(google, cloud, job, capsys):
    name, number = job.display_name, number_of(job)
    google.job_states = []
    google.set_state(google.jobs[number], "RUNNING")
    google.print(number, "a line")
    write(cloud, job, "metrics.jsonl", rows(7))
    capsys.readouterr()

    assert run("list", *WHERE, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["run"], row["state"] == (name, "RUNNING")
    assert row["machines"] == "ct5lp-hightpu-8t 2x4"
    assert run("list", *WHERE) == 0
    assert number in capsys.readouterr().out

    assert run("status", name, *WHERE) == 0
    shown = capsys.readouterr().out
    assert f"folder    {FOLDER.format(run=name)}" in shown
    assert "training  step 7  loss 2.0000  1,024 tokens/s" in shown
    assert run("status", number, *WHERE, "--json") == 0
    assert json.loads(capsys.readouterr().out)["progress"]["step"] == 7

    assert run("logs", name, *WHERE) == 0
    assert capsys.readouterr().out == "a line\n"

    assert run("resume", name, *WHERE) == 0
    assert "is RUNNING already" in capsys.readouterr().err
    assert run("cancel", name, *WHERE) == 0
    assert google.jobs[number]["state"] == "JOB_STATE_CANCELLED"
    assert "and resume continues" in capsys.readouterr().err
    assert run("cancel", name, *WHERE) == 0
    assert "has ended already: CANCELLED" in capsys.readouterr().err

    assert run("resume", name, *WHERE) == 0
    old, new = google.jobs.values()
    assert new["name"] != old["name"]
    same = [job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"] for job in (old, new)]
    assert same[0] == same[1]
    assert new["labels"] == old["labels"]


def test_a_resume_of_what_succeeded_starts_nothing(google, cloud, job):
    google.set_state(google.jobs[number_of(job)], "SUCCEEDED")
    assert run("resume", job.display_name, *WHERE) == 0
    assert len(google.jobs) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["status", "nothing", *WHERE],
            "no job of a run 'nothing' in project my-project",
        ),
        (
            ["status", "12345", *WHERE],
            "does not exist; the jobs that there are: python -m launch.vertex list",
        ),
        (["status", *WHERE], "the following arguments are required: RUN"),
        (["list"], "--project is missing"),
        (["list", "--project=My Project"], "a project id of 6 to 30"),
        (["logs", "x", "--folow", *WHERE], "did you mean --follow?"),
    ],
)
def test_a_mistake_is_one_line(google, monkeypatch, argv, message, capsys):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_help_shows_an_example(verb, capsys):
    assert run(verb, "--help") == 0
    assert f"python -m launch.vertex {verb} " in capsys.readouterr().out
