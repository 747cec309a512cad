"""The process behind a running cluster: starts components in order and keeps them running.

    k8slite up --> supervisor --> zygote --> 16 components
                       ^
    k8slite status, chaos, stop: the control socket

A component that dies is started again, at once the first time, then after longer and longer
pauses. One that chaos killed stays dead for a stated time. Owns the lock of the cluster's
directory, the listening sockets that apiservers share, and the control socket.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TextIO

import attrs
import trio

from k8slite.cluster.cleanup import clean
from k8slite.cluster.components import request_of
from k8slite.cluster.layout import Layout
from k8slite.cluster.link import Link, LinkLost, Spawned, start_zygote
from k8slite.cluster.logs import last_error
from k8slite.cluster.spec import ClusterSpec, Component, Place, components
from k8slite.cluster.timings import timings_of

__all__ = ["Kept", "StartFailed", "Supervisor"]

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0
SETTLED_SECONDS: Final = 30.0
"""A component that has run for so long starts at once when it dies."""
END_SECONDS: Final = 6.0
STATUS_SECONDS: Final = 1.0
GIVE_UP_DEATHS: Final = 3
"""So many deaths of one component before the cluster was ever ready: `up` has failed."""


class StartFailed(Exception):
    """The cluster cannot be started; the message is for the user."""


@attrs.define(eq=False)
class Kept:
    """One component and its life so far. Times are trio's."""

    component: Component
    netns: str = ""
    process: Spawned | None = None
    ready: bool = False
    paused: bool = False
    started_at: float = 0.0
    restarts: int = 0
    deaths: int = 0
    last_code: int | None = None
    dead_until: float | None = None
    """Chaos keeps it dead until then."""
    revive: trio.Event = attrs.field(factory=trio.Event)
    became_ready: trio.Event = attrs.field(factory=trio.Event)

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def state(self) -> str:
        if self.process is None:
            return "killed" if self.dead_until is not None else "dead"
        if self.paused:
            return "paused"
        return "running" if self.ready else "starting"

    async def status(self) -> dict[str, Any]:
        """What it tells of itself; {} when it does not answer in time."""
        if self.process is None or not self.ready or self.paused:
            return {}
        with trio.move_on_after(STATUS_SECONDS):
            return await self.process.status()
        return {}


class Supervisor:
    """Made by `open_supervisor`."""

    def __init__(self, layout: Layout, spec: ClusterSpec, place: Place, nursery: trio.Nursery):
        self.layout = layout
        self.spec = spec
        self.place = place
        self.timings = timings_of(spec.fast)
        self.kept = {c.name: Kept(c) for c in components(spec)}
        self.started_at = time.time()
        self.ready_seconds: float | None = None
        self.stopping = trio.Event()
        self.failure = ""
        """Why the cluster could not be started."""
        self._starting = True
        self._hopeless = trio.Event()
        self._nursery = nursery
        self._link: Link | None = None
        self._linked = trio.Event()
        self._listeners: list[socket.socket] = []

    # --- starting -------------------------------------------------------------------------------

    def listen(self, addresses: list[tuple[str, int]]) -> None:
        """Bind what all apiservers share. Raises StartFailed."""
        for host, port in addresses:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError as error:
                sock.close()
                raise StartFailed(
                    f"the apiservers' port {port} on {host} cannot be had ({error.strerror}): "
                    "end what listens there or choose another with --port"
                ) from error
            sock.listen(BACKLOG)
            sock.setblocking(False)
            self._listeners.append(sock)

    async def keep_link(self, process: Any, sock: socket.socket) -> None:
        """Keep a zygote alive, for ever."""
        while True:
            self._link = Link(process, sock)
            self._linked.set()
            await self._link.run()
            self._linked = trio.Event()
            self._link.close()
            log.error("the zygote has died, and all components with it")
            process, sock = start_zygote(self.layout.root, self.layout.log("zygote"))

    def end_link(self) -> None:
        if self._link is not None:
            self._link.close()

    async def _spawn(self, request: dict[str, Any], listeners: list[int]) -> Spawned:
        while True:
            await self._linked.wait()
            assert self._link is not None
            try:
                return await self._link.spawn(request, listeners)
            except LinkLost:
                await trio.sleep(PAUSE_SECONDS_MIN)

    async def job(self, role: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a job in a process of its own; its result. Raises StartFailed with its words."""
        request = {
            "role": role,
            "name": role,
            "log": str(self.layout.log("supervisor")),
            "arguments": arguments,
        }
        process = await self._spawn(request, [])
        line = await process.next_line()
        await process.ended.wait()
        await process.aclose()
        if line is None or "failed" in line:
            words = line["failed"] if line else f"it ended with code {process.code}"
            raise StartFailed(f"{role}: {words}")
        result: dict[str, Any] = line["result"]
        return result

    def start(self, *roles: str) -> None:
        """Begin to keep the components of these roles."""
        for kept in self.kept.values():
            if kept.component.role in roles:
                self._nursery.start_soon(self._keep, kept, name=kept.name)

    async def wait_ready(self, *roles: str) -> None:
        """Until every component of these roles has been ready once."""
        for kept in self.kept.values():
            if kept.component.role in roles:
                await kept.became_ready.wait()

    async def wait_first(self, role: str) -> None:
        """Until one component of the role has been ready."""
        async with trio.open_nursery() as nursery:

            async def wait(kept: Kept) -> None:
                await kept.became_ready.wait()
                nursery.cancel_scope.cancel()

            for kept in self.kept.values():
                if kept.component.role == role:
                    nursery.start_soon(wait, kept)

    async def wait_failed(self) -> None:
        """Raises StartFailed once a component has died too often to go on hoping."""
        await self._hopeless.wait()
        raise StartFailed(self.failure)

    def settled(self) -> None:
        """From now on a component that dies is only started again."""
        self._starting = False

    @property
    def zygote_pid(self) -> int:
        return self._link.pid if self._link is not None else 0

    # --- keeping --------------------------------------------------------------------------------

    async def _keep(self, kept: Kept) -> None:
        pause = 0.0
        while not self.stopping.is_set():
            await self._stay_dead(kept, pause)
            if self.stopping.is_set():
                return
            await self._live(kept)
            if self.stopping.is_set():
                return
            lived = trio.current_time() - kept.started_at
            pause = _next_pause(pause, lived)
            kept.restarts += 1
            if not kept.became_ready.is_set():
                kept.deaths += 1
                if kept.deaths >= GIVE_UP_DEATHS and self._starting:
                    self.failure = self._why(kept)
                    self._hopeless.set()

    def _why(self, kept: Kept) -> str:
        path = self.layout.log(kept.name)
        return f"{kept.name} does not start: {last_error(path)} (see {path})"

    async def _stay_dead(self, kept: Kept, pause: float) -> None:
        until = kept.dead_until
        if until is None:
            with trio.move_on_after(pause):
                await kept.revive.wait()
        else:
            with trio.move_on_at(until):
                await kept.revive.wait()
        kept.dead_until = None
        kept.revive = trio.Event()

    async def _live(self, kept: Kept) -> None:
        """One life of the process."""
        kept.started_at = trio.current_time()
        request = request_of(kept.component, self.spec, self.place, self.layout, kept.netns)
        shared = kept.component.role == "apiserver"
        listeners = [sock.fileno() for sock in self._listeners] if shared else []
        process = kept.process = await self._spawn(request, listeners)
        log.info("started component=%s pid=%d", kept.name, process.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, kept, process)
            await process.ended.wait()
            nursery.cancel_scope.cancel()
        await process.aclose()
        kept.process, kept.ready, kept.paused = None, False, False
        kept.last_code = process.code
        if not self.stopping.is_set():
            log.warning("ended component=%s pid=%d code=%s", kept.name, process.pid, process.code)

    async def _follow(self, kept: Kept, process: Spawned) -> None:
        if await process.next_line() is not None:
            kept.ready = True
            kept.became_ready.set()
            await process.listen()

    async def stop(self, *roles: str) -> None:
        """End the components of these roles in good order, those that do not hurry by force."""
        self.stopping.set()
        ending = [
            (kept, kept.process)
            for kept in self.kept.values()
            if kept.component.role in roles and kept.process is not None
        ]
        for kept, process in ending:
            if kept.paused:
                _signal(process.pid, signal.SIGKILL)
            await process.aclose()
        with trio.move_on_after(END_SECONDS):
            for _, process in ending:
                await process.ended.wait()
        for _, process in ending:
            if not process.ended.is_set():
                _signal(process.pid, signal.SIGKILL)
                await process.ended.wait()

    # --- for chaos ------------------------------------------------------------------------------

    def kill(self, kept: Kept, seconds: float) -> int:
        """SIGKILL, and stay dead for so long; the pid, 0 when it was dead already."""
        kept.dead_until = trio.current_time() + seconds
        if kept.process is None:
            return 0
        pid = kept.process.pid
        _signal(pid, signal.SIGKILL)
        return pid

    def pause(self, kept: Kept) -> int:
        """SIGSTOP; the pid, 0 when it is dead."""
        if kept.process is None:
            return 0
        _signal(kept.process.pid, signal.SIGSTOP)
        kept.paused = True
        return kept.process.pid

    def resume(self, kept: Kept) -> int:
        """SIGCONT, or start what is kept dead; the pid, 0 when it was dead."""
        if kept.process is None:
            kept.revive.set()
            return 0
        _signal(kept.process.pid, signal.SIGCONT)
        kept.paused = False
        return kept.process.pid


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.info("pid=%d is gone already", pid)


def _next_pause(pause: float, lived: float) -> float:
    """How long to wait before the next start (pure)."""
    if lived >= SETTLED_SECONDS:
        return 0.0
    return min(max(PAUSE_SECONDS_MIN, pause * 2), PAUSE_SECONDS_MAX)


def take_lock(layout: Layout) -> TextIO:
    """The cluster's lock, held as long as the file is open. Raises StartFailed."""
    lock = open(layout.lock, "a+")  # noqa: SIM115  # it is the lock: it stays open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip()
        lock.close()
        raise StartFailed(f"the cluster is running already (supervisor {pid})") from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


@asynccontextmanager
async def open_supervisor(
    layout: Layout, spec: ClusterSpec, place: Place, zygote: tuple[Any, socket.socket]
) -> AsyncIterator[Supervisor]:
    """A supervisor with its zygote; on leaving, everything that was forked has ended."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        supervisor = Supervisor(layout, spec, place, nursery)
        nursery.start_soon(supervisor.keep_link, *zygote)
        try:
            yield supervisor
        finally:
            supervisor.stopping.set()
            nursery.cancel_scope.cancel()
            supervisor.end_link()
            for sock in supervisor._listeners:
                sock.close()


def clean_before(spec: ClusterSpec, layout: Layout) -> None:
    """What a crash has left is removed before anything is started. Raises StartFailed."""
    try:
        clean(spec.name, layout)
    except OSError as error:
        raise StartFailed(f"what an earlier run left cannot be removed: {error}") from error
