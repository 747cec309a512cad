"""What differs between runtimes whose containers have shims: the seam of `shimmed`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from k8slite.kubelet.images.store import StoredImage
from k8slite.kubelet.runtime.execute import Exec
from k8slite.kubelet.runtime.interface import (
    ContainerConfig,
    ContainerStatus,
    Features,
    Resources,
    SandboxConfig,
    Usage,
)

__all__ = ["Backend", "SandboxView"]


class Backend(Protocol):
    """What one kind of container needs. The calls run in a thread; they may touch files."""

    name: str
    version: str
    features: Features
    sandbox_processes: bool

    def sandbox(self, directory: Path, config: SandboxConfig) -> dict[str, Any]:
        """What `shim.json` says about the sandbox (used if it has a process)."""
        ...

    def container(
        self, directory: Path, config: ContainerConfig, sandbox: SandboxView, image: StoredImage
    ) -> dict[str, Any]:
        """What `shim.json` says about the container. Raises RuntimeFailure."""
        ...

    def exec(self, directory: Path, command: tuple[str, ...], *, tty: bool = False) -> Exec: ...

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]: ...

    def usage(self, containers: Mapping[Path, ContainerStatus]) -> dict[str, Usage]:
        """Of running containers, by id; `containers` by directory."""
        ...

    def update(self, directory: Path, pod_uid: str, resources: Resources) -> None:
        """Other limits for a running container. Raises RuntimeFailure, OSError."""
        ...

    def forget(self, directory: Path) -> None:
        """Before a container's directory is removed."""
        ...

    def forget_pod(self, pod_uid: str) -> None:
        """Before a sandbox's directory is removed."""
        ...


@attrs.frozen
class SandboxView:
    """A sandbox as a backend sees it. `pid` 0: no process holds namespaces."""

    id: str
    config: SandboxConfig
    pid: int
    ip: str
