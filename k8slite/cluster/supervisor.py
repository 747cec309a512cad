"""Starts the components of a cluster and keeps them running.

    k8slite up --> supervisor --> zygote --> 16 components
                       ^
    k8slite status, chaos, stop: the control socket

While the cluster starts for the first time, a component that dies again and again is given up: the
start has failed, unless the others of its kind can do without it. Later it is tried for ever. Owns
the processes and the listening sockets that apiservers share.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from k8slite.cluster.kept import Kept, how_ended, request_of, too_few
from k8slite.cluster.launch import start_zygote
from k8slite.cluster.layout import Layout
from k8slite.cluster.link import SIGKILLED, Link, LinkLost, Spawned
from k8slite.cluster.logs import end_of, last_error
from k8slite.cluster.spec import ClusterSpec, Place, components
from k8slite.cluster.timings import timings_of

__all__ = ["StartFailed", "Supervisor", "open_supervisor"]

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
RETRY_SECONDS: Final = 0.5
END_SECONDS: Final = 6.0
GIVE_UP_DEATHS: Final = 3
"""So many deaths of a component while the cluster starts, and nobody waits for it any more."""


class StartFailed(Exception):
    """The cluster cannot be started; the message is for the user."""


class Supervisor:
    """Made by `open_supervisor`."""

    def __init__(
        self,
        layout: Layout,
        spec: ClusterSpec,
        place: Place,
        nursery: trio.Nursery,
        listeners: Sequence[socket.socket],
    ) -> None:
        self.layout = layout
        self.spec = spec
        self.place = place
        self.timings = timings_of(spec.fast)
        self.kept = {c.name: Kept(c) for c in components(spec)}
        self.started_at = time.time()
        self.ready_seconds: float | None = None
        self.stopping = trio.Event()
        self._starting = True
        self._failed = trio.Event()
        self._failure = ""
        self._nursery = nursery
        self._link: Link | None = None
        self._linked = trio.Event()
        self._listeners = list(listeners)

    # --- starting -------------------------------------------------------------------------------

    def listen(self, host: str, port: int) -> None:
        """One more address that all apiservers share. Raises StartFailed."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise StartFailed(
                f"the apiservers' port {port} on {host} cannot be had ({error.strerror}): "
                "end what listens there"
            ) from error
        self._listeners.append(sock)

    async def keep_link(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        """Keep a zygote alive, for ever."""
        deaths = 0
        while True:
            self._link = Link(process, sock)
            self._linked.set()
            await self._link.run()
            self._linked = trio.Event()
            self._link.close()
            path = self.layout.log("zygote")
            log.error("the zygote has died, and all components with it")
            deaths += 1
            if deaths >= GIVE_UP_DEATHS and self._starting:
                self._fail(f"the zygote does not start (see {path})")
            await trio.sleep(RETRY_SECONDS if deaths > 1 else 0)
            process, sock = start_zygote(self.layout, self.spec)

    def close(self) -> None:
        """End the zygote, and everything it had forked."""
        if self._link is not None:
            self._link.close()
        for sock in self._listeners:
            sock.close()

    async def _spawn(self, request: dict[str, Any], listeners: list[int]) -> Spawned:
        while True:
            await self._linked.wait()
            assert self._link is not None
            try:
                return await self._link.spawn(request, listeners)
            except LinkLost:
                await trio.sleep(RETRY_SECONDS)

    async def job(self, role: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a job in a process of its own; its result. Raises StartFailed with its words."""
        request = {
            "role": role,
            "name": role,
            "log": str(self.layout.log("supervisor")),
            "arguments": arguments,
        }
        while True:
            process = await self._spawn(request, [])
            link = self._link
            line = await process.next_line()
            await process.ended.wait()
            await process.aclose()
            zygote_died = self._link is not link or not self._linked.is_set()
            if line is not None or process.code != SIGKILLED or not zygote_died:
                break
        if line is None or "failed" in line:
            words = line["failed"] if line else f"it {how_ended(process.code)}"
            raise StartFailed(f"{role}: {words}")
        result: dict[str, Any] = line["result"]
        return result

    def start(self, *roles: str) -> None:
        """Begin to keep the components of these roles."""
        for kept in self._of(*roles):
            self._nursery.start_soon(self._keep, kept, name=kept.name)

    def _of(self, *roles: str) -> list[Kept]:
        return [kept for kept in self.kept.values() if kept.component.role in roles]

    async def wait_settled(self, *roles: str) -> None:
        """Until every component of these roles has been ready once, or was given up."""
        for kept in self._of(*roles):
            await kept.settled.wait()

    async def wait_first(self, role: str) -> None:
        """Until one component of the role has been ready."""
        async with trio.open_nursery() as nursery:

            async def wait(kept: Kept) -> None:
                await kept.became_ready.wait()
                nursery.cancel_scope.cancel()

            for kept in self._of(role):
                nursery.start_soon(wait, kept)

    async def wait_failed(self) -> None:
        """Raises StartFailed once too much has died too often to go on hoping."""
        await self._failed.wait()
        raise StartFailed(self._failure)

    def _fail(self, words: str) -> None:
        self._failure = words
        self._failed.set()

    def settled(self) -> list[str]:
        """The start is over; words on what is missing. From now on what dies is only started
        again."""
        self._starting = False
        return [self.why(kept) for kept in self.kept.values() if kept.given_up]

    @property
    def zygote_pid(self) -> int:
        return self._link.pid if self._link is not None else 0

    # --- keeping --------------------------------------------------------------------------------

    async def _keep(self, kept: Kept) -> None:
        while not self.stopping.is_set():
            await kept.wait_start()
            if self.stopping.is_set():
                return
            await self._live(kept)
            if kept.restarts >= GIVE_UP_DEATHS and self._starting and not self.stopping.is_set():
                kept.give_up()
                if (missing := too_few(list(self.kept.values()))) is not None:
                    self._fail(self.why(missing))

    def why(self, kept: Kept) -> str:
        """In words for the user, why it is dead."""
        path = self.layout.log(kept.name)
        words = kept.last_words or f"it {how_ended(kept.last_code)}, and said nothing"
        return f"{kept.name} does not start: {words} (see {path})"

    async def _live(self, kept: Kept) -> None:
        """One life of the process."""
        kept.started_at = trio.current_time()
        path = self.layout.log(kept.name)
        log_from = end_of(path)
        shared = kept.component.role == "apiserver"
        listeners = [sock.fileno() for sock in self._listeners] if shared else []
        request = request_of(kept, self.spec, self.place, self.layout)
        process = kept.process = await self._spawn(request, listeners)
        log.info("started component=%s pid=%d", kept.name, process.pid)
        if kept.dead_until is not None or self.stopping.is_set():
            _signal(process.pid, signal.SIGKILL)  # that came while it was being forked
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, kept, process)
            await process.ended.wait()
            nursery.cancel_scope.cancel()
        await process.aclose()
        words = last_error(path, log_from) if process.code and process.code > 0 else ""
        kept.ended(process.code, words)
        if not self.stopping.is_set():
            log.warning(
                "ended component=%s pid=%d code=%s words=%s",
                kept.name, process.pid, process.code, words,
            )  # fmt: skip

    async def _follow(self, kept: Kept, process: Spawned) -> None:
        if await process.next_line() is not None:
            kept.is_ready()
            await process.listen()

    async def stop(self, *roles: str) -> None:
        """End the components of these roles in good order, those that do not hurry by force."""
        self.stopping.set()
        ending = [(k, k.process) for k in self._of(*roles) if k.process is not None]
        for kept, process in ending:
            if kept.paused:
                _signal(process.pid, signal.SIGKILL)
            elif not kept.ready:
                _signal(process.pid, signal.SIGTERM)  # it does not listen to its channel yet
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
        kept.set_dead_until(trio.current_time() + seconds)
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
            kept.set_dead_until(None)
            return 0
        _signal(kept.process.pid, signal.SIGCONT)
        kept.paused = False
        return kept.process.pid


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.info("pid=%d is gone already", pid)


@asynccontextmanager
async def open_supervisor(
    layout: Layout,
    spec: ClusterSpec,
    place: Place,
    zygote: tuple[subprocess.Popen[bytes], socket.socket],
    listeners: Sequence[socket.socket],
) -> AsyncIterator[Supervisor]:
    """A supervisor with its zygote; on leaving, everything that was forked has ended."""
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(layout, spec, place, nursery, listeners)
        nursery.start_soon(supervisor.keep_link, *zygote)
        try:
            yield supervisor
        finally:
            supervisor.stopping.set()
            nursery.cancel_scope.cancel()
            supervisor.close()
