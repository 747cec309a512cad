"""What `/stats/summary` tells: the kubelet's Summary API (stats/v1alpha1). Pure.

One field is ours: `windowSeconds` beside `usageNanoCores`, over how long that is the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs

from k8slite.api.meta import Obj, format_time
from k8slite.kubelet.runtime.interface import NOTHING, ContainerState, ContainerStatus
from k8slite.kubelet.stats.sample import Sample

__all__ = ["FileSystem", "MachineState", "PodContainers", "make_summary", "running_containers"]


class FileSystem(NamedTuple):
    capacity_bytes: int
    available_bytes: int
    inodes: int
    inodes_free: int


@attrs.frozen
class MachineState:
    """Of the machine under the node, which it may share with others. `booted_at`: when the kubelet
    began, wall-clock seconds."""

    memory_bytes: int = 0
    memory_available_bytes: int = 0
    file_system: FileSystem | None = None
    pids_max: int = 0
    pids: int = 0
    started_at: float = 0.0


class PodContainers(NamedTuple):
    """A pod, and those of its containers that run."""

    pod: Obj
    containers: Sequence[ContainerStatus]


def running_containers(
    pods: Iterable[Obj], statuses: Iterable[ContainerStatus]
) -> list[PodContainers]:
    """By pod; those without any are left out."""
    by_pod: dict[str, list[ContainerStatus]] = {}
    for status in statuses:
        if status.state is ContainerState.RUNNING:
            by_pod.setdefault(status.pod_uid, []).append(status)
    return [
        PodContainers(pod, by_pod[pod["metadata"]["uid"]])
        for pod in pods
        if pod["metadata"]["uid"] in by_pod
    ]


def make_summary(
    node_name: str,
    machine: MachineState,
    node: Sample | None,
    pods: Iterable[PodContainers],
    samples: Mapping[str, Sample],
    *,
    only_cpu_and_memory: bool = False,
) -> Obj:
    whole: Obj = {
        "nodeName": node_name,
        "startTime": format_time(machine.started_at),
        **_measured(node, machine.memory_available_bytes),
    }
    if not only_cpu_and_memory:
        whole |= _machine(machine, node)
    return {"node": whole, "pods": [_pod(each, samples, only_cpu_and_memory) for each in pods]}


def _measured(sample: Sample | None, available: int | None = None) -> Obj:
    if sample is None:
        return {}
    time, usage = format_time(sample.at), sample.usage
    cpu: Obj = {"time": time}
    if sample.nano_cores is not None and sample.window_seconds is not None:
        cpu["usageNanoCores"] = sample.nano_cores
        cpu["windowSeconds"] = round(sample.window_seconds, 3)
    cpu["usageCoreNanoSeconds"] = usage.cpu_ns
    memory: Obj = {"time": time}
    if available is not None:
        memory["availableBytes"] = available
    memory |= {
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    }
    return {"cpu": cpu, "memory": memory}


def _machine(machine: MachineState, node: Sample | None) -> Obj:
    told: Obj = {}
    time = format_time(node.at if node is not None else machine.started_at)
    if machine.file_system is not None:
        disk = machine.file_system
        fs = {
            "time": time,
            "availableBytes": disk.available_bytes,
            "capacityBytes": disk.capacity_bytes,
            "usedBytes": disk.capacity_bytes - disk.available_bytes,
            "inodesFree": disk.inodes_free,
            "inodes": disk.inodes,
            "inodesUsed": disk.inodes - disk.inodes_free,
        }
        told |= {"fs": fs, "runtime": {"imageFs": fs, "containerFs": fs}}
    if machine.pids_max:
        told["rlimit"] = {"time": time, "maxpid": machine.pids_max, "curproc": machine.pids}
    return told


def _pod(each: PodContainers, samples: Mapping[str, Sample], only_cpu_and_memory: bool) -> Obj:
    meta = each.pod["metadata"]
    containers = []
    found: list[Sample] = []
    for status in each.containers:
        sample = samples.get(status.id)
        if sample is None:
            continue
        found.append(sample)
        started = format_time(status.started_at)
        containers.append({"name": status.name, "startTime": started, **_measured(sample)})
    whole = {
        "podRef": {key: meta[key] for key in ("name", "namespace", "uid")},
        "startTime": (each.pod.get("status") or {}).get("startTime"),
        "containers": containers,
        **_measured(_sum(found)),
    }
    if found and not only_cpu_and_memory:
        processes = sum(sample.usage.processes for sample in found)
        whole["process_stats"] = {"process_count": processes}
    return whole


def _sum(samples: Sequence[Sample]) -> Sample | None:
    """Of containers that were looked at together; a rate if each has one."""
    if not samples:
        return None
    rates = [sample.nano_cores for sample in samples]
    windows = [sample.window_seconds for sample in samples]
    return Sample(
        samples[0].at,
        sum((sample.usage for sample in samples), NOTHING),
        None if None in rates else sum(rate or 0 for rate in rates),
        None if None in windows else max(window or 0.0 for window in windows),
    )
