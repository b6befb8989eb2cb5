# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts: a network that can be cut, and a disk that can be full.

Linux namespaces, which need no privilege where user namespaces are permitted: nothing
outside sees them, and they vanish with the processes that hold them. Where they are not
permitted, a proxy that can be severed, and a limit on the size of files.
"""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_NET = "10.77.0"
_TOOLS = ("unshare", "nsenter", "ip")


def can_make_network() -> bool:
    """Whether this user may have hosts of their own."""
    script = "ip link add br0 type bridge && ip link add name v0 type veth peer name v1"
    return _succeeds(["unshare", "-Urnmu", "sh", "-c", script])


def can_mount() -> bool:
    """Whether this user may mount a small disk."""
    script = "mount -t tmpfs -o size=1m none /mnt"
    return _succeeds(["unshare", "-Urm", "sh", "-c", script])


class Network:
    """Hosts on one switch, each with its name, address and cable."""

    def __init__(self, count: int, folder: Path):
        names = [f"{_NET}.{i + 1} drill{i}" for i in range(count)]
        hosts = folder / "hosts"
        hosts.write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")
        with contextlib.ExitStack() as held:
            self._switch = held.enter_context(_holding("unshare", "-Urnm"))
            inside = _enter(self._switch, "-U", "-n", "-m")
            _do([*inside, "mount", "--bind", str(hosts), "/etc/hosts"])
            _do([*inside, "ip", "link", "add", "br0", "type", "bridge"])
            _do([*inside, "ip", "link", "set", "br0", "up"])
            self._hosts = []
            for i in range(count):
                host = held.enter_context(_holding(*inside, "unshare", "-n", "-u"))
                self._hosts.append(host)
                link = f"ip link add v{i} type veth peer name eth0 netns {host.pid}"
                _do([*inside, *link.split()])
                _do([*inside, "ip", "link", "set", f"v{i}", "master", "br0", "up"])
                on_host = (
                    f"hostname drill{i} && ip link set lo up && ip address add "
                    f"{self.address(i)}/24 dev eth0 && ip link set eth0 up"
                )
                _do([*self.on(i), "sh", "-c", on_host])
            self._held = held.pop_all()

    def on(self, host: int) -> list[str]:
        """What to put before a command that is to run there."""
        return _enter(self._hosts[host], "-U", "-n", "-m", "-u")

    def address(self, host: int) -> str:
        """Of a host, for the others."""
        return f"{_NET}.{host + 1}"

    def plug(self, host: int, *, is_in: bool) -> None:
        """Pulls a host's cable out, or puts it back."""
        state = "up" if is_in else "down"
        inside = _enter(self._switch, "-U", "-n", "-m")
        _do([*inside, "ip", "link", "set", f"v{host}", state])

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


class SmallDisk:
    """A tmpfs of a few megabytes at a path that only processes `on` it see."""

    def __init__(self, path: Path, num_bytes: int):
        path.mkdir()
        with contextlib.ExitStack() as held:
            self._holder = held.enter_context(_holding("unshare", "-Urm"))
            size = f"size={num_bytes}"
            _do([*self.on, "mount", "-t", "tmpfs", "-o", size, "none", str(path)])
            self._held = held.pop_all()
        self.seen = Path(f"/proc/{self._holder.pid}/root{path}")
        self._ballast = self.seen / ".ballast"

    @property
    def on(self) -> list[str]:
        """What to put before a command that is to see it."""
        return _enter(self._holder, "-U", "-m")

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """No byte is free, and one that becomes so is taken at once; then all are."""
        over = threading.Event()
        taking = threading.Thread(target=self._take, args=[over])
        taking.start()
        try:
            yield
        finally:
            over.set()
            taking.join()
            self._ballast.unlink()

    def _take(self, over: threading.Event) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            size = 1 << 20
            while not over.is_set():
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size = max(1, size // 2)
                    if size == 1:
                        over.wait(0.005)

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


class Proxy:
    """Hands bytes on to an address, until it is severed: then it only takes them."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._to: tuple[str, int] | None = None
        self._is_severed = self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, host: str, port: int) -> None:
        """Where new connections go."""
        self._to = (host, port)

    def sever(self) -> None:
        """No byte passes any more, and no connection is closed."""
        self._is_severed = True

    def close(self) -> None:
        """Ends all."""
        self._is_closed = True
        self._server.close()

    def _accept(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                near, _ = self._server.accept()
                threading.Thread(target=self._pass, args=[near], daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            while self._to is None:
                time.sleep(0.01)
            with socket.create_connection(self._to) as far:
                other = {near: far, far: near}
                while not self._is_closed:
                    ready, _, _ = select.select([near, far], [], [], 0.1)
                    for end in [] if self._is_severed else ready:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        other[end].sendall(data)


@contextlib.contextmanager
def _holding(*command: str):
    """A process that keeps namespaces alive; gone at the latest when we are."""
    holder = subprocess.Popen([*command, "cat"], stdin=subprocess.PIPE)
    try:
        name = "cat"  # exec'd once it is inside
        while Path(f"/proc/{holder.pid}/comm").read_text().strip() != name:
            if holder.poll() is not None:
                raise OSError(f"{' '.join(command)} ended with {holder.returncode}")
            time.sleep(0.01)
        yield holder
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdin
        holder.stdin.close()


def _enter(holder: subprocess.Popen, *which: str) -> list[str]:
    enter = ["nsenter", "-t", str(holder.pid), *which]
    return [*enter, "--preserve-credentials", "--"]


def _do(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _succeeds(command: list[str]) -> bool:
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    if not all(shutil.which(tool, path=path["PATH"]) for tool in _TOOLS):
        return False
    return not subprocess.run(command, capture_output=True, env=path).returncode
