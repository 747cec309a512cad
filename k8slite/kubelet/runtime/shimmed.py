"""A runtime whose containers each have a shim: what `process` and `oci` have in common.

Owns the runtime's directory (see `records`) and a table of it in memory; only this object changes
either, while shims write their own `state.json` and `exit.json`. A `Backend` says how a sandbox and
a container are made; everything about their lives is here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from k8slite.client.background import open_background
from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.garbage import Plan, Policy
from k8slite.kubelet.images.puller import Puller
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.images.uses import Uses
from k8slite.kubelet.runtime.attach import attach
from k8slite.kubelet.runtime.backend import Backend, SandboxView
from k8slite.kubelet.runtime.execute import run_command
from k8slite.kubelet.runtime.images import Images
from k8slite.kubelet.runtime.interactive import run_interactive
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
from k8slite.kubelet.runtime.launcher import Launcher, open_launcher
from k8slite.kubelet.runtime.ports import connect, connect_inside
from k8slite.kubelet.runtime.records import (
    alive,
    container_to_json,
    follow,
    read_container,
    read_json,
    read_sandbox,
    sandbox_from_json,
    sandbox_to_json,
    write_json,
)
from k8slite.kubelet.runtime.usage import disk_usage
from raftkv.host import Host

log = logging.getLogger(__name__)

LOG_SIZE_MAX = 10 * 1024 * 1024  # Kubernetes' containerLogMaxSize and containerLogMaxFiles
LOG_FILES_MAX = 5
POLL_SECONDS = 1.0  # how often a stop looks for itself, should the shim's word be lost


class ShimRuntime:
    """Fulfils `Runtime`. Made by `open_shim_runtime`."""

    def __init__(
        self,
        directory: Path,
        host: Host,
        images: Images,
        backend: Backend,
        launcher: Launcher,
    ) -> None:
        self._sandbox_root = directory / "sandboxes"
        self._container_root = directory / "containers"
        self._host = host
        self._images = images
        self._backend = backend
        self._launcher = launcher
        self._announce, self.events = trio.open_memory_channel[str](EVENTS_MAX)
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._exits: dict[str, trio.Event] = {}

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def version(self) -> str:
        return self._backend.version

    @property
    def features(self) -> Features:
        return self._backend.features

    # ------------------------------------------------------------ reading what is there

    def load(self) -> None:
        """Fill the table from the directory: whatever a former kubelet has left running."""
        for path in sorted(self._sandbox_root.iterdir()):
            sandbox = read_sandbox(path, needs_process=self._backend.sandbox_processes)
            if sandbox is None:
                shutil.rmtree(path, ignore_errors=True)
            else:
                self._sandboxes[sandbox.id] = sandbox
        self._sandboxes = dict(sorted(self._sandboxes.items(), key=lambda item: item[1].created_at))
        found = []
        for path in sorted(self._container_root.iterdir()):
            stored = read_json(path / "config.json")
            sandbox = None if stored is None else self._sandboxes.get(stored["sandbox_id"])
            status = sandbox and read_container(path, sandbox.pod_uid, self._host.now())
            if not status:
                shutil.rmtree(path, ignore_errors=True)
            else:
                found.append(status)
        for status in sorted(found, key=lambda status: status.created_at):
            self._containers[status.id] = status
            self._exits[status.id] = trio.Event()
            self._note(status.id, status)

    def _changed(self, pod_uid: str) -> None:
        with contextlib.suppress(trio.WouldBlock):  # the bound's rule: dropped, listing repairs
            self._announce.send_nowait(pod_uid)

    def _note(self, container_id: str, status: ContainerStatus) -> None:
        """Enter a status in the table, tell who waits and who listens."""
        before = self._containers.get(container_id)
        self._containers[container_id] = status
        if status.state is ContainerState.EXITED:
            self._exits[container_id].set()
        if before is None or before.state is not status.state:
            self._changed(status.pod_uid)

    def _refresh(self, container_id: str) -> ContainerStatus:
        status = self._containers[container_id]
        if status.state is not ContainerState.EXITED:
            status = follow(status, self._container_root / container_id, self._host.now())
            self._note(container_id, status)
        return status

    def refresh(self, container_id: str) -> None:
        """A shim has announced something."""
        if container_id in self._containers:
            self._refresh(container_id)

    # ------------------------------------------------------------ sandboxes

    async def run_pod_sandbox(self, config: SandboxConfig, network: PodNetwork) -> SandboxStatus:
        sandbox_id = f"{self._host.rng.getrandbits(256):064x}"
        directory = self._sandbox_root / sandbox_id
        directory.mkdir(parents=True)
        write_json(directory / "config.json", sandbox_to_json(config, self._host.now()))
        pid = 0
        try:
            if self._backend.sandbox_processes:
                spec = await trio.to_thread.run_sync(self._backend.sandbox, directory, config)
                write_json(directory / "shim.json", spec)
                pid = await self._launcher.launch("sandbox", directory)
            ip = ""
            if not config.host_network:
                ip = await network.attach(config.pod_uid, f"/proc/{pid}/ns/net" if pid else None)
        except BaseException:
            self._end_sandbox(directory)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        write_json(directory / "address.json", {"ip": ip})
        status = read_sandbox(directory, needs_process=self._backend.sandbox_processes)
        if status is None or not status.ready:
            raise RuntimeFailure(
                f"the sandbox of pod {config.namespace}/{config.name} died at once"
            )
        self._sandboxes[sandbox_id] = status
        self._changed(config.pod_uid)
        return status

    def _end_sandbox(self, directory: Path) -> None:
        state = read_json(directory / "state.json")
        if state is not None and alive(state["pid"], state["start"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGKILL)

    async def stop_pod_sandbox(self, sandbox_id: str, network: PodNetwork) -> None:
        status = self._sandboxes.get(sandbox_id)
        if status is None:
            return
        for container in list(self._containers.values()):
            if container.sandbox_id == sandbox_id:
                await self.stop_container(container.id, 0)
        await self._bury_lost(sandbox_id)
        directory = self._sandbox_root / sandbox_id
        if not (directory / "stopped").exists():
            state = read_json(directory / "state.json")
            if not status.host_network:
                netns = f"/proc/{state['pid']}/ns/net" if state else None
                await network.detach(status.pod_uid, netns)
            self._end_sandbox(directory)
            (directory / "stopped").touch()
        self._sandboxes[sandbox_id] = attrs.evolve(status, ready=False)
        self._changed(status.pod_uid)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        status = self._sandboxes.get(sandbox_id)
        if status is None:
            return
        for container in list(self._containers.values()):
            if container.sandbox_id == sandbox_id:
                await self.remove_container(container.id)
        directory = self._sandbox_root / sandbox_id
        self._end_sandbox(directory)
        await trio.to_thread.run_sync(self._backend.forget_pod, status.pod_uid)
        await trio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        self._sandboxes.pop(sandbox_id, None)
        self._changed(status.pod_uid)

    async def list_pod_sandbox(self, pod_uid: str | None = None) -> list[SandboxStatus]:
        if self._backend.sandbox_processes:
            for status in list(self._sandboxes.values()):
                if status.ready and pod_uid in (None, status.pod_uid):
                    again = read_sandbox(self._sandbox_root / status.id, needs_process=True)
                    if again is not None and not again.ready:
                        self._sandboxes[status.id] = again
                        self._changed(status.pod_uid)
        found = [s for s in self._sandboxes.values() if pod_uid in (None, s.pod_uid)]
        return found[::-1]

    # ------------------------------------------------------------ containers

    async def _bury_lost(self, sandbox_id: str) -> None:
        """End what may be left of containers whose shim died without a last word."""
        for status in list(self._containers.values()):
            directory = self._container_root / status.id
            if (
                status.sandbox_id == sandbox_id
                and status.state is ContainerState.EXITED
                and not (directory / "exit.json").exists()
            ):
                await trio.to_thread.run_sync(self._backend.forget, directory)
                last = {"exit_code": status.exit_code, "reason": status.reason}
                last["message"] = status.message
                times = {"started_at": status.started_at, "finished_at": status.finished_at}
                if directory.exists():
                    write_json(directory / "exit.json", {**last, **times})

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        status = self._sandboxes.get(sandbox_id)
        if status is None or not status.ready:
            raise ContainerNotFound(f"sandbox {sandbox_id} is not ready")
        await self._bury_lost(sandbox_id)
        image = self._images.use(config.image, self._host.now())
        sandbox_directory = self._sandbox_root / sandbox_id
        state = read_json(sandbox_directory / "state.json")
        stored, _ = sandbox_from_json(read_json(sandbox_directory / "config.json"))
        view = SandboxView(sandbox_id, stored, state["pid"] if state else 0, status.ip)
        container_id = f"{self._host.rng.getrandbits(256):064x}"
        directory = self._container_root / container_id
        directory.mkdir(parents=True)
        try:
            Path(config.log_path).parent.mkdir(parents=True, exist_ok=True)
            spec = await trio.to_thread.run_sync(
                self._backend.container, directory, config, view, image
            )
        except (OSError, RuntimeFailure, trio.Cancelled) as error:
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, OSError):
                raise RuntimeFailure(f"cannot prepare the container: {error}") from error
            raise
        spec.update(
            id=container_id,
            dir=str(directory),
            log_path=config.log_path,
            log_size_max=LOG_SIZE_MAX,
            log_files_max=LOG_FILES_MAX,
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            tty=config.tty,
        )
        write_json(directory / "shim.json", spec)
        write_json(
            directory / "config.json",
            {
                "config": container_to_json(config),
                "sandbox_id": sandbox_id,
                "image_id": image.reference_of(config.image),
                "created_at": self._host.now(),
            },
        )
        created = read_container(directory, status.pod_uid, self._host.now())
        assert created is not None, "what was just written can be read"
        self._exits[container_id] = trio.Event()
        self._note(container_id, created)
        return container_id

    async def start_container(self, container_id: str) -> None:
        status = await self.container_status(container_id)
        assert status.state is ContainerState.CREATED, "a container starts once"
        try:
            await self._launcher.launch("container", self._container_root / container_id)
        except RuntimeFailure as failure:
            self._refresh(container_id)
            raise StartFailure(str(failure)) from None
        self._refresh(container_id)

    def _signal(self, container_id: str, number: signal.Signals) -> None:
        state = read_json(self._container_root / container_id / "state.json")
        if state is not None and alive(state["shim"], state["shim_start"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["shim"], number)

    async def update_container(self, container_id: str, resources: Resources) -> None:
        status = await self.container_status(container_id)
        directory = self._container_root / container_id
        await trio.to_thread.run_sync(self._backend.update, directory, status.pod_uid, resources)

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        status = self._containers.get(container_id)
        if status is None or self._refresh(container_id).state is not ContainerState.RUNNING:
            return
        if grace_seconds > 0:
            self._signal(container_id, signal.SIGTERM)
            with trio.move_on_after(grace_seconds):
                await self._wait_exit(container_id)
                return
        self._signal(container_id, signal.SIGUSR1)
        await self._wait_exit(container_id)

    async def _wait_exit(self, container_id: str) -> None:
        exited = self._exits[container_id]
        while not exited.is_set():
            with trio.move_on_after(POLL_SECONDS):
                await exited.wait()
            if container_id not in self._containers:
                return
            self._refresh(container_id)

    async def remove_container(self, container_id: str) -> None:
        await self.stop_container(container_id, 0)
        status = self._containers.get(container_id)
        if status is None:
            return
        directory = self._container_root / container_id
        await trio.to_thread.run_sync(self._backend.forget, directory)
        await trio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        if self._containers.pop(container_id, None) is not None:
            self._exits.pop(container_id).set()
            self._images.note(self._named_images(), self._host.now())
            self._changed(status.pod_uid)

    def _named_images(self) -> list[str]:
        return [container.image_id for container in self._containers.values()]

    async def list_containers(self, pod_uid: str | None = None) -> list[ContainerStatus]:
        for status in list(self._containers.values()):
            if pod_uid in (None, status.pod_uid) and status.state is ContainerState.RUNNING:
                self._refresh(status.id)
        return [c for c in self._containers.values() if pod_uid in (None, c.pod_uid)]

    async def container_status(self, container_id: str) -> ContainerStatus:
        if container_id not in self._containers:
            raise ContainerNotFound(f"no container {container_id}")
        return self._refresh(container_id)

    async def exec_sync(self, container_id: str, command: tuple[str, ...]) -> ExecResult:
        status = await self.container_status(container_id)
        if status.state is not ContainerState.RUNNING:
            raise ContainerNotFound(f"container {status.name} is not running")
        how = self._backend.exec(self._container_root / container_id, command)
        return await run_command(how)

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        client: Streams,
        *,
        stdin: bool,
        tty: bool,
    ) -> int:
        status = await self.container_status(container_id)
        if status.state is not ContainerState.RUNNING:
            raise ContainerNotFound(f"container {status.name} is not running")
        how = self._backend.exec(self._container_root / container_id, command, tty=tty)
        return await run_interactive(how, client, stdin=stdin, tty=tty)

    async def attach(self, container_id: str, client: Streams, *, stdin: bool) -> None:
        status = await self.container_status(container_id)
        if status.state is not ContainerState.RUNNING:
            raise ContainerNotFound(f"container {status.name} is not running")
        await attach(self._container_root / container_id, client, stdin=stdin)

    async def port_forward(self, sandbox_id: str, port: int) -> trio.abc.Stream:
        status = self._sandboxes.get(sandbox_id)
        if status is None or not status.ready:
            raise ContainerNotFound(f"sandbox {sandbox_id} is not ready")
        state = read_json(self._sandbox_root / sandbox_id / "state.json")
        if state is not None and not status.host_network:
            return await connect_inside(state["pid"], port)
        # Pods without a namespace share the machine's: only the pod's own address is its own.
        return await connect(status.ip or "127.0.0.1", port)

    async def probe(self, container_id: str, kind: str) -> bool | None:
        return None

    async def usage(self) -> Mapping[str, Usage]:
        running = {
            self._container_root / status.id: status
            for status in await self.list_containers()
            if status.state is ContainerState.RUNNING
        }
        return await trio.to_thread.run_sync(self._backend.usage, running)

    async def disk_usage(self) -> Mapping[str, DiskUsage]:
        paths = [self._container_root / container_id for container_id in self._containers]
        found = await trio.to_thread.run_sync(lambda: [disk_usage(path) for path in paths])
        return {path.name: usage for path, usage in zip(paths, found, strict=True)}

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]:
        return self._backend.unsupported(config)

    # ------------------------------------------------------------ images

    async def image_status(self, image: str) -> Image | None:
        return self._images.status(image)

    async def pull_image(self, image: str, credentials: Sequence[Credential] = ()) -> Image:
        return await self._images.pull(image, credentials)

    async def unpack_image(self, image: str, directory: Path) -> None:
        await trio.to_thread.run_sync(self._images.unpack, image, directory, self._host.now())

    async def list_images(self) -> list[Image]:
        return self._images.list()

    async def collect_images(self, policy: Policy) -> Plan:
        named, now = self._named_images(), self._host.now()
        return await trio.to_thread.run_sync(self._images.collect, policy, named, now)


def _runtime_directory(root_dir: str | Path) -> Path:
    directory = Path(root_dir).absolute() / "runtime"
    for name in ("sandboxes", "containers"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "events.sock").unlink(missing_ok=True)
    return directory


async def _listen(runtime: ShimRuntime, sock: trio.socket.SocketType) -> None:
    while True:
        runtime.refresh((await sock.recv(256)).decode())


@asynccontextmanager
async def open_shim_runtime(
    root_dir: str | Path,
    host: Host,
    images: ImageStore,
    backend: Backend,
    registry_command: Sequence[str] = (),
) -> AsyncGenerator[ShimRuntime]:
    """The runtime in `ROOT_DIR/runtime`, with all that runs there already.

    Leaving it stops nothing: containers end by `stop_*`, or by `cleanup.cleanup`.
    """
    directory = _runtime_directory(root_dir)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM)
    try:  # through /proc, for a socket's path has at most 108 bytes and ours may be longer
        await sock.bind(f"/proc/self/fd/{handle}/events.sock")
    finally:
        os.close(handle)
    with sock:
        async with open_launcher(directory) as launcher, open_background() as nursery:
            uses = Uses(images.directory / "used", directory.parent.name)
            calls = Images(images, Puller(images, nursery, registry_command), uses)
            runtime = ShimRuntime(directory, host, calls, backend, launcher)
            runtime.load()
            nursery.start_soon(_listen, runtime, sock)
            yield runtime
