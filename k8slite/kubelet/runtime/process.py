"""Containers as ordinary processes: no root, no isolation, the same life cycle.

A container is a child process of its shim, in a session of its own; a pod is a loopback address.
The command is found on the machine, the built-in image's programs first. What it cannot do it says
(`unsupported`): there are no limits and no other user, and volumes are not mounted but linked below
`$K8SLITE_ROOT`, a directory of the container's own in which it also starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from k8slite.kubelet.images.store import ImageStore, StoredImage
from k8slite.kubelet.runtime.backend import SandboxView
from k8slite.kubelet.runtime.command import command_of, environment_of, stop_signal_of
from k8slite.kubelet.runtime.execute import Exec
from k8slite.kubelet.runtime.interface import (
    ContainerConfig,
    ContainerStatus,
    Features,
    Resources,
    SandboxConfig,
    Usage,
)
from k8slite.kubelet.runtime.launcher import PATH
from k8slite.kubelet.runtime.records import read_json
from k8slite.kubelet.runtime.shimmed import ShimRuntime, open_shim_runtime
from k8slite.kubelet.runtime.usage import ProcessTable
from raftkv.host import Host

MARK = "K8SLITE_CONTAINER"  # in every container's environment, so that cleanup finds strays
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
QUIET_MOUNTS = (SERVICE_ACCOUNT, "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")


class ProcessBackend:
    """Fulfils `Backend`."""

    name = "process"
    version = "1.0"
    features = Features(mounts=False, real_processes=True, limits=False)
    sandbox_processes = False

    def __init__(self, images: ImageStore) -> None:
        self._images = images

    def sandbox(self, directory: Path, config: SandboxConfig) -> dict[str, Any]:
        return {}

    def container(
        self, directory: Path, config: ContainerConfig, sandbox: SandboxView, image: StoredImage
    ) -> dict[str, Any]:
        root = directory / "root"
        root.mkdir(mode=0o755)
        for mount in config.mounts:
            link = root / mount.container_path.lstrip("/")
            if not link.is_relative_to(root) or ".." in link.parts:
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(mount.host_path)
        env = environment_of(config, image.config, hostname=sandbox.config.hostname)
        path = env.get("PATH", PATH)
        programs = image.programs or self._images.builtin_programs()
        env["PATH"] = ":".join(part for part in (programs, path, PATH) if part)
        env["K8SLITE_ROOT"] = str(root)
        env[MARK] = str(directory)
        env.setdefault("HOME", str(root))
        wanted = config.working_dir or image.config.working_dir
        inside = root / wanted.lstrip("/")
        cwd = next((str(p) for p in (inside, Path(wanted)) if wanted and p.is_dir()), str(root))
        return {
            "argv": list(command_of(config, image.config)),
            "env": env,
            "cwd": cwd,
            "stop_signal": stop_signal_of(image.config),
        }

    def exec(self, directory: Path, command: tuple[str, ...], *, tty: bool = False) -> Exec:
        spec = read_json(directory / "shim.json")
        env = {"TERM": "xterm", **spec["env"]} if tty else spec["env"]
        return Exec(command, env, spec["cwd"])

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]:
        notes = []
        mounted = [m.container_path for m in config.mounts if m.container_path not in QUIET_MOUNTS]
        if config.termination_message_file:
            mounted = [p for p in mounted if not _is_termination(config, p)]
        if mounted:
            notes.append(
                f"volumes are linked below $K8SLITE_ROOT, not mounted: {', '.join(mounted)}"
            )
        if config.target_id:
            notes.append("the target's processes are seen as all of the machine's are")
        security = config.security
        if security.user not in (None, os.geteuid()):
            notes.append(f"runAsUser {security.user} is ignored: processes run as {os.geteuid()}")
        if security.privileged or security.add_capabilities:
            notes.append("privileges and capabilities are not given")
        return tuple(notes)

    def usage(self, containers: Mapping[Path, ContainerStatus]) -> dict[str, Usage]:
        if not containers:
            return {}
        table, found = ProcessTable.read(), {}
        for directory, status in containers.items():
            state = read_json(directory / "state.json")
            usage = None if state is None else table.below(state["shim"])
            if usage is not None:
                found[status.id] = usage
        return found

    def update(self, directory: Path, pod_uid: str, resources: Resources) -> None:
        """Processes have no limits."""

    def forget(self, directory: Path) -> None:
        if not (directory / "exit.json").exists():
            kill_marked(f"{MARK}={directory}")

    def forget_pod(self, pod_uid: str) -> None:
        return


def kill_marked(mark: str) -> list[int]:
    """Kill every process that has the variable in its environment; who they were."""
    found = marked(mark)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


def marked(mark: str) -> list[int]:
    """The processes whose environment has a variable that begins so."""
    start = b"\0" + mark.encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                if start in b"\0" + (path / "environ").read_bytes():
                    found.append(int(path.name))
    return sorted(found)


def _is_termination(config: ContainerConfig, path: str) -> bool:
    return any(
        m.container_path == path and m.host_path == config.termination_message_file
        for m in config.mounts
    )


@asynccontextmanager
async def open_process_runtime(
    root_dir: str | Path, host: Host, images: ImageStore, *, registry_command: Sequence[str] = ()
) -> AsyncGenerator[ShimRuntime]:
    """The `process` runtime with its state in `ROOT_DIR/runtime`."""
    backend = ProcessBackend(images)
    async with open_shim_runtime(root_dir, host, images, backend, registry_command) as runtime:
        yield runtime
