"""Pods that have a node and wait for a Permit plugin's word before they are bound."""

from __future__ import annotations

import trio
from attrs import define, field

from k8slite.scheduler.framework import BindFailed
from k8slite.scheduler.pod_info import PodInfo

__all__ = ["WaitingPod", "WaitingPods"]


@define(eq=False)
class WaitingPod:
    """`pending`: the plugins that have not allowed it yet, each with its deadline."""

    pod: PodInfo
    node: str
    pending: dict[str, float]
    rejected: str = ""
    _changed: trio.Event = field(factory=trio.Event)

    def allow(self, plugin: str) -> None:
        self.pending.pop(plugin, None)
        self._changed.set()

    def reject(self, plugin: str, message: str) -> None:
        self.rejected = f"pod {self.pod.key!r} rejected while waiting on permit: {message}"
        self._changed.set()

    async def wait(self) -> None:
        """Until all plugins have allowed it. Raises BindFailed."""
        while self.pending and not self.rejected:
            self._changed = trio.Event()
            plugin, deadline = min(self.pending.items(), key=lambda item: item[1])
            with trio.CancelScope(deadline=deadline) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                self.reject(plugin, f"timed out waiting for plugin {plugin}")
        if self.rejected:
            raise BindFailed(self.rejected)


class WaitingPods:
    """By uid; what plugins ask to allow or reject a pod."""

    def __init__(self) -> None:
        self._pods: dict[str, WaitingPod] = {}

    def all(self) -> list[WaitingPod]:
        return [*self._pods.values()]

    def get(self, pod_uid: str) -> WaitingPod | None:
        return self._pods.get(pod_uid)

    def add(self, waiting: WaitingPod) -> None:
        self._pods[waiting.pod.uid] = waiting

    def remove(self, pod_uid: str) -> None:
        self._pods.pop(pod_uid, None)
