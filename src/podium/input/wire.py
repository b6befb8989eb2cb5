# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer and its input process say to each other, and where batches cross.

A control socket carries requests for streams. Each stream has a socket of its own and
a ring of slots in memory that both processes map: the worker announces a filled slot,
the trainer answers with one byte when it has copied the slot out.
"""

import enum
import mmap
import os
import pickle
import socket
import struct
import tempfile
from typing import Any

import numpy as np

from podium.input.spec import StreamSpec

_HEADER = struct.Struct("<BqI")  # kind, step, bytes that follow
_SIZE = struct.Struct("<I")
CREDIT = b"+"
READY = b"!"


class Kind(enum.IntEnum):
    """Of a message from the worker about a stream."""

    INFO = 0  # pickled StreamInfo follows
    BATCH = 1  # the next slot of the ring holds `step`
    ERROR = 2  # text of a DataError follows
    END = 3


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
    body = pickle.dumps(spec)
    socket.send_fds(sock, [_SIZE.pack(len(body))], fds)
    sock.sendall(body)


def receive_request(sock: socket.socket) -> tuple[StreamSpec, list[int]] | None:
    """The next request, or None when the trainer is gone."""
    head, fds, _, _ = socket.recv_fds(sock, _SIZE.size, 2)
    if not head:
        return None
    return pickle.loads(_receive(sock, _SIZE.unpack(head)[0])), list(fds)


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
