"""The seam between the kubelet and what runs containers, named after CRI's calls.

Owns the words: configurations that go in, statuses that come out, errors. It may be imported by
every runtime and by the pure cores. It never runs anything.

Rules every runtime keeps (tests/kubelet/test_runtimes.py holds all of them to it):

- Times are wall-clock seconds since 1970. Identifiers are opaque, unique and file-name safe.
- `stop_*` and `remove_*` are idempotent: what is gone already is no error.
- What runs goes on when the runtime's process ends, and is found again by the next one
  (the `fake` runtime alone forgets: its containers are only timers).
- Each change of a container is announced on `events` by its pod's uid. Announcements may be lost or
  merged; who needs certainty lists again. The channel's bound is EVENTS_MAX: when it is full the
  announcement is dropped, for the periodic listing repairs it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import attrs
import trio

from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.garbage import Plan, Policy

EVENTS_MAX = 1024


class RuntimeFailure(Exception):
    """The runtime could not do what was asked; the text is for users."""


class ImageMissing(RuntimeFailure):
    """No such image here, and nowhere to get it from."""


class ContainerNotFound(RuntimeFailure):
    """No such container or sandbox."""


class StartFailure(RuntimeFailure):
    """The container's process could not be started (executable not found, bad directory)."""


class ConfigFailure(RuntimeFailure):
    """The container's configuration cannot be fulfilled here."""


class ContainerState(enum.Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@attrs.frozen
class Resources:
    """Limits of one container as the kernel knows them; 0 means none."""

    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_bytes: int = 0
    pids_max: int = 0
    oom_score_adj: int = 0


@attrs.frozen
class Mount:
    """One path of the machine shown inside the container."""

    host_path: str
    container_path: str
    read_only: bool = False
    propagation: str = "private"


@attrs.frozen
class Device:
    """A device node of the machine, for a container. `permissions`: of "r", "w", "m"."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


@attrs.frozen
class Security:
    """Who the process is and what it may do. None means: as the image says."""

    user: int | None = None
    group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    run_as_non_root: bool = False
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


@attrs.frozen
class SandboxConfig:
    """What a pod's sandbox is made from. `sysctls` are pairs of names and values."""

    pod_uid: str
    namespace: str
    name: str
    attempt: int = 0
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    grace_seconds: int = 30
    sysctls: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class ContainerConfig:
    """What a container is made from. `command` and `args` are empty where the image decides."""

    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    log_path: str = ""
    resources: Resources = Resources()
    security: Security = Security()
    spec_hash: str = ""
    init: bool = False
    termination_message_file: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_id: str = ""
    """A container whose processes this one is to see."""


@attrs.frozen
class SandboxStatus:
    id: str
    pod_uid: str
    namespace: str
    name: str
    attempt: int
    ready: bool
    created_at: float
    ip: str = ""
    host_network: bool = False
    grace_seconds: int = 30


@attrs.frozen
class ContainerStatus:
    """A container as found. `exit_code` means something only in state EXITED."""

    id: str
    sandbox_id: str
    pod_uid: str
    name: str
    attempt: int
    state: ContainerState
    image: str
    image_id: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""
    spec_hash: str = ""
    init: bool = False
    termination_message_file: str = ""


@attrs.frozen
class Image:
    """An image at hand. `id` is the digest of its configuration."""

    id: str
    names: tuple[str, ...]
    size_bytes: int


@attrs.frozen
class Usage:
    """`cpu_ns`: processor time so far. `working_set_bytes`: what cannot be reclaimed at once,
    that is without file pages that were not used lately."""

    cpu_ns: int
    memory_bytes: int
    working_set_bytes: int
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        mine, its = attrs.astuple(self), attrs.astuple(other)
        return Usage(*(a + b for a, b in zip(mine, its, strict=True)))


NOTHING = Usage(0, 0, 0)


class DiskUsage(NamedTuple):
    used_bytes: int
    inodes: int


@attrs.frozen
class ExecResult:
    exit_code: int
    stdout: bytes
    stderr: bytes


@attrs.frozen
class Features:
    """What a runtime can do, so that the kubelet asks no more of it."""

    mounts: bool
    real_processes: bool
    limits: bool


class PodNetwork(Protocol):
    """Gives each pod its address. Both calls are idempotent and remembered over restarts."""

    async def attach(self, pod_id: str, netns: str | None) -> str:
        """Connect the pod and give its address.

        `netns` is the path of its network namespace (`/proc/PID/ns/net`), None where the runtime
        makes none. The same pod gets the same address again. Raises NetworkFailure, OSError.
        """
        ...

    async def detach(self, pod_id: str, netns: str | None) -> None:
        """Give the address back; `netns` may be gone already. Unknown pods are no error."""
        ...


class NetworkFailure(RuntimeFailure):
    """The pod could not be connected."""


class Streams(Protocol):
    """A client's ends of a command's streams.

    When the client is gone, what it was used for is cancelled, or `write` raises an error that
    the caller of the runtime knows (`k8slite.streaming.bytes.HangUp`).
    """

    async def read_stdin(self) -> bytes:
        """What the client has typed since; b"" when it will type no more."""
        ...

    def refuse_stdin(self) -> None:
        """Nobody will read what the client types."""
        ...

    async def write(self, name: str, data: bytes) -> None:
        """Show bytes of "stdout" or "stderr"; returns when they are on their way."""
        ...

    async def next_size(self) -> tuple[int, int]:
        """Wait for a new size of the client's terminal, in columns and rows."""
        ...


class Runtime(Protocol):
    """Runs pods. See the module's rules."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def features(self) -> Features: ...

    @property
    def events(self) -> trio.MemoryReceiveChannel[str]:
        """Uids of pods in which a container or sandbox changed."""
        ...

    async def run_pod_sandbox(self, config: SandboxConfig, network: PodNetwork) -> SandboxStatus:
        """A ready sandbox, connected unless it is on the host's network."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str, network: PodNetwork) -> None: ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove a stopped sandbox with all that was kept of its containers."""
        ...

    async def list_pod_sandbox(self, pod_uid: str | None = None) -> list[SandboxStatus]:
        """The newest first."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Raises ImageMissing, ContainerNotFound (no such sandbox), RuntimeFailure."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Raises StartFailure; the container is then EXITED with code 128, reason StartError."""
        ...

    async def update_container(self, container_id: str, resources: Resources) -> None:
        """Other limits for a container that runs.

        Raises ContainerNotFound, RuntimeFailure (it uses more than it is to have), OSError.
        """
        ...

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        """Stop signal, grace, SIGKILL. Returns when it is EXITED."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def list_containers(self, pod_uid: str | None = None) -> list[ContainerStatus]:
        """The oldest first."""
        ...

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Raises ContainerNotFound."""
        ...

    async def exec_sync(self, container_id: str, command: tuple[str, ...]) -> ExecResult:
        """Run a command inside. Cancelling kills it. Raises RuntimeFailure if it cannot start."""
        ...

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        client: Streams,
        *,
        stdin: bool,
        tty: bool,
    ) -> int:
        """Run a command inside for a client; its exit code. Cancelling ends its whole session.

        With `tty` it has a terminal, and all its output is "stdout". Raises ContainerNotFound when
        the container does not run, RuntimeFailure when the command cannot start.
        """
        ...

    async def attach(self, container_id: str, client: Streams, *, stdin: bool) -> None:
        """Connect a client to the container's first process, from now until it has ended.

        Cancelling leaves the process alone. Raises ContainerNotFound, RuntimeFailure.
        """
        ...

    async def port_forward(self, sandbox_id: str, port: int) -> trio.abc.Stream:
        """A connection to a port as the pod itself sees it. Raises OSError, RuntimeFailure."""
        ...

    async def probe(self, container_id: str, kind: str) -> bool | None:
        """What a runtime without real processes answers for a probe; None: probe it yourself."""
        ...

    async def usage(self) -> Mapping[str, Usage]:
        """What the containers that run use now, by id; those of which it is not known are left
        out."""
        ...

    async def disk_usage(self) -> Mapping[str, DiskUsage]:
        """What containers have written to their roots, by id. Slow: every file is looked at."""
        ...

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]:
        """What of this configuration the runtime will leave undone, in words for an event."""
        ...

    async def image_status(self, image: str) -> Image | None: ...

    async def pull_image(self, image: str, credentials: Sequence[Credential] = ()) -> Image:
        """As its registry has it now; `credentials` are tried in turn. Raises RuntimeFailure."""
        ...

    async def unpack_image(self, image: str, directory: Path) -> None:
        """Make the directory, which must not exist, the image's root, to be shown read-only.

        Raises ImageMissing, RuntimeFailure, OSError.
        """
        ...

    async def list_images(self) -> list[Image]: ...

    async def collect_images(self, policy: Policy) -> Plan:
        """Remove images that no container uses, if their disk is so full; what was done and what
        could not be. Raises OSError."""
        ...
