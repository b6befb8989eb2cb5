# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the containers of a job as processes of this machine, as Vertex AI would.

Each replica, or host of a slice, gets the job's own command, the environment that Vertex
AI gives, and a disk of its own. The job has succeeded when the first one exits with 0;
then the others are ended. 134 and 139 start it again, up to three times; any other code
fails it.
"""

import contextlib
import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.launch.fake_cloud import FakeCloud

ROOT = Path(__file__).parents[2]
_TRIES = 3
_GRACE_SECS = 200.0


class Containers:
    """For `FakeCloud.on_job`."""

    def __init__(self, google: FakeCloud, disks: Path):
        self._google, self.disks = google, disks
        self.starts = 0
        self.processes: list[subprocess.Popen] = []
        self.codes: list[list[int | None]] = []  # of every start
        self._is_lost = False
        self._readers: list[threading.Thread] = []

    def run(self, job: dict[str, Any]) -> None:
        """Until the job has ended."""
        try:
            self._run(job)
        except Exception as error:  # a fault of this file must not hang a test
            self._google.set_state(job, "FAILED", f"Internal error: {error!r}")
            raise

    def _run(self, job: dict[str, Any]) -> None:
        tries = 0
        while True:
            self._google.set_state(job, "PENDING")
            self._start(job)
            self._google.set_state(job, "RUNNING")
            code = self._wait(job)
            if job["state"] == "JOB_STATE_CANCELLED":
                return
            if self._is_lost:  # the service's own fault: started again, not counted
                self._is_lost = False
                continue
            if code == 0:
                return self._google.set_state(job, "SUCCEEDED")
            tries += 1
            if code not in (134, 139) or tries > _TRIES:
                why = f"The replica workerpool0-0 exited with a non-zero status of {code}."
                return self._google.set_state(job, "FAILED", why)

    def lose_hosts(self) -> None:
        """The machines are gone at once, with their disks."""
        self._is_lost = True
        self.kill()

    def kill(self) -> None:
        """Ends every container with all that runs in it."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def preempt(self) -> None:
        """The machines are about to go: every container hears SIGTERM."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)

    def disk(self, host: int) -> Path:
        """Of a host in its present start."""
        return self.disks / f"start{self.starts}-host{host}"

    def _start(self, job: dict[str, Any]) -> None:
        self.starts += 1
        spec = job["jobSpec"]
        hosts = _environments(spec)
        container = spec["workerPoolSpecs"][0]["containerSpec"]
        base = spec["baseOutputDirectory"]["outputUriPrefix"]
        words = [*container["command"], *container["args"]]
        words = [word.replace("$$(", "$(") for word in words]
        given = {row["name"]: row["value"] for row in container.get("env", [])}
        number = job["name"].rpartition("/")[2]
        # Its port belongs to nobody when a job is started again.
        port = given.pop("JAX_COORDINATOR_PORT", None) and str(_free_port())
        here = str(Path(sys.executable).parent)
        self.processes = []
        for host, env in enumerate(hosts):
            image = self.disk(host) / "podium"
            image.mkdir(parents=True)
            shutil.copy(ROOT / "uv.lock", image)
            command = [sys.executable if w == "python" else w for w in words]
            process = subprocess.Popen(
                command,
                cwd=self.disks,
                env={
                    **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                    "PATH": os.pathsep.join([here, os.environ["PATH"]]),
                    "PODIUM_HOME": str(image),
                    "TMPDIR": str(self.disk(host)),
                    "JAX_PLATFORMS": "cpu",
                    "AIP_MODEL_DIR": f"{base}/model/",
                    "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
                    "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
                    "CLOUD_ML_JOB_ID": number,
                    **given,
                    **({"JAX_COORDINATOR_PORT": port} if port else {}),
                    **env,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # a group to be killed as a whole
            )
            self.processes.append(process)
            reader = threading.Thread(target=self._read, args=(process, number, host))
            reader.start()
            self._readers.append(reader)

    def _read(self, process: subprocess.Popen, job: str, host: int) -> None:
        assert process.stdout
        task = f"workerpool{min(host, 1)}-{max(host - 1, 0)}"
        with process.stdout:
            for line in process.stdout:
                self._google.print(job, line.rstrip("\n"), task)

    def _wait(self, job: dict[str, Any]) -> int:
        """The exit code that decides."""
        first = self.processes[0]
        while True:
            codes = [process.poll() for process in self.processes]
            bad = next((code for code in codes if code not in (None, 0)), None)
            is_cancelled = job["state"] == "JOB_STATE_CANCELLED"
            if first.poll() is not None or bad is not None or is_cancelled:
                break
            time.sleep(0.05)
        self._end(is_killed=is_cancelled or self._is_lost)
        for reader in self._readers:
            reader.join()
        self.codes.append([process.returncode for process in self.processes])
        return 0 if first.returncode == 0 and bad is None else bad or first.returncode

    def _end(self, *, is_killed: bool) -> None:
        """The others may go by themselves; then they are made to."""
        until = time.monotonic() + (0 if is_killed else _GRACE_SECS)
        for process in self.processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Trials:
    """For `FakeCloud.on_sweep`: the trials of a tuning job, one after another, each as a
    job of its own. Proposals are given, as Vizier is not here."""

    def __init__(
        self, containers: Containers, google: FakeCloud, proposals: list[dict[str, Any]]
    ):
        self._containers, self._google = containers, google
        self._proposals = proposals

    def run(self, sweep: dict[str, Any]) -> None:
        """Until the last trial has ended."""
        self._google.set_state(sweep, "RUNNING")
        sweep["trials"] = []
        for number, proposal in enumerate(self._proposals, 1):
            given = [{"parameterId": k, "value": v} for k, v in proposal.items()]
            trial = {"id": str(number), "state": "ACTIVE", "parameters": given}
            sweep["trials"].append(trial)
            job, told = self._job(sweep, trial)
            self._containers.run(job)
            if job["state"] != "JOB_STATE_SUCCEEDED":
                trial["state"] = "INFEASIBLE"
                continue
            last = json.loads(told.read_text().splitlines()[-1])
            (metric,) = (each["metricId"] for each in sweep["studySpec"]["metrics"])
            values = [{"metricId": metric, "value": float(last[metric])}]
            trial["finalMeasurement"] = {
                "stepCount": last["global_step"],
                "metrics": values,
            }
            trial["state"] = "SUCCEEDED"
        self._google.set_state(sweep, "SUCCEEDED")

    def _job(
        self, sweep: dict[str, Any], trial: dict[str, Any]
    ) -> tuple[dict[str, Any], Path]:
        spec = copy.deepcopy(sweep["trialJobSpec"])
        where = spec["baseOutputDirectory"]
        where["outputUriPrefix"] = f"{where['outputUriPrefix']}/{trial['id']}"
        container = spec["workerPoolSpecs"][0]["containerSpec"]
        container["args"] += [
            f"--{each['parameterId']}={each['value']}" for each in trial["parameters"]
        ]
        told = self._containers.disks / f"trial{trial['id']}" / "output.metrics"
        env = {"CLOUD_ML_TRIAL_ID": trial["id"], "CLOUD_ML_HP_METRIC_FILE": str(told)}
        container.setdefault("env", []).extend(
            {"name": name, "value": value} for name, value in env.items()
        )
        name = f"{sweep['name']}-{trial['id']}"
        return {"name": name, "state": "JOB_STATE_QUEUED", "jobSpec": spec}, told


def _environments(spec: dict[str, Any]) -> list[dict[str, str]]:
    """What tells the hosts who they are."""
    pools = spec["workerPoolSpecs"]
    topology = pools[0]["machineSpec"].get("tpuTopology")
    if topology:
        chips = 1
        for n in topology.split("x"):
            chips *= int(n)
        hosts = max(1, chips // 4)
        spec = {"cluster": {"workerpool0": ["localhost:2222"]}}
        spec |= {"task": {"type": "workerpool0", "index": 0}}
        if hosts == 1:
            return [{"CLUSTER_SPEC": json.dumps(spec)}]
        names = ",".join(["127.0.0.1"] * hosts)
        return [
            {
                "CLUSTER_SPEC": json.dumps(spec),
                "JAX_FORCE_TPU_INIT": "1",
                "TPU_WORKER_ID": str(host),
                "TPU_WORKER_HOSTNAMES": names,
                "TPU_TOPOLOGY": topology,
                "TPU_SKIP_MDS_QUERY": "1",
                # One slice; where these are not set, jax asks the metadata server.
                "MEGASCALE_COORDINATOR_ADDRESS": "",
                "MEGASCALE_NUM_SLICES": "",
                "MEGASCALE_SLICE_ID": "",
            }
            for host in range(hosts)
        ]
    count = sum(int(pool["replicaCount"]) for pool in pools)
    port = _free_port()
    cluster = {"workerpool0": [f"127.0.0.1:{port}"]}
    if count > 1:
        cluster["workerpool1"] = [f"127.0.0.1:{port + i}" for i in range(1, count)]
    tasks = [("workerpool0", 0)] + [("workerpool1", i) for i in range(count - 1)]
    return [
        {
            "CLUSTER_SPEC": json.dumps(
                {
                    "cluster": cluster,
                    "environment": "cloud",
                    "task": {"type": pool, "index": index},
                    "job": json.dumps({"scaleTier": "CUSTOM"}),
                }
            )
        }
        for pool, index in tasks
    ]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
