"""Both ends of the control socket: a request and its answer, each a line of JSON.

    -> {"op": "kill", "target": "raft-leader", "seconds": 20}
    <- {"done": [{"component": "raftkv-2", "pid": 4711}]}
    <- {"error": "there is no target 'raft'; ..."}

The socket lies in the cluster's directory, which only its owner may enter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import trio

__all__ = ["NotRunning", "Refused", "ask", "listen", "serve"]

LINE_BYTES_MAX: Final = 64 * 1024
ASK_SECONDS: Final = 60.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class NotRunning(Exception):
    """Nobody answers on the socket."""


class Refused(Exception):
    """The supervisor's own words."""


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket's address, however long the path is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> trio.SocketListener:
    """Raises OSError."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as address:
        sock.bind(address)
    path.chmod(0o600)
    sock.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def serve(listener: trio.SocketListener, handle: Handler) -> None:
    """Answer for ever. The handler raises Refused for what is to be told."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                line = await _receive_line(stream)
                if line:
                    try:
                        reply = await handle(_request(line))
                    except Refused as refused:
                        reply = {"error": str(refused)}
                    await stream.send_all(json.dumps(reply).encode() + b"\n")

    await trio.serve_listeners(answer, [listener])


def _request(line: bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        request = json.loads(line)
    except ValueError as error:
        raise Refused(f"a request is a line of JSON: {error}") from error
    if not isinstance(request, dict):
        raise Refused(f"a request is an object, not {line[:40]!r}")
    return request


async def _receive_line(stream: trio.SocketStream) -> bytes:
    """Empty when the other end leaves before it has said one."""
    data = b""
    while not data.endswith(b"\n"):
        if len(data) > LINE_BYTES_MAX:
            return data  # too long to be one of ours: it is refused
        chunk = await stream.receive_some(4096)
        if not chunk:
            return b""
        data += chunk
    return data


def ask(path: Path, request: dict[str, Any], *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Send a request from a program without an event loop.

    Raises NotRunning, Refused, and TimeoutError after `seconds` without an answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            with _short(path) as address:
                sock.connect(address)
            sock.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                chunk = sock.recv(65536)
                if not chunk:
                    raise NotRunning("the supervisor ended before it answered")
                data += chunk
        except (FileNotFoundError, ConnectionError) as error:
            raise NotRunning("it is starting or stopping") from error
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise Refused(answer["error"])
    return answer
