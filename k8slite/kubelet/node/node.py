"""The kubelet's own Node object. Pure, but for the measuring of the machine at the end."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from k8slite.api.meta import Obj, format_time
from k8slite.api.quantity import subtract
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.eviction.thresholds import reserved
from k8slite.kubelet.runtime.interface import Image

IMAGES_MAX = 50

CONDITIONS = (
    (
        "MemoryPressure",
        "False",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


UNDER_PRESSURE = {
    "MemoryPressure": ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    "DiskPressure": ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    "PIDPressure": ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
}
_NO_DEVICES: Mapping[str, tuple[int, int]] = {}


@attrs.frozen
class Machine:
    """What a node reports of the machine under it."""

    capacity: Mapping[str, str]
    info: Mapping[str, Any]


def make_node(config: KubeletConfig, machine: Machine) -> Obj:
    """The object to register; its status comes by `node_status`."""
    arch, system = machine.info["architecture"], machine.info["operatingSystem"]
    labels = {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": system,
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": system,
        **config.labels,
    }
    spec: Obj = {}
    if config.pod_cidr:
        spec.update(podCIDR=config.pod_cidr, podCIDRs=[config.pod_cidr])
    if config.provider_id:
        spec["providerID"] = config.provider_id
    if config.taints:
        spec["taints"] = [dict(taint) for taint in config.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.node_name,
            "labels": labels,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
    }


def allocatable(config: KubeletConfig, machine: Machine) -> dict[str, str]:
    """What pods may ask for: the capacity without what eviction keeps free."""
    left = dict(machine.capacity)
    for resource, amount in reserved(config.eviction, machine.capacity).items():
        if resource in left:
            left[resource] = subtract(left[resource], amount)
    return left


def node_status(
    config: KubeletConfig,
    machine: Machine,
    *,
    old: Obj,
    port: int,
    runtime: str,
    images: Sequence[Image],
    now: float,
    pressures: Collection[str] = (),
    devices: Mapping[str, tuple[int, int]] = _NO_DEVICES,
) -> Obj:
    """The whole status; `old` is the present one, for the times of transition. `pressures`: such
    as MemoryPressure. `devices`: how many of each resource there are, and are healthy."""
    before = {c["type"]: c for c in old.get("conditions") or ()}
    stamp = format_time(now)
    conditions = []
    for kind, status, reason, message in CONDITIONS:
        if kind in pressures:
            status, reason, message = "True", *UNDER_PRESSURE[kind]
        last = before.get(kind)
        same = last is not None and last.get("status") == status
        conditions.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": last["lastTransitionTime"] if same and last else stamp,
                "reason": reason,
                "message": message,
            }
        )
    return {
        "capacity": {**machine.capacity, **{k: str(n) for k, (n, _) in devices.items()}},
        "allocatable": {
            **allocatable(config, machine),
            **{k: str(n) for k, (_, n) in devices.items()},
        },
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": config.node_ip},
            {"type": "Hostname", "address": config.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            **machine.info,
            "containerRuntimeVersion": runtime,
            "kubeletVersion": config.version,
            "kubeProxyVersion": "",
        },
        "images": [
            {"names": list(image.names), "sizeBytes": image.size_bytes}
            for image in images[:IMAGES_MAX]
        ],
    }


def same_but_heartbeat(old: Obj, new: Obj) -> bool:
    """Whether nothing but the heartbeat would change; others' conditions do not count."""

    def bare(status: Obj) -> dict[str, Any]:
        mine = {kind for kind, *_ in CONDITIONS}
        conditions = {
            c["type"]: {k: v for k, v in c.items() if k != "lastHeartbeatTime"}
            for c in status.get("conditions") or ()
            if c["type"] in mine
        }
        fields = ("capacity", "allocatable", "addresses", "daemonEndpoints", "nodeInfo", "images")
        return {"conditions": conditions, **{f: status.get(f) or None for f in fields}}

    return bare(old) == bare(new)


def status_patch(new: Obj) -> Obj:
    """As a strategic merge patch: conditions merge by type, addresses are replaced."""
    return {"status": {**new, "addresses": [*new["addresses"], {"$patch": "replace"}]}}


def read_machine(config: KubeletConfig, *, real: bool) -> Machine:
    """Measure this machine; for a node that is not `real`, fixed and plausible values."""
    pods = str(config.max_pods)
    if not real:
        capacity = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": pods}
        info = _info("fake", "fake", "Fake OS", "fake", "amd64")
        return Machine({**capacity, **(config.capacity or {})}, info)
    stat = os.statvfs(config.root_dir)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    capacity = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory // 1024}Ki",
        "ephemeral-storage": f"{stat.f_blocks * stat.f_frsize // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": pods,
    }
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    machine_id = _read("/etc/machine-id")
    boot_id = _read("/proc/sys/kernel/random/boot_id")
    info = _info(machine_id, boot_id, _os_name(), platform.release(), arch)
    return Machine({**capacity, **(config.capacity or {})}, info)


def _info(machine_id: str, boot_id: str, os_image: str, kernel: str, arch: str) -> dict[str, str]:
    return {
        "machineID": machine_id,
        "systemUUID": machine_id,
        "bootID": boot_id,
        "kernelVersion": kernel,
        "osImage": os_image,
        "operatingSystem": "linux",
        "architecture": arch,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_name() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"
