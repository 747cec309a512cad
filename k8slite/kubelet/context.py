"""What all pod workers of one kubelet share. A bag of handles; it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

import attrs

from k8slite.api.meta import Obj
from k8slite.client.api import Api
from k8slite.client.events import EventRecorder
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.containers.fields import NodeFacts
from k8slite.kubelet.devices.grant import Grant
from k8slite.kubelet.node.node import Machine
from k8slite.kubelet.paths import Paths
from k8slite.kubelet.pods import ephemeral_containers, find_container, init_containers
from k8slite.kubelet.runtime.interface import PodNetwork, Runtime
from k8slite.kubelet.status_manager import StatusManager
from raftkv.host import Host


class Devices(Protocol):
    """Who gives devices to containers."""

    async def allocate(self, pod: Obj, container: Obj) -> Grant:
        """What the container needs for those that it asks for. Raises ConfigFailure."""
        ...

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """By resource: how many there are, and how many are healthy."""
        ...

    def keep_only(self, pods: Container[str]) -> None:
        """Take back what pods had that are gone; by uid."""
        ...


class NoDevices:
    """Where there are no plugins."""

    async def allocate(self, pod: Obj, container: Obj) -> Grant:
        return Grant()

    def counts(self) -> Mapping[str, tuple[int, int]]:
        return {}

    def keep_only(self, pods: Container[str]) -> None:
        return


@attrs.frozen
class Context:
    config: KubeletConfig
    host: Host
    api: Api
    runtime: Runtime
    network: PodNetwork
    recorder: EventRecorder
    statuses: StatusManager
    services: Callable[[], Sequence[Obj]]
    machine: Machine
    paths: Paths
    backoff: Backoff
    devices: Devices
    pods: Callable[[], Sequence[Obj]] = tuple
    """The node's."""

    @property
    def node(self) -> NodeFacts:
        return NodeFacts(self.config.node_name, self.config.node_ip, dict(self.machine.capacity))

    @property
    def on_disk(self) -> bool:
        """Whether pods have directories: a fake runtime's have none."""
        return self.runtime.features.real_processes

    def event(self, pod: Obj, kind: str, reason: str, message: str, container: str = "") -> None:
        """An event about the pod, or about one container of it."""
        path = ""
        if container and find_container(pod, container) is not None:
            inits = [c["name"] for c in init_containers(pod)]
            field = "initContainers" if container in inits else "containers"
            if container in [c["name"] for c in ephemeral_containers(pod)]:
                field = "ephemeralContainers"
            path = f"spec.{field}{{{container}}}"
        whole = {"apiVersion": "v1", "kind": "Pod", **pod}
        self.recorder.event(whole, kind, reason, message, field_path=path)
