"""A cluster's life in its supervisor: brought up in order, kept, taken down in order."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from typing import Final

import trio

from k8slite.cluster import control
from k8slite.cluster.certificates import FAILED, Certificates
from k8slite.cluster.layout import Layout
from k8slite.cluster.operations import Operations
from k8slite.cluster.reporter import Reporter
from k8slite.cluster.spec import NODE_ROLES, ROLES, ClusterSpec, Place
from k8slite.cluster.supervisor import StartFailed, Supervisor, open_supervisor

__all__ = ["live"]

log = logging.getLogger(__name__)

START_SECONDS: Final = 120.0
CLEAN_SECONDS: Final = 30.0


def live(
    layout: Layout,
    spec: ClusterSpec,
    place: Place,
    zygote: tuple[subprocess.Popen[bytes], socket.socket],
    certificates: Certificates,
    api: socket.socket,
    reporter: Reporter,
) -> int:
    """From the start to the end; the exit code."""

    async def run() -> int:
        stop = trio.Event()
        async with (
            open_supervisor(layout, spec, place, zygote, [api]) as supervisor,
            trio.open_nursery() as nursery,
        ):
            listener = control.listen(layout.socket)
            nursery.start_soon(control.serve, listener, Operations(supervisor, stop).handle)
            nursery.start_soon(_stop_at_signal, stop)
            nursery.start_soon(_stop_when_gone, reporter, stop)
            started = Start(supervisor, certificates, reporter)
            nursery.start_soon(started.run, stop)
            await stop.wait()
            reporter.step("stopping")
            started.cancel()
            await _take_down(supervisor)
            nursery.cancel_scope.cancel()
        layout.socket.unlink(missing_ok=True)
        return 1 if started.failure else 0

    api.setblocking(False)
    return trio.run(run)


class Start:
    """One start: its steps, and how it went."""

    def __init__(
        self, supervisor: Supervisor, certificates: Certificates, reporter: Reporter
    ) -> None:
        self.failure = ""
        self._supervisor = supervisor
        self._certificates = certificates
        self._reporter = reporter
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        self._scope.cancel()

    async def run(self, stop: trio.Event) -> None:
        """To the end, or to the failure, which sets `stop`."""
        try:
            with self._scope, trio.fail_after(START_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._supervisor.wait_failed)
                    await self._steps()
                    nursery.cancel_scope.cancel()
        except* (StartFailed, OSError) as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.failure = str(error)
        except* trio.TooSlowError:
            self.failure = self._late()
        if self._scope.cancelled_caught:
            return
        if self.failure:
            log.error("start failed: %s", self.failure)
            self._reporter.tell(error=self.failure)
            stop.set()
            return
        seconds = self._supervisor.ready_seconds = time.monotonic() - self._reporter.started
        notices = self._supervisor.settled()
        log.info("ready seconds=%.2f notices=%s", seconds, notices)
        self._reporter.tell(ready=seconds, notices=notices)

    def _late(self) -> str:
        kept = self._supervisor.kept.values()
        words = [self._supervisor.why(k) for k in kept if k.last_words]
        words += [k.name for k in kept if not k.became_ready.is_set() and not k.last_words]
        what = "; ".join(words) or "its nodes, or the service account `default`"
        return f"not ready after {START_SECONDS:.0f} s: {what}"

    async def _steps(self) -> None:
        """All components, in the order in which they need each other. Raises StartFailed."""
        supervisor, step = self._supervisor, self._reporter.step
        layout, spec, place = supervisor.layout, supervisor.spec, supervisor.place
        certificates = _Words(self._certificates.pipe)
        await certificates.wait("store")
        if spec.raft_members:
            step(f"store: {_several(spec.raft_members, 'member')}")
            supervisor.start("raftkv")
        if spec.bridged:
            step(f"network: {_several(spec.nodes, 'node')}")
            await _make_network(supervisor)
            supervisor.listen(place.host, place.port)
        await certificates.wait("all")
        self._certificates.reap()
        step(f"control plane: {_several(spec.control_planes, 'apiserver')}")
        supervisor.start("apiserver")
        await supervisor.wait_first("apiserver")
        supervisor.start("controller-manager", "scheduler", *NODE_ROLES)
        step(f"controllers, scheduler and {_several(spec.nodes, 'node')}")
        await supervisor.job(
            "ready", {"root": str(layout.root), "spec": spec.to_json(), "place": place.to_json()}
        )
        await supervisor.wait_settled(*ROLES)


class _Words:
    """What the child that makes certificates says, a word a line."""

    def __init__(self, pipe: int) -> None:
        self._pipe = trio.lowlevel.FdStream(pipe)
        self._said: list[str] = []
        self._rest = ""

    async def wait(self, word: str) -> None:
        """Raises StartFailed with its words, or when it is gone without one."""
        while word not in self._said:
            chunk = (await self._pipe.receive_some(4096)).decode()
            if not chunk:
                raise StartFailed("certificates could not be made: see supervisor.log")
            *lines, self._rest = (self._rest + chunk).split("\n")
            for line in lines:
                if line.startswith(FAILED):
                    raise StartFailed(line.removeprefix(FAILED))
                self._said.append(line)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


async def _make_network(supervisor: Supervisor) -> None:
    spec, place = supervisor.spec, supervisor.place
    made = await supervisor.job(
        "network",
        {
            "cluster": supervisor.layout.network(spec.name),
            "subnet": place.subnet,
            "pod_cidrs": [place.pod_cidr(number) for number in range(1, spec.nodes + 1)],
        },
    )
    for kept in supervisor.kept.values():
        kept.netns = made["netns"].get(kept.component.node, "")


async def _take_down(supervisor: Supervisor) -> None:
    """Components first, then their pods and the network."""
    layout, spec = supervisor.layout, supervisor.spec
    await supervisor.stop(*ROLES)
    arguments = {"root": str(layout.root), "cluster": spec.name}
    with trio.move_on_after(CLEAN_SECONDS) as patience:
        try:
            await supervisor.job("clean", arguments)
        except StartFailed as error:
            log.error("%s", error)
    if patience.cancelled_caught:
        log.error("the zygote does not answer: `k8slite stop` or `down` cleans up")


async def _stop_at_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()


async def _stop_when_gone(reporter: Reporter, stop: trio.Event) -> None:
    await reporter.wait_gone()
    if not stop.is_set():
        log.warning("who started the cluster is gone: stopping")
        stop.set()
