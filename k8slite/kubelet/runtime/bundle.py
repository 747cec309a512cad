"""The `config.json` of an OCI bundle, from a container's configuration. Pure.

What is masked, mounted and allowed by default is what containerd gives an unprivileged container.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from k8slite.kubelet.runtime.interface import ContainerConfig, Device, Resources, Security

DEFAULT_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
ALL_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
]
MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _mount(target: str, kind: str, options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options.split(",")}


SYSTEM_MOUNTS = [
    _mount("/proc", "proc", "nosuid,noexec,nodev"),
    _mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    _mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    _mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
    _mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
]


@attrs.frozen
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def capabilities_of(security: Security) -> list[str]:
    """The capabilities, as Kubernetes counts them: defaults, less drop, plus add; `ALL` is all."""
    if security.privileged:
        return list(ALL_CAPABILITIES)

    def full(names: tuple[str, ...]) -> list[str]:
        return [n if n.startswith("CAP_") else f"CAP_{n}" for n in (n.upper() for n in names)]

    drop, add = full(security.drop_capabilities), full(security.add_capabilities)
    kept = [] if "CAP_ALL" in drop else [c for c in DEFAULT_CAPABILITIES if c not in drop]
    if "CAP_ALL" in add:
        kept = [c for c in ALL_CAPABILITIES if c not in drop]
    return kept + [c for c in add if c not in kept and c != "CAP_ALL"]


def limits_of(
    resources: Resources,
    *,
    privileged: bool,
    devices: tuple[Device, ...] = (),
    nodes: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "devices": [
            {"allow": privileged, "access": "rwm"},
            *(
                {
                    "allow": True,
                    "access": device.permissions,
                    **{key: node[key] for key in ("type", "major", "minor")},
                }
                for device, node in zip(devices, nodes, strict=True)
            ),
        ]
    }
    cpu = {}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpu_quota_us:
        cpu["quota"], cpu["period"] = resources.cpu_quota_us, resources.cpu_period_us
    if cpu:
        limits["cpu"] = cpu
    if resources.memory_bytes:
        limits["memory"] = {"limit": resources.memory_bytes}
    if resources.pids_max:
        limits["pids"] = {"limit": resources.pids_max}
    return limits


def make_bundle(
    config: ContainerConfig,
    *,
    argv: tuple[str, ...],
    env: dict[str, str],
    cwd: str,
    identity: Identity,
    namespaces_pid: int,
    host_pid: bool,
    pid_namespace: str = "",
    cgroup: str,
    oom_score_adj_min: int,
    nodes: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The whole document. The container joins the namespaces of process `namespaces_pid`.

    `nodes`: the config's devices as OCI lists them.
    """
    security = config.security
    capabilities = capabilities_of(security)
    effective = capabilities if identity.uid == 0 else []
    joined = {"network": "net", "ipc": "ipc", "uts": "uts"}
    namespaces: list[dict[str, str]] = [
        {"type": kind, "path": f"/proc/{namespaces_pid}/ns/{file}"} for kind, file in joined.items()
    ]
    namespaces.append({"type": "mount"})
    if pid_namespace:
        namespaces.append({"type": "pid", "path": pid_namespace})
    elif not host_pid:
        namespaces.append({"type": "pid"})
    access = "rw" if security.privileged else "ro"
    mounts = [
        *SYSTEM_MOUNTS,
        _mount("/sys", "sysfs", f"nosuid,noexec,nodev,{access}"),
        _mount("/sys/fs/cgroup", "cgroup", f"nosuid,noexec,nodev,relatime,{access}"),
    ]
    mounts += [
        {
            "destination": mount.container_path,
            "type": "bind",
            "source": mount.host_path,
            "options": ["rbind", f"r{mount.propagation}", "ro" if mount.read_only else "rw"],
        }
        for mount in config.mounts
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": config.tty,
            "user": {
                "uid": identity.uid,
                "gid": identity.gid,
                "additionalGids": list(identity.groups),
            },
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": cwd,
            "capabilities": {
                "bounding": capabilities,
                "effective": effective,
                "permitted": effective,
                "inheritable": [],
            },
            "noNewPrivileges": security.no_new_privileges,
            "oomScoreAdj": max(config.resources.oom_score_adj, oom_score_adj_min),
        },
        "root": {"path": "rootfs", "readonly": security.read_only_root},
        "mounts": mounts,
        "linux": {
            "resources": limits_of(
                config.resources,
                privileged=security.privileged,
                devices=config.devices,
                nodes=nodes,
            ),
            "devices": [*nodes],
            "cgroupsPath": f"/{cgroup}",
            "namespaces": namespaces,
            "maskedPaths": [] if security.privileged else MASKED,
            "readonlyPaths": [] if security.privileged else READ_ONLY,
        },
    }
