# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Vertex AI, Cloud Build, Artifact Registry and Cloud Logging over loopback.

It speaks the REST of Google's own clients, which come here unmodified, and reads what
they send by the types inside them, so an unknown field is an error as it is there. What
Vertex AI checks of a job it checks too. It can refuse, vanish, and forget to answer.
"""

import base64
import contextlib
import datetime
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

from google.cloud.aiplatform_v1 import types
from google.cloud.devtools import cloudbuild_v1

# The project's number: names come back with it, not with its id.
from tests.launch.fake_experiments import NUMBER, Experiments, RefusedError

_SERVICES = (
    *("AIPLATFORM", "CLOUDBUILD", "ARTIFACTREGISTRY", "LOGGING"),
    "SECRETMANAGER",
)
TUNING = "hyperparameterTuningJobs"
_ACTIVE = ("JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING")


class FakeCloud:
    """The state of one project, and the faults to come."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.trials: list[list[dict[str, Any]]] = []  # of a sweep, at each question
        self.builds: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}  # "podium-tpu:TAG" -> digest
        self.repositories = {"podium"}
        self.secrets: dict[str, bytes] = {}  # projects/P/secrets/S/versions/V -> value
        self.log: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.job_states = ["PENDING", "RUNNING", "SUCCEEDED"]  # one a question
        self.job_error = ""
        self.build_fails = ""
        self.on_job: Callable[[dict[str, Any]], None] | None = None  # runs it itself
        self.on_sweep: Callable[[dict[str, Any]], None] | None = None  # and its trials
        self.experiments = Experiments()
        self.is_down = False  # every request is refused
        self._faults: list[tuple[str, int, str, bool]] = []
        self._lock = threading.RLock()

    def fail(
        self, path: str, code: int, message: str = "away", *, times: int = 1, late=False
    ) -> None:
        """The next requests whose "VERB /path" matches are refused; 0: no answer at all.

        `late`: only after they took effect.
        """
        self._faults += [(path, code, message, late)] * times

    def count(self, pattern: str) -> int:
        """Requests that came, of "VERB /path"."""
        return sum(bool(re.search(pattern, f"{v} {p}")) for v, p in self.requests)

    def print(self, job: str, text: str, task: str = "workerpool0-0") -> None:
        """A line of a container."""
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        self.log.append(
            {
                "insertId": f"line-{len(self.log)}",
                "logName": f"projects/my-project/logs/{task}",
                "timestamp": now,
                "resource": {
                    "type": "ml_job",
                    "labels": {"job_id": job, "task_name": task},
                },
                "jsonPayload": {"message": text},
            }
        )

    # --- requests --------------------------------------------------------------------

    def handle(self, verb: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The answer, or RefusedError; None: the connection is dropped."""
        with self._lock:
            self.requests.append((verb, path))
            if self.is_down:
                raise RefusedError(503, "UNAVAILABLE", "The service is unavailable.")
            fault = self._take_fault(f"{verb} {path}")
            if fault and not fault[3]:
                return self._broken(fault)
            answer = self._route(verb, path, query, body)
            return self._broken(fault) if fault else answer

    def _take_fault(self, what: str) -> tuple[str, int, str, bool] | None:
        for i, fault in enumerate(self._faults):
            if re.search(fault[0], what):
                return self._faults.pop(i)
        return None

    @staticmethod
    def _broken(fault: tuple[str, int, str, bool]) -> None:
        _, code, message, _ = fault
        if code == 0:
            return None
        names = {403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
        names |= {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 401: "UNAUTHENTICATED"}
        raise RefusedError(code, names.get(code, "UNAVAILABLE"), message)

    def _route(self, verb: str, path: str, query: dict[str, str], body: Any) -> Any:
        routes = {
            r"POST /v1/(projects/[^/]+/locations/[^/]+)/customJobs": self._create_job,
            r"GET /v1/(projects/[^/]+/locations/[^/]+)/customJobs": self._list_jobs,
            r"GET /v1/(projects/.+/customJobs/\d+)": self._get_job,
            r"POST /v1/(projects/.+/customJobs/\d+):cancel": self._cancel_job,
            rf"POST /v1/(projects/[^/]+/locations/[^/]+)/{TUNING}": self._create_sweep,
            rf"GET /v1/(projects/[^/]+/locations/[^/]+)/{TUNING}": self._list_sweeps,
            rf"GET /v1/(projects/.+/{TUNING}/\d+)": self._get_sweep,
            r"POST /v1/(projects/[^/]+/locations/[^/]+)/builds": self._create_build,
            r"GET /v1/(projects/[^/]+/locations/[^/]+)/builds": self._list_builds,
            r"GET /v1/projects/[^/]+/locations/[^/]+/builds/(.+)": self._get_build,
            r"GET /v1/projects/.+/packages/(.+)/tags/(.+)": self._get_tag,
            r"GET /v1/projects/[^/]+/locations/[^/]+/repositories/(.+)": self._get_repo,
            r"POST /v2/entries:list": self._entries,
            r"GET /v1/(projects/.+/secrets/.+/versions/.+):access": self._secret,
        }
        found = self.experiments.route(verb, path, query, body)
        if found is not None:
            return found
        for pattern, handler in routes.items():
            if found := re.fullmatch(pattern, f"{verb} {path}"):
                return handler(*found.groups(), query=query, body=body)
        raise RefusedError(404, "NOT_FOUND", f"no such route: {verb} {path}")

    # --- Vertex AI -------------------------------------------------------------------

    def _create_job(self, parent: str, *, query: Any, body: Any) -> Any:
        types.CustomJob.from_json(json.dumps(body))  # unknown fields raise
        _check_job(body)
        number = str(5_000_000_000_000_000_000 + len(self.jobs))
        region = parent.split("/")[3]
        job = {
            **body,
            "name": f"projects/{NUMBER}/locations/{region}/customJobs/{number}",
            "state": "JOB_STATE_QUEUED",
            "createTime": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        self.jobs[number] = job
        if self.on_job:
            threading.Thread(target=self.on_job, args=(job,), daemon=True).start()
        return job

    def _list_jobs(self, parent: str, *, query: dict[str, str], body: Any) -> Any:
        found = re.fullmatch(r'labels\.(\w+)(?:="([^"]*)"|(:\*))', query["filter"])
        assert found, query
        jobs = [
            job
            for job in self.jobs.values()
            if (value := job["labels"].get(found[1])) is not None
            and (found[3] or value == found[2])
        ]
        return {"customJobs": jobs}

    def _get_job(self, name: str, *, query: Any, body: Any) -> Any:
        job = self.jobs.get(name.rpartition("/")[2])
        if job is None:
            raise RefusedError(
                404, "NOT_FOUND", f"The CustomJob {name} does not exist."
            )
        if self.on_job is None and job["state"] in _ACTIVE and self.job_states:
            self.set_state(job, self.job_states.pop(0), self.job_error)
        return job

    def set_state(self, job: dict[str, Any], state: str, error: str = "") -> None:
        """What the service does by itself."""
        job["state"] = f"JOB_STATE_{state}"
        if state == "FAILED":
            job["error"] = {"code": 3, "message": error}

    def _cancel_job(self, name: str, *, query: Any, body: Any) -> Any:
        job = self.jobs[name.rpartition("/")[2]]
        if job["state"] not in _ACTIVE:
            raise RefusedError(400, "FAILED_PRECONDITION", "the job has ended")
        job["state"] = "JOB_STATE_CANCELLED"
        return {}

    def _create_sweep(self, parent: str, *, query: Any, body: Any) -> Any:
        types.HyperparameterTuningJob.from_json(json.dumps(body))
        _check_job({**body, "jobSpec": body["trialJobSpec"]})
        for each in body["studySpec"]["parameters"]:
            kinds = [key for key in each if key.endswith("ValueSpec")]
            if len(kinds) != 1 or "." not in each["parameterId"]:
                raise RefusedError(400, "INVALID_ARGUMENT", str(each))
        number = str(6_000_000_000_000_000_000 + len(self.sweeps))
        region = parent.split("/")[3]
        sweep = {
            **body,
            "name": f"projects/{NUMBER}/locations/{region}/{TUNING}/{number}",
            "state": "JOB_STATE_PENDING",
            "createTime": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        self.sweeps[number] = sweep
        if self.on_sweep:
            threading.Thread(target=self.on_sweep, args=(sweep,), daemon=True).start()
        return sweep

    def _list_sweeps(self, parent: str, *, query: dict[str, str], body: Any) -> Any:
        found = re.fullmatch(r'labels\.(\w+)="([^"]*)"', query["filter"])
        assert found, query
        sweeps = self.sweeps.values()
        return {TUNING: [s for s in sweeps if s["labels"].get(found[1]) == found[2]]}

    def _get_sweep(self, name: str, *, query: Any, body: Any) -> Any:
        sweep = self.sweeps[name.rpartition("/")[2]]
        if self.on_sweep:
            return sweep
        if self.trials:
            sweep["trials"] = self.trials.pop(0)
            sweep["state"] = "JOB_STATE_RUNNING"
        else:
            sweep["state"] = "JOB_STATE_SUCCEEDED"
        return sweep

    # --- Cloud Build and Artifact Registry -------------------------------------------

    def _create_build(self, parent: str, *, query: Any, body: Any) -> Any:
        cloudbuild_v1.Build.from_json(json.dumps(body))
        number = f"b-{len(self.builds)}"
        build = {
            **body,
            "id": number,
            "name": f"{parent}/builds/{number}",
            "status": "QUEUED",
            "logUrl": f"https://console.cloud.google.com/cloud-build/builds/{number}",
        }
        self.builds[number] = build
        kind = (
            "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata"
        )
        return {
            "name": f"operations/build/my-project/{number}",
            "metadata": {"@type": kind, "build": build},
        }

    def _list_builds(self, parent: str, *, query: dict[str, str], body: Any) -> Any:
        tag = re.search(r'tags="([^"]+)"', query["filter"])
        assert tag
        return {
            "builds": [
                build
                for build in self.builds.values()
                if tag[1] in build["tags"] and build["status"] in ("QUEUED", "WORKING")
            ]
        }

    def _get_build(self, number: str, *, query: Any, body: Any) -> Any:
        build = self.builds[number]
        if build["status"] == "QUEUED":
            build["status"] = "WORKING"
        elif self.build_fails:
            build["status"] = "FAILURE"
            build["failureInfo"] = {
                "type": "USER_BUILD_STEP",
                "detail": self.build_fails,
            }
            for step, status in zip(
                build["steps"], ("SUCCESS", "FAILURE"), strict=True
            ):
                step["status"] = status
        else:
            build["status"] = "SUCCESS"
            digest = "sha256:" + f"{len(self.tags):064x}"
            for image in build["images"]:
                self.tags[image.rpartition("/")[2]] = digest
            build["results"] = {
                "images": [{"name": i, "digest": digest} for i in build["images"]]
            }
        return build

    def _get_tag(self, image: str, tag: str, *, query: Any, body: Any) -> Any:
        digest = self.tags.get(f"{image}:{tag}")
        if digest is None:
            raise RefusedError(404, "NOT_FOUND", "Requested entity was not found.")
        package = f"projects/p/locations/r/repositories/podium/packages/{image}"
        return {
            "name": f"{package}/tags/{tag}",
            "version": f"{package}/versions/{digest}",
        }

    def _get_repo(self, name: str, *, query: Any, body: Any) -> Any:
        if name not in self.repositories:
            raise RefusedError(404, "NOT_FOUND", "Requested entity was not found.")
        return {"name": name, "format": "DOCKER"}

    # --- Secret Manager --------------------------------------------------------------

    def _secret(self, name: str, *, query: Any, body: Any) -> Any:
        if name not in self.secrets:
            raise RefusedError(404, "NOT_FOUND", f"Secret [{name}] not found.")
        data = base64.b64encode(self.secrets[name]).decode()
        return {"name": name, "payload": {"data": data}}

    # --- Cloud Logging ---------------------------------------------------------------

    def _entries(self, *, query: Any, body: Any) -> Any:
        job = re.search(r'job_id="(\d+)"', body["filter"])
        since = re.search(r'timestamp>="([^"]+)"', body["filter"])
        assert job
        assert since
        return {
            "entries": [
                entry
                for entry in self.log
                if entry["resource"]["labels"]["job_id"] == job[1]
                and entry["timestamp"] >= since[1]
            ]
        }


def _check_job(job: dict[str, Any]) -> None:
    """What Vertex AI refuses, as far as its pages say."""
    spec = job["jobSpec"]
    pools = spec["workerPoolSpecs"]
    tpu = "tpuTopology" in pools[0]["machineSpec"]
    if tpu and (len(pools) > 1 or pools[0]["replicaCount"] != "1"):
        raise RefusedError(
            400, "INVALID_ARGUMENT", "one pool of one replica for a TPU slice"
        )
    if pools[0]["replicaCount"] != "1":
        raise RefusedError(400, "INVALID_ARGUMENT", "the first pool has one replica")
    for key, value in job["labels"].items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(
            r"[a-z0-9_-]{0,63}", value
        ):
            raise RefusedError(400, "INVALID_ARGUMENT", f"label {key}={value}")
    if len(job["displayName"]) > 128:
        raise RefusedError(400, "INVALID_ARGUMENT", "displayName")
    out = spec["baseOutputDirectory"]["outputUriPrefix"]
    if not out.startswith("gs://"):
        raise RefusedError(400, "INVALID_ARGUMENT", out)


@contextlib.contextmanager
def fake_cloud() -> Iterator[FakeCloud]:
    """Serves while it is entered; the clients of this process and its children come."""
    cloud = FakeCloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece: else the client's kernel waits 40 ms

        def _answer(self) -> None:
            address = urllib.parse.urlsplit(self.path)
            query: Any = {
                name: values if len(values) > 1 else values[0]
                for name, values in urllib.parse.parse_qs(address.query).items()
            }
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            path = urllib.parse.unquote(address.path)
            code = 200
            try:
                answer = cloud.handle(self.command, path, query, body)
            except RefusedError as error:
                code = error.code
                told = {"code": code, "status": error.status, "message": error.message}
                answer = {"error": told}
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    names = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{s}": f"{address}/" for s in _SERVICES}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with mock.patch.dict(os.environ, names):
        try:
            yield cloud
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
