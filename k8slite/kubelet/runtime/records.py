"""What is kept on disk about sandboxes and containers, and how it is read back.

Owns the layout of the runtime's directory:

    sandboxes/ID/config.json    the SandboxConfig and when it was made
    sandboxes/ID/state.json     {"pid", "start"} of the process that holds the namespaces, if any
    sandboxes/ID/address.json   {"ip"}; its presence makes the sandbox ready
    sandboxes/ID/stopped        an empty file: no longer ready
    containers/ID/config.json   the ContainerConfig, its sandbox, its image, when it was made
    containers/ID/{shim,state,exit}.json   see `shim.py`

Every file appears by rename. All calls are small and synchronous. Reading never fails because of a
half-made directory: it is taken for absent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs

from k8slite.kubelet.runtime.interface import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Device,
    Mount,
    Resources,
    SandboxConfig,
    SandboxStatus,
    Security,
)

LOST = 255  # the exit code of a container whose end nobody saw (as containerd reports it)


def write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """The content, or None when the file does not exist or was never finished."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def start_time(pid: int) -> int | None:
    """The process's start in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, start: int) -> bool:
    """Whether that very process runs; a reused pid has another start time."""
    return start_time(pid) == start


def sandbox_to_json(config: SandboxConfig, created_at: float) -> dict[str, Any]:
    return {"config": attrs.asdict(config), "created_at": created_at}


def sandbox_from_json(value: dict[str, Any]) -> tuple[SandboxConfig, float]:
    fields = dict(value["config"])
    fields["sysctls"] = tuple((name, text) for name, text in fields["sysctls"])
    return SandboxConfig(**fields), value["created_at"]


def container_to_json(config: ContainerConfig) -> dict[str, Any]:
    return attrs.asdict(config)


def container_from_json(value: dict[str, Any]) -> ContainerConfig:
    fields = dict(value)
    security = dict(fields["security"])
    for name in ("supplemental_groups", "add_capabilities", "drop_capabilities"):
        security[name] = tuple(security[name])
    fields["security"] = Security(**security)
    fields["resources"] = Resources(**fields["resources"])
    fields["devices"] = tuple(Device(**device) for device in fields.get("devices") or ())
    fields["mounts"] = tuple(Mount(**mount) for mount in fields["mounts"])
    fields["env"] = tuple((name, text) for name, text in fields["env"])
    for name in ("command", "args"):
        fields[name] = tuple(fields[name])
    return ContainerConfig(**fields)


def read_sandbox(directory: Path, *, needs_process: bool) -> SandboxStatus | None:
    stored = read_json(directory / "config.json")
    if stored is None:
        return None
    config, created_at = sandbox_from_json(stored)
    address = read_json(directory / "address.json")
    ready = address is not None and not (directory / "stopped").exists()
    if ready and needs_process:
        state = read_json(directory / "state.json")
        ready = state is not None and alive(state["pid"], state["start"])
    return SandboxStatus(
        id=directory.name,
        pod_uid=config.pod_uid,
        namespace=config.namespace,
        name=config.name,
        attempt=config.attempt,
        ready=ready,
        created_at=created_at,
        ip="" if address is None else address["ip"],
        host_network=config.host_network,
        grace_seconds=config.grace_seconds,
    )


def read_container(directory: Path, pod_uid: str, now: float) -> ContainerStatus | None:
    """The container as its files and its shim tell; `now` dates an end that nobody saw."""
    stored = read_json(directory / "config.json")
    if stored is None:
        return None
    config = container_from_json(stored["config"])
    status = ContainerStatus(
        id=directory.name,
        sandbox_id=stored["sandbox_id"],
        pod_uid=pod_uid,
        name=config.name,
        attempt=config.attempt,
        state=ContainerState.CREATED,
        image=config.image,
        image_id=stored["image_id"],
        created_at=stored["created_at"],
        log_path=config.log_path,
        spec_hash=config.spec_hash,
        init=config.init,
        termination_message_file=config.termination_message_file,
    )
    return follow(status, directory, now)


def follow(status: ContainerStatus, directory: Path, now: float) -> ContainerStatus:
    """The status after what the shim has written since."""
    if status.state is ContainerState.EXITED:
        return status
    ended = read_json(directory / "exit.json")
    if ended is None:
        state = read_json(directory / "state.json")
        if state is None:
            return status
        if alive(state["shim"], state["shim_start"]):
            return attrs.evolve(
                status, state=ContainerState.RUNNING, started_at=state["started_at"]
            )
        # Between our two looks the shim may have written its last word.
        ended = read_json(directory / "exit.json") or {
            "exit_code": LOST,
            "reason": "Unknown",
            "message": "the container's shim has died (was the machine restarted?)",
            "started_at": state["started_at"],
            "finished_at": now,
        }
    code = ended["exit_code"]
    return attrs.evolve(
        status,
        state=ContainerState.EXITED,
        started_at=ended["started_at"],
        finished_at=ended["finished_at"],
        exit_code=code,
        signal=ended.get("signal", 0),
        reason=ended.get("reason") or ("Completed" if code == 0 else "Error"),
        message=ended.get("message", ""),
    )
