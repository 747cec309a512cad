"""Steady requests to a Service: which pods answered, and how many requests failed when."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from typing import Final

import attrs
import trio

from k8slite.network.namespaces import inside

__all__ = ["Door", "Requests", "fetch", "run_requests"]

PAUSE_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 2.0
CLIENTS: Final = 2


@attrs.frozen
class Door:
    """Where a Service is reached: an address, from a node's network namespace or from here."""

    host: str
    port: int
    netns: str | None = None

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}/"


@attrs.define
class Requests:
    """Answers by pod. Times are trio's."""

    answers: Counter[str] = attrs.field(factory=Counter)
    failed_at: list[float] = attrs.field(factory=list)

    def failed_since(self, begin: float) -> int:
        return sum(1 for time in self.failed_at if time >= begin)


async def fetch(door: Door) -> str:
    """The body of the answer: the pod's name. Raises OSError, trio.TooSlowError."""
    with trio.fail_after(PATIENCE_SECONDS):
        with inside(door.netns):  # a socket belongs to the namespace in which it was made
            plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plain.setblocking(False)
        sock = trio.socket.from_stdlib_socket(plain)
        with contextlib.closing(sock):
            await sock.connect((door.host, door.port))
            await sock.send(b"GET / HTTP/1.0\r\nHost: web\r\n\r\n")
            data = b""
            while chunk := await sock.recv(4096):
                data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError(f"{door} answered {head[:40]!r}")
    return body.decode().strip()


async def run_requests(door: Door, requests: Requests) -> None:
    """Ask until cancelled."""

    async def ask() -> None:
        while True:
            try:
                requests.answers[await fetch(door)] += 1
            except (OSError, trio.TooSlowError):
                requests.failed_at.append(trio.current_time())
            await trio.sleep(PAUSE_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(ask)
