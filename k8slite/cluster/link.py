"""The supervisor's end of the zygote: ask for processes, hear when they end, talk to them.

Owns the zygote process and the table of who waits for whose end. When the zygote dies, every
process forked from it dies too (see `zygote.py`); `run` then returns, and a new link is made.
"""

from __future__ import annotations

import array
import json
import socket
import subprocess
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from k8slite.cluster.zygote import PACKET_BYTES

__all__ = ["SIGKILLED", "Link", "LinkLost", "Spawned"]

LINE_BYTES_MAX: Final = 1 << 20
SIGKILLED: Final = -9


class LinkLost(Exception):
    """The zygote has died, and with it everything it had forked."""


class Spawned:
    """A process forked for us, and its channel."""

    def __init__(self, pid: int, channel: trio.SocketStream) -> None:
        self.pid = pid
        self.ended = trio.Event()
        self.code: int | None = None
        self._channel = channel
        self._buffer = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._heard = trio.Event()
        self._questions = 0
        self._gone = False

    def end(self, code: int) -> None:
        self.code = code
        self.ended.set()

    async def next_line(self) -> dict[str, Any] | None:
        """What it says next; None once either end of the channel is closed."""
        while b"\n" not in self._buffer:
            try:
                chunk = await self._channel.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not chunk:
                return None
            self._buffer += chunk
            assert len(self._buffer) < LINE_BYTES_MAX, "a component's status is small"
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def listen(self) -> None:
        """Take in answers to `status` until the process is gone."""
        while (line := await self.next_line()) is not None:
            self._answers[line["id"]] = line["status"]
            self._wake()
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        heard, self._heard = self._heard, trio.Event()
        heard.set()

    async def status(self) -> dict[str, Any]:
        """How it is; {} when it ends meanwhile. One that is stopped never answers: callers bound
        this."""
        self._questions += 1
        number = self._questions
        try:
            await self._channel.send_all(json.dumps({"id": number}).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return {}
        while number not in self._answers:
            if self._gone:
                return {}
            await self._heard.wait()
        answer = self._answers.pop(number)
        for old in [n for n in self._answers if n < number]:
            del self._answers[old]  # their askers have given up
        return answer

    async def aclose(self) -> None:
        """Close the channel: a component then leaves by itself."""
        await trio.aclose_forcefully(self._channel)


@attrs.define
class _Waiter:
    channel: trio.SocketStream
    answered: trio.Event = attrs.field(factory=trio.Event)
    spawned: Spawned | None = None


class Link:
    """For a process of `launch.start_zygote`; `run` must be running."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._waiters: list[_Waiter] = []
        self._spawned: dict[int, Spawned] = {}
        self._turn = trio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self) -> None:
        """Hear the zygote until it is gone."""
        try:
            while data := await self._socket.recv(PACKET_BYTES):
                message = json.loads(data)
                if "started" in message:
                    waiter = self._waiters.pop(0)
                    pid = message["pid"]
                    waiter.spawned = self._spawned[pid] = Spawned(pid, waiter.channel)
                    waiter.answered.set()
                else:
                    spawned = self._spawned.pop(message["ended"], None)
                    if spawned is not None:
                        spawned.end(message["code"])
        except ConnectionResetError:
            pass
        finally:
            for waiter in self._waiters:
                waiter.answered.set()
            for spawned in self._spawned.values():
                spawned.end(SIGKILLED)
            self._spawned.clear()

    async def spawn(self, request: dict[str, Any], listeners: Sequence[int] = ()) -> Spawned:
        """Fork a process. Raises LinkLost."""
        ours, theirs = socket.socketpair()
        channel = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        waiter = _Waiter(channel)
        with theirs, trio.CancelScope(shield=True):  # we must know of every process there is
            fds = array.array("i", [theirs.fileno(), *listeners])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
            async with self._turn:
                self._waiters.append(waiter)
                try:
                    await self._socket.sendmsg([json.dumps(request).encode()], rights)
                except OSError:
                    self._waiters.remove(waiter)
                    waiter.answered.set()
            await waiter.answered.wait()
        if waiter.spawned is None:
            ours.close()
            raise LinkLost
        return waiter.spawned

    def close(self) -> None:
        """End the zygote, and everything it had forked."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
