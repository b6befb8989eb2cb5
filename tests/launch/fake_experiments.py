# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Vertex ML Metadata and TensorBoard, behind `fake_cloud`: what Experiments is made of.

Resources are kept as JSON under their names, which have the project's number. What is
sent is read by the client's own types; ids, limits, etags and duplicates are checked as
their documentation says.
"""

import json
import re
from typing import Any

from google.cloud.aiplatform_v1 import types

NUMBER = "123456789012"
_CONTEXT_ID = r"[a-z0-9][a-z0-9-]{0,127}"
_BOARD_ID = r"[a-z0-9-]{1,128}"
_MOST_POINTS = 5000
_MOST_BYTES = 200_000  # of a context's metadata
_KINDS = {
    "metadataStores": ("metadataStoreId", types.MetadataStore, r"default"),
    "contexts": ("contextId", types.Context, _CONTEXT_ID),
    "artifacts": ("artifactId", types.Artifact, _CONTEXT_ID),
    "executions": ("executionId", types.Execution, _CONTEXT_ID),
    "tensorboards": (None, types.Tensorboard, r"\d+"),
    "experiments": ("tensorboardExperimentId", types.TensorboardExperiment, _BOARD_ID),
    "runs": ("tensorboardRunId", types.TensorboardRun, _BOARD_ID),
    "timeSeries": ("tensorboardTimeSeriesId", types.TensorboardTimeSeries, r"\d+"),
}
_SLOW = {"metadataStores": "MetadataStore", "tensorboards": "Tensorboard"}


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, status: str, message: str):
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


class Experiments:
    """All resources of a project."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}  # name -> resource
        self.children: dict[str, list[str]] = {}  # context -> contexts
        self.parts: dict[str, list[str]] = {}  # context -> artifacts, executions
        self.events: dict[str, dict[str, str]] = {}  # execution -> artifact -> kind
        self.points: dict[str, dict[int, float]] = {}  # series -> step -> value
        self.operations: dict[str, dict[str, Any]] = {}

    def route(self, verb: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The answer; None where the path is another service's."""
        found = re.fullmatch(
            r"/(?:v1|ui)/projects/[^/]+/(locations/[^/]+(?:/.*?)?)(?::(\w+))?", path
        )
        if not found:
            return None
        name = f"projects/{NUMBER}/{found[1]}"
        if verb == "GET" and name in self.operations:
            return self.operations[name]
        kinds = name.split("/")[4::2]
        if not kinds or any(kind not in _KINDS for kind in kinds):
            return None
        if found[2]:
            return self._act(found[2], name, query, body)
        is_parent = len(name.split("/")) % 2 == 1
        if verb == "POST" and is_parent:
            return self._create(name, kinds[-1], query, body)
        if verb == "GET" and is_parent:
            return self._list(name, kinds[-1], query)
        if verb == "PATCH":
            return self._update(name, query, body)
        return self._get(name)

    def _get(self, name: str) -> dict[str, Any]:
        if name not in self.found:
            raise RefusedError(404, "NOT_FOUND", f"{name} is not found.")
        return self.found[name]

    def _create(self, names: str, kind: str, query: dict[str, str], body: Any) -> Any:
        key, type_, form = _KINDS[kind]
        parent = names.rpartition("/")[0]
        if kind not in _SLOW:
            self._get(parent)
        type_.from_json(json.dumps(body))  # unknown fields raise
        id_ = query.get(key or "") or str(9_000_000 + len(self.found))
        if not re.fullmatch(form, id_):
            raise RefusedError(400, "INVALID_ARGUMENT", f"{key} {id_!r} is not {form}")
        name = f"{names}/{id_}"
        is_twin = kind == "timeSeries" and any(
            n.startswith(f"{names}/") and r["displayName"] == body["displayName"]
            for n, r in self.found.items()
        )
        if name in self.found or is_twin:
            raise RefusedError(409, "ALREADY_EXISTS", f"{name} already exists.")
        self.found[name] = {**body, "name": name, "etag": "1"}
        if kind not in _SLOW:
            return self.found[name]
        package = "type.googleapis.com/google.cloud.aiplatform.v1"
        operation = {
            "name": f"{name}/operations/1",
            "done": True,
            "response": {"@type": f"{package}.{_SLOW[kind]}", "name": name},
        }
        self.operations[operation["name"]] = operation
        return operation

    def _list(self, names: str, kind: str, query: dict[str, str]) -> Any:
        found = [
            resource
            for name, resource in self.found.items()
            if name.startswith(f"{names}/") and "/" not in name[len(names) + 1 :]
        ]
        text = query.get("filter", "")
        if "is_default=true" in text:
            found = [resource for resource in found if resource.get("isDefault")]
        if title := re.search(r'schema_title="([^"]+)"', text):
            found = [r for r in found if r.get("schemaTitle") == title[1]]
        if parent := re.search(r'parent_contexts:"([^"]+)"', text):
            name = re.sub(r"projects/[^/]+", f"projects/{NUMBER}", parent[1])
            found = [r for r in found if r["name"] in self.children.get(name, [])]
        field = {"timeSeries": "tensorboardTimeSeries"}.get(kind, kind)
        if kind in ("experiments", "runs"):
            field = "tensorboard" + kind.capitalize()
        return {field: found}

    def _update(self, name: str, query: dict[str, str], body: Any) -> Any:
        found = self._get(name)
        if "etag" in body and body["etag"] != found["etag"]:
            raise RefusedError(
                409,
                "ABORTED",
                f"Specified Context `etag`: `{body['etag']}` does not match server "
                f"`etag`: `{found['etag']}`",
            )
        for path in query.get("updateMask", "").split(","):
            if path:
                found[path] = body[path]
        if len(json.dumps(found.get("metadata", {}))) > _MOST_BYTES:
            raise RefusedError(400, "INVALID_ARGUMENT", "metadata is over 200 KB")
        found["etag"] = str(int(found["etag"]) + 1)
        return found

    def _act(self, what: str, name: str, query: dict[str, str], body: Any) -> Any:
        def named(given: str) -> str:
            there = re.sub(r"^projects/[^/]+", f"projects/{NUMBER}", given)
            self._get(there)
            return there

        if what == "write":
            return self._write(name, body)
        if what == "batchRead":
            wanted = query["timeSeries"]
            wanted = wanted if isinstance(wanted, list) else [wanted]
            return {"timeSeriesData": [self._read(named(series)) for series in wanted]}
        if what == "read":
            return {"timeSeriesData": self._read(name)}
        self._get(name)
        if what == "addContextChildren":
            there = self.children.setdefault(name, [])
            there += [c for c in map(named, body["childContexts"]) if c not in there]
        elif what == "addContextArtifactsAndExecutions":
            there = self.parts.setdefault(name, [])
            given = [*body.get("artifacts", []), *body.get("executions", [])]
            there += [c for c in map(named, given) if c not in there]
        elif what == "addExecutionEvents":
            for event in body["events"]:
                types.Event.from_json(json.dumps(event))
                kind = types.Event.Type(event["type"]).name
                self.events.setdefault(name, {})[named(event["artifact"])] = kind
        else:
            raise RefusedError(404, "NOT_FOUND", f"no such method: {what}")
        return {}

    def _write(self, name: str, body: Any) -> Any:
        types.WriteTensorboardRunDataRequest.from_json(json.dumps(body))
        self._get(name)
        points = sum(len(series["values"]) for series in body["timeSeriesData"])
        if points > _MOST_POINTS:
            raise RefusedError(
                400, "INVALID_ARGUMENT", f"{points} points, at most 5000"
            )
        for series in body["timeSeriesData"]:
            full = f"{name}/timeSeries/{series['tensorboardTimeSeriesId']}"
            self._get(full)
            there = self.points.setdefault(full, {})
            for point in series["values"]:
                there[int(point["step"])] = point["scalar"].get("value", 0.0)
        return {}

    def _read(self, name: str) -> dict[str, Any]:
        points = sorted(self.points.get(name, {}).items())
        return {
            "tensorboardTimeSeriesId": name.rpartition("/")[2],
            "valueType": "SCALAR",
            "values": [{"step": s, "scalar": {"value": v}} for s, v in points],
        }

    # --- for tests ---------------------------------------------------------------------

    def context(self, id_: str) -> dict[str, Any]:
        """A context by its id."""
        return next(r for n, r in self.found.items() if n.endswith(f"/contexts/{id_}"))

    def curve(self, run: str, metric: str) -> dict[int, float]:
        """Step -> value, as the service has it."""
        for name, resource in self.found.items():
            is_it = f"/runs/{run}/timeSeries/" in name
            if is_it and resource["displayName"] == metric:
                return self.points.get(name, {})
        return {}
