"""Keeps the node from running short of memory and disk: frees what it can, then evicts pods.

Owns: what the last look has found. One pod is evicted a round; the next look tells whether that was
enough. What pods take of the disk is measured only when the disk is short of something, and of
pods that have limits.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.eviction.disk import with_disk
from k8slite.kubelet.eviction.ranking import Using, Verdict, over_limits, rank, verdict
from k8slite.kubelet.eviction.thresholds import (
    CONDITION_OF,
    RESOURCE_OF,
    Observation,
    Pressure,
    Threshold,
    met,
    observe,
)
from k8slite.kubelet.images.garbage import Policy
from k8slite.kubelet.paths import Paths
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus, Runtime
from k8slite.kubelet.stats.sampler import Sampler
from k8slite.kubelet.stats.summary import MachineState
from raftkv.host import Host

__all__ = ["EvictionManager"]

log = logging.getLogger(__name__)

ALL_UNUSED = Policy(high_percent=0, low_percent=0, min_age_seconds=0.0)
DISK = "DiskPressure"


@attrs.define
class EvictionManager:
    """`machine` measures; `evict` ends a pod and returns when its containers are down; `tell` is
    given reason and message of an event about the node."""

    config: KubeletConfig
    host: Host
    runtime: Runtime
    sampler: Sampler
    machine: Callable[[], Awaitable[MachineState]]
    pods: Callable[[], Sequence[Obj]]
    evict: Callable[[Obj, Verdict], None]
    tell: Callable[[str, str], None]
    paths: Paths
    _pressure: Pressure = attrs.field(init=False)

    @_pressure.default
    def _fresh(self) -> Pressure:
        return Pressure(self.config.timings.pressure_transition)

    def conditions(self) -> frozenset[str]:
        """Such as MemoryPressure."""
        return self._pressure.conditions(self.host.now())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(self.config.timings.eviction)

    async def look(self) -> None:
        """One round."""
        await self._end_greedy()
        observations = observe(await self.machine())
        found = self._met(observations)
        act = self._pressure.note(found, self.host.now())
        if not act:
            return
        first = act[0]
        resource = RESOURCE_OF[first.signal]
        self.tell("EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if CONDITION_OF[first.signal] == DISK and await self._freed(first):
            return
        await self._evict_one(first, observations[first.signal])

    def _met(self, observations: dict[str, Observation]) -> list[Threshold]:
        before = self._pressure.met_before()
        return met(self.config.eviction, observations, before=before)

    async def _freed(self, threshold: Threshold) -> bool:
        """Whether removing unused images is enough."""
        try:
            await self.runtime.collect_images(ALL_UNUSED)
        except OSError as error:
            log.warning("images not removed: %s", error)
        observations = observe(await self.machine())
        return threshold not in self._met(observations)

    async def _evict_one(self, threshold: Threshold, seen: Observation) -> None:
        resource = RESOURCE_OF[threshold.signal]
        pods = self._alive()
        using = await self._using(pods, disk=CONDITION_OF[threshold.signal] == DISK)
        for pod in rank(pods, using, resource):
            used = using.get(pod["metadata"]["uid"], Using())
            self.evict(pod, verdict(pod, used, threshold, seen))
            return
        log.warning("no pod left to evict threshold=%s", threshold.signal)

    async def _end_greedy(self) -> None:
        """Pods beyond limits of their own."""
        limited = [pod for pod in self._alive() if _is_limited(pod)]
        if not limited:
            return
        using = await self._using(limited, disk=True)
        for pod in limited:
            found = over_limits(pod, using.get(pod["metadata"]["uid"], Using()))
            if found is not None:
                self.evict(pod, found)

    def _alive(self) -> list[Obj]:
        return [
            pod
            for pod in self.pods()
            if (pod.get("status") or {}).get("phase") in (None, "Pending", "Running")
            and not pod["metadata"].get("deletionTimestamp")
        ]

    async def _using(self, pods: Sequence[Obj], *, disk: bool) -> dict[str, Using]:
        """By uid."""
        statuses: dict[str, list[ContainerStatus]] = {}
        for status in await self.runtime.list_containers():
            statuses.setdefault(status.pod_uid, []).append(status)
        found = {}
        written = await self.runtime.disk_usage() if disk else {}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            own = statuses.get(uid, [])
            using = self._sampled(own)
            if disk:
                using = await trio.to_thread.run_sync(
                    with_disk, pod, using, self.paths, own, written
                )
            found[uid] = using
        return found

    def _sampled(self, statuses: Sequence[ContainerStatus]) -> Using:
        running = [s for s in statuses if s.state is ContainerState.RUNNING]
        samples = {s.name: self.sampler.containers.get(s.id) for s in running}
        usages = {name: sample.usage for name, sample in samples.items() if sample is not None}
        return Using(
            memory={name: usage.working_set_bytes for name, usage in usages.items()},
            processes=sum(usage.processes for usage in usages.values()),
        )


def _is_limited(pod: Obj) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    if any((volume.get("emptyDir") or {}).get("sizeLimit") for volume in volumes):
        return True
    return any(
        "ephemeral-storage" in ((container.get("resources") or {}).get("limits") or {})
        for container in pod["spec"]["containers"]
    )
