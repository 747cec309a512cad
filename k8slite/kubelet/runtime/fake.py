"""A runtime of timers: pods live and die by the clock, and no process is ever made.

Owns all its state in memory and one task that announces exits. With trio's mock clock a day of a
thousand nodes passes in seconds, the same for the same seed. What a container does is decided by
one function, `Life` from its configuration, so that a test may script it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from k8slite.api.quantity import milli_value, value
from k8slite.client.background import open_background
from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.garbage import Plan, Policy
from k8slite.kubelet.runtime.interface import (
    EVENTS_MAX,
    ContainerConfig,
    ContainerNotFound,
    ContainerState,
    ContainerStatus,
    DiskUsage,
    ExecResult,
    Features,
    Image,
    PodNetwork,
    Resources,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
    StartFailure,
    Streams,
    Usage,
)
from raftkv.host import Host

RUN_SECONDS = "fake.k8slite.io/run-seconds"
EXIT_CODE = "fake.k8slite.io/exit-code"
START_SECONDS = "fake.k8slite.io/start-seconds"
CPU = "fake.k8slite.io/cpu"
MEMORY = "fake.k8slite.io/memory"
"""What each container of the pod uses: quantities."""
NOTHING_RUNS = "the containers of the fake runtime are timers, no process runs in them"


@attrs.frozen
class Life:
    """What becomes of a container.

    `run_seconds` None: until it is stopped. `stop_seconds`: how long it takes to obey the stop
    signal; None: it never does. `ready_seconds`: its probes succeed from then on.
    """

    start_seconds: float = 0.0
    run_seconds: float | None = None
    exit_code: int = 0
    stop_seconds: float | None = 0.0
    ready_seconds: float = 0.0
    start_error: str = ""


def life_of(sandbox: SandboxConfig, container: ContainerConfig) -> Life:
    """Read the life from the pod's annotations, else from a few usual commands."""
    notes = sandbox.annotations
    if not container.init and (RUN_SECONDS in notes or EXIT_CODE in notes):
        return Life(
            start_seconds=float(notes.get(START_SECONDS, 0)),
            run_seconds=float(notes.get(RUN_SECONDS, 0)),
            exit_code=int(notes.get(EXIT_CODE, 0)),
        )
    start = float(notes.get(START_SECONDS, 0))
    words = container.command + container.args
    text = " ".join(words[2:] if words[1:2] == ("-c",) else words)
    slept = sum(float(seconds) for seconds in re.findall(r"\bsleep\s+(\d+(?:\.\d+)?)", text))
    ended = re.search(r"\bexit\s+(\d+)", text)
    if ended:
        return Life(start, slept, int(ended.group(1)))
    if re.fullmatch(r"(\S*/)?(true|echo\b.*)|exit", text):
        return Life(start, slept, 0)
    if re.fullmatch(r"(\S*/)?false", text):
        return Life(start, slept, 1)
    if slept and not re.search(r"\b(while|httpd|exec)\b", text):
        return Life(start, slept, 0)
    if container.init:
        return Life(start, slept, 0)
    return Life(start)


@attrs.define
class _Sandbox:
    config: SandboxConfig
    status: SandboxStatus


@attrs.define
class _Container:
    status: ContainerStatus
    life: Life
    scope: trio.CancelScope | None = None
    stopping: bool = False
    exited: trio.Event = attrs.field(factory=trio.Event)


class FakeRuntime:
    """Fulfils `Runtime`. Made by `open_fake_runtime`."""

    name = "fake"
    version = "1.0"
    features = Features(mounts=False, real_processes=False, limits=True)

    def __init__(
        self,
        host: Host,
        life: Callable[[SandboxConfig, ContainerConfig], Life],
        nursery: trio.Nursery,
    ) -> None:
        self._host = host
        self._life = life
        self._nursery = nursery
        self._announce, self.events = trio.open_memory_channel[str](EVENTS_MAX)
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._by_pod: dict[str, dict[str, _Container]] = {}
        self.missing_images: set[str] = set()
        self.pulls: list[tuple[str, tuple[Credential, ...]]] = []
        """Every pull that was asked for."""
        self.updates: list[tuple[str, Resources]] = []
        """Every change of a container's limits."""

    def _changed(self, pod_uid: str) -> None:
        try:
            self._announce.send_nowait(pod_uid)
        except trio.WouldBlock:
            return  # the bound's rule: dropped, the next listing repairs it

    def _new_id(self) -> str:
        return f"{self._host.rng.getrandbits(128):032x}"

    async def run_pod_sandbox(self, config: SandboxConfig, network: PodNetwork) -> SandboxStatus:
        ip = "" if config.host_network else await network.attach(config.pod_uid, None)
        status = SandboxStatus(
            id=self._new_id(),
            pod_uid=config.pod_uid,
            namespace=config.namespace,
            name=config.name,
            attempt=config.attempt,
            ready=True,
            created_at=self._host.now(),
            ip=ip,
            host_network=config.host_network,
            grace_seconds=config.grace_seconds,
        )
        self._sandboxes[status.id] = _Sandbox(config, status)
        self._changed(config.pod_uid)
        return status

    async def stop_pod_sandbox(self, sandbox_id: str, network: PodNetwork) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._of_sandbox(sandbox_id):
            await self.stop_container(container.status.id, 0)
        if not sandbox.config.host_network and sandbox.status.ready:
            await network.detach(sandbox.config.pod_uid, None)
        sandbox.status = attrs.evolve(sandbox.status, ready=False)
        self._changed(sandbox.config.pod_uid)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        for container in self._of_sandbox(sandbox_id):
            await self.remove_container(container.status.id)
        self._sandboxes.pop(sandbox_id, None)

    async def list_pod_sandbox(self, pod_uid: str | None = None) -> list[SandboxStatus]:
        found = [s.status for s in self._sandboxes.values() if pod_uid in (None, s.status.pod_uid)]
        return found[::-1]

    def _of_sandbox(self, sandbox_id: str) -> list[_Container]:
        return [c for c in self._containers.values() if c.status.sandbox_id == sandbox_id]

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        if sandbox_id not in self._sandboxes:
            raise ContainerNotFound(f"no sandbox {sandbox_id}")
        sandbox = self._sandboxes[sandbox_id].config
        status = ContainerStatus(
            id=self._new_id(),
            sandbox_id=sandbox_id,
            pod_uid=sandbox.pod_uid,
            name=config.name,
            attempt=config.attempt,
            state=ContainerState.CREATED,
            image=config.image,
            image_id=f"fake://{config.image}",
            created_at=self._host.now(),
            log_path=config.log_path,
            spec_hash=config.spec_hash,
            init=config.init,
        )
        made = _Container(status, self._life(sandbox, config))
        self._containers[status.id] = made
        self._by_pod.setdefault(sandbox.pod_uid, {})[status.id] = made
        self._changed(sandbox.pod_uid)
        return status.id

    def _get(self, container_id: str) -> _Container:
        try:
            return self._containers[container_id]
        except KeyError:
            raise ContainerNotFound(f"no container {container_id}") from None

    async def start_container(self, container_id: str) -> None:
        container = self._get(container_id)
        assert container.status.state is ContainerState.CREATED, "a container starts once"
        await trio.sleep(container.life.start_seconds)
        if container.life.start_error:
            self._end(container, 128, reason="StartError", message=container.life.start_error)
            raise StartFailure(container.life.start_error)
        container.status = attrs.evolve(
            container.status, state=ContainerState.RUNNING, started_at=self._host.now()
        )
        self._changed(container.status.pod_uid)
        if container.life.run_seconds is not None:
            self._nursery.start_soon(self._live, container, container.life.run_seconds)

    async def _live(self, container: _Container, seconds: float) -> None:
        with trio.CancelScope() as container.scope:
            await trio.sleep(seconds)
            self._end(container, container.life.exit_code)

    def _end(
        self, container: _Container, exit_code: int, *, reason: str = "", message: str = ""
    ) -> None:
        if container.status.state is ContainerState.EXITED:
            return
        container.status = attrs.evolve(
            container.status,
            state=ContainerState.EXITED,
            finished_at=self._host.now(),
            exit_code=exit_code,
            reason=reason or ("Completed" if exit_code == 0 else "Error"),
            message=message,
        )
        container.exited.set()
        if container.scope is not None:
            container.scope.cancel()
        self._changed(container.status.pod_uid)

    async def update_container(self, container_id: str, resources: Resources) -> None:
        self._get(container_id)
        self.updates.append((container_id, resources))

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.status.state is ContainerState.EXITED:
            return
        obeys = container.life.stop_seconds
        wait = grace_seconds if obeys is None else min(obeys, grace_seconds)
        with trio.move_on_after(wait):
            await container.exited.wait()
        killed = obeys is None or (obeys > grace_seconds and grace_seconds >= 0)
        self._end(container, 137 if killed else 143 if container.life.exit_code else 0)

    async def remove_container(self, container_id: str) -> None:
        await self.stop_container(container_id, 0)
        container = self._containers.pop(container_id, None)
        if container is not None:
            of_pod = self._by_pod[container.status.pod_uid]
            del of_pod[container_id]
            if not of_pod:
                del self._by_pod[container.status.pod_uid]
            self._changed(container.status.pod_uid)

    async def list_containers(self, pod_uid: str | None = None) -> list[ContainerStatus]:
        return [c.status for c in self._containers.values() if pod_uid in (None, c.status.pod_uid)]

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._get(container_id).status

    async def exec_sync(self, container_id: str, command: tuple[str, ...]) -> ExecResult:
        if self._get(container_id).status.state is not ContainerState.RUNNING:
            raise ContainerNotFound(f"container {container_id} is not running")
        return ExecResult(1 if command[-1:] == ("false",) else 0, b"", b"")

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        client: Streams,
        *,
        stdin: bool,
        tty: bool,
    ) -> int:
        raise RuntimeFailure(f"cannot exec {' '.join(command)!r}: {NOTHING_RUNS}")

    async def attach(self, container_id: str, client: Streams, *, stdin: bool) -> None:
        raise RuntimeFailure(f"cannot attach: {NOTHING_RUNS}")

    async def port_forward(self, sandbox_id: str, port: int) -> trio.abc.Stream:
        raise RuntimeFailure(f"nothing listens on port {port}: {NOTHING_RUNS}")

    async def probe(self, container_id: str, kind: str) -> bool | None:
        container = self._get(container_id)
        age = self._host.now() - container.status.started_at
        return kind == "liveness" or age >= container.life.ready_seconds

    async def usage(self) -> Mapping[str, Usage]:
        """As the pods' annotations say, from each container's start."""
        return {
            each: self._used(container)
            for each, container in self._containers.items()
            if container.status.state is ContainerState.RUNNING
        }

    def _used(self, container: _Container) -> Usage:
        notes = self._sandboxes[container.status.sandbox_id].config.annotations
        cores = milli_value(notes.get(CPU, "1m")) * 1_000_000
        memory = value(notes.get(MEMORY, "1Mi"))
        age = self._host.now() - container.status.started_at
        return Usage(int(cores * age), memory, memory, memory, processes=1)

    async def disk_usage(self) -> Mapping[str, DiskUsage]:
        return {}

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]:
        return ()

    async def image_status(self, image: str) -> Image | None:
        if image in self.missing_images:
            return None
        return Image(f"fake://{image}", (image,), 0)

    async def pull_image(self, image: str, credentials: Sequence[Credential] = ()) -> Image:
        self.pulls.append((image, tuple(credentials)))
        found = await self.image_status(image)
        if found is None:
            raise StartFailure(f"image {image} is not to be had")
        return found

    async def unpack_image(self, image: str, directory: Path) -> None:
        return

    async def list_images(self) -> list[Image]:
        return []

    async def collect_images(self, policy: Policy) -> Plan:
        return Plan(0)

    def exit(self, container_id: str, exit_code: int) -> None:
        """Let a running container end now: a test's hand."""
        self._end(self._get(container_id), exit_code)


@asynccontextmanager
async def open_fake_runtime(
    host: Host, *, life: Callable[[SandboxConfig, ContainerConfig], Life] = life_of
) -> AsyncGenerator[FakeRuntime]:
    """A runtime without processes; leaving stops its timers."""
    async with open_background() as nursery:
        yield FakeRuntime(host, life, nursery)
