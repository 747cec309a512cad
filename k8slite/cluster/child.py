"""The life of a forked process: its log, its signals, its channel to the supervisor.

The channel carries lines of JSON. The component says `{"ready": true}` once it is, then answers
each `{"id": 1}` with its status. When the supervisor's end closes, the process ends.
A job (a role of `jobs.JOBS`) runs to its end instead and says `{"result": ...}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from k8slite.cluster import components
from k8slite.cluster.context import Running
from k8slite.cluster.jobs import JOBS
from k8slite.cluster.logs import open_log

__all__ = ["run"]

GC_THRESHOLDS: Final = (20_000, 20, 50)
CLONE_NEWNET: Final = 0x40000000
FAILED: Final = 1
REFUSED: Final = 3
"""It ended for a reason that it named in its log, not by a bug."""
LEAVE_SECONDS: Final = 5.0

log = logging.getLogger("k8slite")


def run(request: dict[str, Any], fds: list[int]) -> int:
    """Be the component that the request describes; the exit code."""
    open_log(request["name"], Path(request["log"]))
    output = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.set_threshold(*GC_THRESHOLDS)
    channel, *listeners = fds
    try:
        if request.get("netns"):
            _enter(request["netns"])
        if request["role"] in JOBS:
            return _do_job(request, channel)
        return trio.run(_live, request, channel, listeners)
    except components.EXPECTED as error:
        log.error("%s", _told(error))
        return REFUSED
    except BaseExceptionGroup as group:
        expected, rest = group.split(components.EXPECTED)
        if rest is None and expected is not None:
            log.error("%s", _told(_first(expected)))
            return REFUSED
        log.critical("component=%s failed", request["name"], exc_info=group)
        return FAILED
    except BaseException:
        log.critical("component=%s failed", request["name"], exc_info=True)
        return FAILED


def _enter(netns: str) -> None:
    """The network namespace in which the process lives from now on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)}: can't enter {netns}")
    finally:
        os.close(fd)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _do_job(request: dict[str, Any], channel: int) -> int:
    """Jobs are synchronous and short; their failure is an answer too."""
    answer: dict[str, Any]
    try:
        answer = {"result": JOBS[request["role"]](request["arguments"])}
        code = 0
    except components.EXPECTED as error:
        log.error("%s", _told(error))
        answer, code = {"failed": str(error)}, REFUSED
    with socket.socket(fileno=channel) as sock:
        sock.sendall(json.dumps(answer).encode() + b"\n")
    return code


@attrs.define
class _Life:
    """What a signal ends: the opening of a component, later the component in good order."""

    opening: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)
    signalled: bool = False

    async def watch_signals(self) -> None:
        """At the first signal leave; at the second, or after LEAVE_SECONDS, just end."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
            self.signalled = True
            self.opening.cancel()
            self.over.set()
            with trio.move_on_after(LEAVE_SECONDS):
                async for _ in signals:
                    break
            os._exit(0)

    async def answer(self, stream: trio.SocketStream, component: Running) -> None:
        """Tell the supervisor how the component is, until it closes the channel."""
        buffer = b""
        with contextlib.suppress(trio.BrokenResourceError):
            async for chunk in stream:
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    reply = {"id": json.loads(line)["id"], "status": component.status()}
                    await stream.send_all(json.dumps(reply).encode() + b"\n")
        self.over.set()


async def _live(request: dict[str, Any], channel: int, listeners: list[int]) -> int:
    """Open the component, say so, and serve its channel; leave at SIGTERM or the channel's end."""
    sock = trio.socket.from_stdlib_socket(socket.socket(fileno=channel))
    life = _Life()
    async with trio.open_nursery() as nursery, trio.SocketStream(sock) as stream:
        nursery.start_soon(life.watch_signals)
        with life.opening:
            async with components.open_component(request, listeners) as component:
                life.opening = trio.CancelScope()  # from now on it ends in good order
                gc.collect()
                gc.freeze()
                log.info("ready component=%s", request["name"])
                async with trio.open_nursery() as serving:
                    serving.start_soon(life.answer, stream, component)
                    await stream.send_all(b'{"ready": true}\n')
                    await life.over.wait()
                    if life.signalled:
                        await component.leave()
                    serving.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    log.info("stopped component=%s", request["name"])
    return 0
