"""Real containers, as root: OCI bundles run by runc (preferred) or crun.

A sandbox is one small process that holds the pod's network, IPC and UTS namespaces. A container's
root is an overlay on its image's layers, mounted in its shim's mount namespace: no mount is ever
made in the machine's own. Limits are control groups below one group of the cluster's directory.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from k8slite.kubelet.images.store import ImageStore, StoredImage
from k8slite.kubelet.runtime import cgroups
from k8slite.kubelet.runtime.backend import SandboxView
from k8slite.kubelet.runtime.bundle import make_bundle
from k8slite.kubelet.runtime.command import command_of, environment_of, stop_signal_of
from k8slite.kubelet.runtime.device_nodes import device_nodes
from k8slite.kubelet.runtime.execute import Exec
from k8slite.kubelet.runtime.interface import (
    ContainerConfig,
    ContainerStatus,
    Features,
    Resources,
    RuntimeFailure,
    SandboxConfig,
    Usage,
)
from k8slite.kubelet.runtime.launcher import PATH
from k8slite.kubelet.runtime.records import read_json, write_json
from k8slite.kubelet.runtime.shimmed import ShimRuntime, open_shim_runtime
from k8slite.kubelet.runtime.usage import of_group
from k8slite.kubelet.runtime.users import identity_of
from raftkv.host import Host

ENV = {"PATH": PATH}


def find_oci() -> str:
    """The OCI runtime to use. Raises RuntimeFailure when there is none."""
    for name in ("runc", "crun"):
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}")
        if found:
            return found
    raise RuntimeFailure(
        "neither runc nor crun is installed; install runc, or use --runtime process"
    )


class OciBackend:
    """Fulfils `Backend`."""

    name = "oci"
    features = Features(mounts=True, real_processes=True, limits=True)
    sandbox_processes = True

    def __init__(self, root_dir: Path, binary: str) -> None:
        self._binary = binary
        self._state = root_dir / "runtime" / "oci"
        self._parent = cgroups.parent_of(root_dir)
        self._oom_score_adj_min = int(Path("/proc/self/oom_score_adj").read_text())
        first = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        words = first.stdout.split("\n")[0].split()
        self.version = f"{words[0]}-{words[-1]}"

    def sandbox(self, directory: Path, config: SandboxConfig) -> dict[str, Any]:
        return {
            "dir": str(directory),
            "hostname": config.hostname[:63],
            "host_network": config.host_network,
            "host_ipc": config.host_ipc,
            "sysctls": list(config.sysctls),
        }

    def container(
        self, directory: Path, config: ContainerConfig, sandbox: SandboxView, image: StoredImage
    ) -> dict[str, Any]:
        if not image.layers:
            raise RuntimeFailure(
                f"image {config.image} has no root file system for a container"
                + (" (busybox-static is not installed)" if image.programs else "")
            )
        for name in ("rootfs", "upper", "work"):
            (directory / name).mkdir(mode=0o755)
        group = f"{self._parent}/pod{sandbox.config.pod_uid}/{directory.name}"
        env = environment_of(config, image.config, hostname=sandbox.config.hostname)
        env.setdefault("PATH", PATH)
        bundle = make_bundle(
            config,
            argv=command_of(config, image.config),
            env=env,
            cwd=config.working_dir or image.config.working_dir or "/",
            identity=identity_of(config.security, image.config.user, image.layers),
            namespaces_pid=sandbox.pid,
            host_pid=sandbox.config.host_pid,
            pid_namespace=_pid_namespace(directory, config),
            cgroup=group,
            oom_score_adj_min=self._oom_score_adj_min,
            nodes=device_nodes(config.devices),
        )
        write_json(directory / "config-oci.json", bundle)
        bundle_dir = directory / "bundle"
        bundle_dir.mkdir()
        (directory / "config-oci.json").rename(bundle_dir / "config.json")
        (directory / "rootfs").rename(bundle_dir / "rootfs")
        lower = ":".join(_escape(path) for path in reversed(image.layers))
        return {
            "cwd": "/",
            "stop_signal": stop_signal_of(image.config),
            "overlay": {
                "lower": lower,
                "upper": _escape(directory / "upper"),
                "work": _escape(directory / "work"),
                "target": str(bundle_dir / "rootfs"),
            },
            "unmount": self._hidden(),
            "oom_files": cgroups.oom_files(group),
            "oci": self._commands(directory, bundle_dir),
        }

    def _hidden(self) -> list[str]:
        """crun refuses a version 2 tree beside version 1 ones: it must not see it."""
        hybrid = cgroups.HYBRID.is_dir() and "crun" in Path(self._binary).name
        return [str(cgroups.HYBRID)] if hybrid else []

    def _commands(self, directory: Path, bundle: Path) -> dict[str, Any]:
        log = str(directory / "oci.log")
        pid_file = str(directory / "pid")
        base = [self._binary, "--root", str(self._state), "--log", log, "--log-format", "json"]
        name = directory.name
        create = ["create", "--bundle", str(bundle), "--pid-file", pid_file]
        return {
            "env": ENV,
            "log": log,
            "pid_file": pid_file,
            "create": [*base, *create, name],
            "start": [*base, "start", name],
            "delete": [*base, "delete", "--force", name],
        }

    def exec(self, directory: Path, command: tuple[str, ...], *, tty: bool = False) -> Exec:
        stem = directory / f"exec-{os.urandom(6).hex()}"
        pid_file, log = f"{stem}.pid", f"{stem}.log"
        spec = read_json(directory / "shim.json")
        base = (*spec["oci"]["create"][:3], "--log", log, "--log-format", "json")
        if not tty:
            argv = (*base, "exec", "--pid-file", pid_file, directory.name, *command)
            return Exec(argv, ENV, str(directory), pid_file, log)
        # Only a process in a file can be given the terminal's size before it runs.
        process = read_json(directory / "bundle" / "config.json")["process"]
        env = [*(v for v in process["env"] if not v.startswith("TERM=")), "TERM=xterm"]
        path = Path(f"{stem}.json")
        write_json(path, {**process, "args": list(command), "terminal": True, "env": env})
        options = ("--pid-file", pid_file, "--tty", "--process", str(path))
        argv = (*base, "exec", *options, directory.name)
        return Exec(argv, ENV, str(directory), pid_file, log, str(path))

    def unsupported(self, config: ContainerConfig) -> tuple[str, ...]:
        return ()

    def usage(self, containers: Mapping[Path, ContainerStatus]) -> dict[str, Usage]:
        found = {
            status.id: of_group(f"{self._parent}/pod{status.pod_uid}/{directory.name}")
            for directory, status in containers.items()
        }
        return {each: usage for each, usage in found.items() if usage is not None}

    def update(self, directory: Path, pod_uid: str, resources: Resources) -> None:
        try:
            cgroups.set_limits(f"{self._parent}/pod{pod_uid}/{directory.name}", resources)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise RuntimeFailure(
                f"attempting to set memory limit ({resources.memory_bytes}) below current usage"
            ) from None

    def forget(self, directory: Path) -> None:
        spec = read_json(directory / "shim.json")
        if spec is not None and not (directory / "exit.json").exists():
            subprocess.run(spec["oci"]["delete"], env=ENV, capture_output=True, check=False)

    def forget_pod(self, pod_uid: str) -> None:
        cgroups.remove_groups(f"{self._parent}/pod{pod_uid}")


def _pid_namespace(directory: Path, config: ContainerConfig) -> str:
    """Of the container that this one is to look into; "" for one of its own."""
    if not config.target_id:
        return ""
    state = read_json(directory.parent / config.target_id / "state.json")
    if state is None:
        raise RuntimeFailure(f"container {config.name}: its target has not started")
    return f"/proc/{state['pid']}/ns/pid"


def _escape(path: Path) -> str:
    """A path for overlayfs's options, in which colons and commas have a meaning."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@asynccontextmanager
async def open_oci_runtime(
    root_dir: str | Path,
    host: Host,
    images: ImageStore,
    *,
    binary: str = "",
    registry_command: Sequence[str] = (),
) -> AsyncGenerator[ShimRuntime]:
    """The `oci` runtime with its state in `ROOT_DIR/runtime`; needs root.

    Raises RuntimeFailure when no OCI runtime is installed or the user is not root.
    """
    if os.geteuid() != 0:
        raise RuntimeFailure("the oci runtime needs root; use --runtime process without")
    backend = OciBackend(Path(os.path.abspath(root_dir)), binary or find_oci())  # noqa: ASYNC240
    async with open_shim_runtime(root_dir, host, images, backend, registry_command) as runtime:
        yield runtime


__all__ = ["OciBackend", "find_oci", "open_oci_runtime"]
