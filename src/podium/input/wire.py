# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer and its input process say to each other, and where batches cross.

A control socket carries requests for streams. Each stream has a socket of its own and
a ring of slots in memory that both processes map: the worker announces a filled slot,
the trainer answers with one byte when it has copied the slot out.
"""

import dataclasses
import enum
import json
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.config import DataConfig
from podium.input.damage import Damage
from podium.input.spec import StreamInfo, StreamSpec

_HEADER = struct.Struct("<BqI")  # kind, step, bytes that follow
_SIZE = struct.Struct("<I")
CREDIT = b"+"
READY = b"!"


class Kind(enum.IntEnum):
    """Of a message from the worker about a stream."""

    INFO = 0  # a StreamInfo follows, see `pack_info`
    BATCH = 1  # the next slot of the ring holds `step`
    ERROR = 2  # text of a DataError follows
    END = 3
    DAMAGED = 4  # before BATCH: what `step` goes without follows, see `pack_damaged`


def send_message(
    sock: socket.socket, kind: Kind, step: int = 0, body: bytes = b""
) -> None:
    """Sends one message. Raises OSError if the other side is gone."""
    sock.sendall(_HEADER.pack(kind, step, len(body)) + body)


def receive_message(sock: socket.socket) -> tuple[Kind, int, bytes]:
    """(kind, step, body). Raises EOFError or OSError if the other side is gone."""
    kind, step, size = _HEADER.unpack(_receive(sock, _HEADER.size))
    return Kind(kind), step, _receive(sock, size)


def send_request(sock: socket.socket, spec: StreamSpec, fds: list[int]) -> None:
    """Asks for a stream over `fds`: its socket and its memory."""
    tree = {**dataclasses.asdict(spec), "rows": list(spec.rows)}
    body = json.dumps(tree).encode()
    socket.send_fds(sock, [_SIZE.pack(len(body))], fds)
    sock.sendall(body)


def receive_request(sock: socket.socket) -> tuple[StreamSpec, list[int]] | None:
    """The next request, or None when the trainer is gone."""
    head, fds, _, _ = socket.recv_fds(sock, _SIZE.size, 2)
    if not head:
        return None
    tree = json.loads(_receive(sock, _SIZE.unpack(head)[0]))
    fields = tree["data"].items()
    data: Any = {k: tuple(v) if type(v) is list else v for k, v in fields}
    return StreamSpec(**{**tree, "data": DataConfig(**data)}), list(fds)


def pack_info(info: StreamInfo) -> bytes:
    """A StreamInfo as a message's body."""
    return json.dumps(dataclasses.asdict(info)).encode()


def unpack_info(body: bytes) -> StreamInfo:
    """Inverse of `pack_info`."""
    return StreamInfo(**json.loads(body))


def pack_damaged(damaged: Sequence[Damage]) -> bytes:
    """Damaged records as a message's body."""
    return json.dumps(damaged).encode()


def unpack_damaged(body: bytes) -> list[Damage]:
    """Inverse of `pack_damaged`."""
    return [Damage(*each) for each in json.loads(body)]


def make_memory(num_bytes: int) -> int:
    """A file descriptor of shared memory without a name, so nobody need unlink it.

    Not `multiprocessing.shared_memory`: that has a name that outlives a killed process,
    a tracker process of its own, and lies in /dev/shm, which containers cap at 64 MB.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("podium-batches")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, num_bytes)
    return fd


def map_ring(fd: int, shape: tuple[int, ...]) -> np.ndarray:
    """The memory behind `fd` as int32 of `shape`, [slots, fields, rows, T]."""
    return np.ndarray(shape, np.int32, mmap.mmap(fd, 4 * int(np.prod(shape))))


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more: Any = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
