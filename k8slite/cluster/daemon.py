"""The supervisor as a process: `python -m k8slite.cluster.daemon DIRECTORY [FD]`.

FD is a socket to the `up` that started it. It carries lines of JSON: `{"step": ...}` while the
cluster starts, then `{"ready": seconds}` or `{"error": words}`. The other end answers "detach" to
leave the cluster running; if it is closed without, the cluster is stopped: Ctrl-C, or `up` killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from k8slite.cluster import chaos, control
from k8slite.cluster.layout import Layout, NoSuchCluster, write_file
from k8slite.cluster.link import start_zygote
from k8slite.cluster.logs import open_log
from k8slite.cluster.memory import pss_bytes
from k8slite.cluster.spec import NODE_ROLES, ROLES, ClusterSpec, Place
from k8slite.cluster.supervisor import (
    StartFailed,
    Supervisor,
    clean_before,
    open_supervisor,
    take_lock,
)

__all__ = ["main"]

log = logging.getLogger(__name__)

START_SECONDS: Final = 120.0
PR_SET_NAME: Final = 15


class Reporter:
    """Tells the `up` that waits, if one does."""

    def __init__(self, fd: int | None) -> None:
        self._socket = None if fd is None else socket.socket(fileno=fd)
        self.started = time.monotonic()

    def tell(self, **words: Any) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(json.dumps(words).encode() + b"\n")

    def step(self, words: str) -> None:
        log.info("step %s", words)
        self.tell(step=words, seconds=time.monotonic() - self.started)

    async def wait_gone(self) -> None:
        """Return when the other end is closed without having said "detach"."""
        if self._socket is None:
            await trio.sleep_forever()
        assert self._socket is not None
        self._socket.setblocking(False)
        sock = trio.socket.from_stdlib_socket(self._socket)
        with contextlib.suppress(ConnectionResetError):
            while data := await sock.recv(64):
                if b"detach" in data:
                    self._socket = None
                    sock.close()
                    await trio.sleep_forever()


@attrs.define
class _Control:
    """Answers on the control socket."""

    supervisor: Supervisor
    stop: trio.Event

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.get("op")
        if operation == "status":
            return await self._status()
        if operation == "stop":
            self.stop.set()
            return {"stopping": True}
        if operation in ("kill", "pause", "resume"):
            return await self._chaos(operation, request)
        raise control.Refused(f"unknown request {operation!r}: is k8slite older here than there?")

    async def _chaos(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        seconds = float(request.get("seconds") or 0)
        if request.get("seconds") is None:
            seconds = self.supervisor.timings.chaos_dead
        try:
            target = await chaos.find(self.supervisor, str(request.get("target", "")))
            done = await chaos.apply(self.supervisor, operation, target, seconds)
        except (chaos.NoTarget, StartFailed) as error:
            raise control.Refused(str(error)) from error
        log.warning("chaos %s target=%s done=%s", operation, request.get("target"), done)
        return {"done": done, "seconds": seconds}

    async def _status(self) -> dict[str, Any]:
        supervisor = self.supervisor
        rows: dict[str, dict[str, Any]] = {}

        async def add(name: str) -> None:
            kept = supervisor.kept[name]
            pid = kept.process.pid if kept.process is not None else 0
            now = trio.current_time()
            rows[name].update(
                role=kept.component.role,
                node=kept.component.node,
                state=kept.state,
                pid=pid,
                restarts=kept.restarts,
                last_code=kept.last_code,
                seconds=now - kept.started_at if kept.process is not None else 0.0,
                dead_seconds=None if kept.dead_until is None else max(0.0, kept.dead_until - now),
                status=await kept.status(),
                memory=await trio.to_thread.run_sync(pss_bytes, pid) if pid else 0,
            )

        async with trio.open_nursery() as nursery:
            for name in supervisor.kept:
                rows[name] = {}
                nursery.start_soon(add, name)
        own = [("supervisor", os.getpid()), ("zygote", supervisor.zygote_pid)]
        return {
            "name": supervisor.spec.name,
            "spec": supervisor.spec.to_json(),
            "place": supervisor.place.to_json(),
            "ready_seconds": supervisor.ready_seconds,
            "started_at": supervisor.started_at,
            "components": rows,
            "own": {
                name: {"pid": pid, "memory": await trio.to_thread.run_sync(pss_bytes, pid)}
                for name, pid in own
            },
        }


async def _start(supervisor: Supervisor, reporter: Reporter) -> None:
    """All components, in the order in which they need each other. Raises StartFailed."""
    from k8slite.cluster.pki import identities, make_pki

    layout, spec = supervisor.layout, supervisor.spec
    reporter.step("certificates")
    wanted = identities(spec, [], [])
    make_pki(layout.pki, [i for i in wanted if i.authority == "store-ca"])
    if spec.raft_members:
        reporter.step(f"store: {_several(spec.raft_members, 'member')}")
        supervisor.start("raftkv")
    if spec.bridged:
        reporter.step(f"network: {_several(spec.nodes, 'node')}")
        await _make_network(supervisor)
    place = supervisor.place
    nodes = [place.node_address(n) for n in range(1, spec.nodes + 1)]
    supervisor.listen([tuple(address) for address in place.shared_addresses()])
    addresses = sorted({"127.0.0.1", place.host, first_service_address(place)})
    make_pki(layout.pki, identities(spec, addresses, nodes))
    _write_kubeconfig(layout, spec, place)
    reporter.step(f"control plane: {_several(spec.control_planes, 'apiserver')}")
    supervisor.start("apiserver")
    await supervisor.wait_first("apiserver")
    supervisor.start("controller-manager", "scheduler", *NODE_ROLES)
    reporter.step(f"controllers, scheduler and {_several(spec.nodes, 'node')}")
    await supervisor.job(
        "ready", {"root": str(layout.root), "spec": spec.to_json(), "place": place.to_json()}
    )
    await supervisor.wait_ready(*ROLES)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def first_service_address(place: Place) -> str:
    """The address of the Service `kubernetes`."""
    import ipaddress

    return str(ipaddress.IPv4Network(place.service_cidr)[1])


async def _make_network(supervisor: Supervisor) -> None:
    spec, place = supervisor.spec, supervisor.place
    bridged = attrs.evolve(place, bridge="bridged")
    made = await supervisor.job(
        "network",
        {
            "cluster": spec.name,
            "subnet": place.subnet,
            "pod_cidrs": [bridged.pod_cidr(n) for n in range(1, spec.nodes + 1)],
        },
    )
    supervisor.place = attrs.evolve(place, bridge=made["bridge"], subnet=made["subnet"])
    supervisor.layout.write(spec, supervisor.place)
    for kept in supervisor.kept.values():
        kept.netns = made["netns"].get(kept.component.node, "")


def _write_kubeconfig(layout: Layout, spec: ClusterSpec, place: Place) -> None:
    from k8slite.cluster.kubeconfig import kubeconfig

    text = kubeconfig(spec.name, place.api, layout.pki)
    write_file(layout.kubeconfig, text.encode(), 0o600)


async def _serve(layout: Layout, spec: ClusterSpec, place: Place, reporter: Reporter) -> int:
    stop = trio.Event()
    zygote = start_zygote(layout.root, layout.log("zygote"))
    async with (
        open_supervisor(layout, spec, place, zygote) as supervisor,
        trio.open_nursery() as nursery,
    ):
        listener = control.listen(layout.socket)
        nursery.start_soon(control.serve, listener, _Control(supervisor, stop).handle)
        nursery.start_soon(_stop_at_signal, stop)
        nursery.start_soon(_stop_when_gone, reporter, stop)
        nursery.start_soon(_bring_up, supervisor, reporter, stop)
        await stop.wait()
        reporter.step("stopping")
        await _take_down(supervisor)
        nursery.cancel_scope.cancel()
    layout.socket.unlink(missing_ok=True)
    return 1 if supervisor.failure else 0


async def _bring_up(supervisor: Supervisor, reporter: Reporter, stop: trio.Event) -> None:
    try:
        with trio.fail_after(START_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.wait_failed)
                await _start(supervisor, reporter)
                nursery.cancel_scope.cancel()
    except* (StartFailed, OSError, ValueError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        supervisor.failure = str(error)
    except* trio.TooSlowError:
        late = [k.name for k in supervisor.kept.values() if not k.became_ready.is_set()]
        supervisor.failure = f"not ready after {START_SECONDS:.0f} s: {', '.join(late)}"
    if supervisor.failure:
        log.error("start failed: %s", supervisor.failure)
        reporter.tell(error=supervisor.failure)
        stop.set()
        return
    supervisor.settled()
    seconds = supervisor.ready_seconds = time.monotonic() - reporter.started
    log.info("ready seconds=%.2f", seconds)
    reporter.tell(ready=seconds)


async def _take_down(supervisor: Supervisor) -> None:
    """Processes end in the order in which they need each other, then pods, then the network."""
    await supervisor.stop(*NODE_ROLES, "scheduler", "controller-manager", "apiserver", "raftkv")
    arguments = {"root": str(supervisor.layout.root), "cluster": supervisor.spec.name}
    try:
        await supervisor.job("clean", arguments)
    except StartFailed as error:
        log.error("%s", error)


async def _stop_at_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()


async def _stop_when_gone(reporter: Reporter, stop: trio.Event) -> None:
    await reporter.wait_gone()
    log.warning("who started the cluster is gone: stopping")
    stop.set()


def main(arguments: list[str]) -> int:
    """The process; its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"k8slite", 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    layout = Layout(Path(arguments[0]))
    reporter = Reporter(int(arguments[1]) if arguments[1:] else None)
    open_log("supervisor", layout.log("supervisor"))
    try:
        lock = take_lock(layout)
        spec, place = layout.read()
        clean_before(spec, layout)
    except (StartFailed, NoSuchCluster, OSError) as error:
        log.error("start failed: %s", error)
        reporter.tell(error=str(error))
        return 1
    with lock:
        return trio.run(_serve, layout, spec, place, reporter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
