"""What the informers tell: it fills the snapshot and the queue, and wakes pods that it may help."""

from __future__ import annotations

from collections.abc import Callable, Container

import trio

from k8slite.api import meta
from k8slite.api.kinds import (
    KIND,
    NAMESPACES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Kind,
)
from k8slite.api.meta import Obj, deleting, name, namespace, uid
from k8slite.client.informer import Handler, SharedInformers
from k8slite.scheduler import events
from k8slite.scheduler.events import ASSIGNED_POD, Action, Change
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.queue import SchedulingQueue
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.volumes import VolumeBinder

__all__ = ["Watchers"]

RESOURCE_CLAIMS = KIND["resourceclaims.resource.k8s.io"]
RESOURCE_SLICES = KIND["resourceslices.resource.k8s.io"]
DEVICE_CLASSES = KIND["deviceclasses.resource.k8s.io"]
FINISHED = ("Succeeded", "Failed")


class Watchers:
    """Handlers of one term. `wake` is called when a pod may be tried."""

    def __init__(
        self,
        snapshot: Snapshot,
        queue: SchedulingQueue,
        names: Container[str],
        volumes: VolumeBinder,
        wake: Callable[[], None],
    ) -> None:
        self._snapshot = snapshot
        self._queue = queue
        self._names = names
        self._volumes = volumes
        self._wake = wake

    async def watch(self, informers: SharedInformers) -> None:
        """Fill the snapshot before the first decision; pods come last."""
        nodes, pods = informers.of(NODES), informers.of(PODS)
        devices = self._snapshot.devices
        kinds: list[tuple[Kind, Handler]] = [
            (NAMESPACES, self._on_space),
            (SERVICES, self._on_service),
            (POD_DISRUPTION_BUDGETS, self._keep(self._snapshot.budgets)),
            (DEVICE_CLASSES, self._keep(devices.classes, events.DEVICE_CLASS)),
            (RESOURCE_SLICES, self._on_slice),
            (RESOURCE_CLAIMS, self._on_claim),
        ]
        others = [(informers.of(kind), handler) for kind, handler in kinds]
        self._volumes.watch(informers, self.on_change)
        await informers.wait_synced()
        for informer, handler in others:
            informer.add_handler(handler)
        nodes.add_handler(self.on_node)
        pods.add_handler(self.on_pod)

    def on_change(self, change: Change | None) -> None:
        if change is not None and self._queue.on_change(change, trio.current_time()):
            self._wake()

    def on_node(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_node(name(old))
        else:
            self._snapshot.put_node(new)
        self.on_change(events.node_change(old, new))

    def _on_space(self, old: Obj | None, new: Obj | None) -> None:
        space = new or old
        assert space is not None
        labels = None if new is None else new["metadata"].get("labels") or {}
        self._snapshot.counters.set_space(name(space), labels)

    def _on_service(self, old: Obj | None, new: Obj | None) -> None:
        service = new or old
        assert service is not None
        selector = None if new is None else new["spec"].get("selector")
        self._snapshot.counters.set_service(namespace(service), name(service), selector)

    def _keep(self, objects: dict[str, Obj], resource: str = "") -> Handler:
        """Keep objects by key, and tell changes if they are of such a resource."""

        def handler(old: Obj | None, new: Obj | None) -> None:
            if new is not None:
                objects[meta.key(new)] = new
            elif old is not None:
                objects.pop(meta.key(old), None)
            if resource:
                self.on_change(events.object_change(resource, old, new))

        return handler

    def _on_slice(self, old: Obj | None, new: Obj | None) -> None:
        self._snapshot.devices.slices_changed()
        self._keep(self._snapshot.devices.slices, events.SLICE)(old, new)

    def _on_claim(self, old: Obj | None, new: Obj | None) -> None:
        devices = self._snapshot.devices
        claim = new or old
        assert claim is not None
        if new is None or (new.get("status") or {}).get("allocation"):
            devices.promised.pop(meta.key(claim), None)  # it is written down by now
        self._keep(devices.claims, events.RESOURCE_CLAIM)(old, new)

    # Pods.

    def on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or uid(old) != uid(new)):
            self._forget(old)
            old = None
        if new is None:
            return
        if new["spec"].get("nodeName"):
            self._on_placed(old, new)
        elif not self._is_ours(new):
            self.leave_queue(uid(new))
        elif not self._snapshot.is_assumed(uid(new)):
            self._on_waiting(old, new)

    def _is_ours(self, pod: Obj) -> bool:
        scheduler_name = pod["spec"].get("schedulerName") or "default-scheduler"
        phase = (pod.get("status") or {}).get("phase")
        return scheduler_name in self._names and not deleting(pod) and phase not in FINISHED

    def _on_waiting(self, old: Obj | None, new: Obj) -> None:
        info = pod_info(new)
        before = self._queue.get(info.uid)
        said = (new.get("status") or {}).get("nominatedNodeName") or ""
        was_said = ((old or {}).get("status") or {}).get("nominatedNodeName") or ""
        hoped = before.nominated if before is not None else ""
        if before is not None and before.nominated:
            self._snapshot.withdraw(before)
        # Until the status that we wrote comes back, what we know is newer than what it says.
        nominated = said or (hoped if not was_said else "")
        self._queue.add(info, trio.current_time())
        if nominated:
            self._snapshot.nominate(info, nominated)
        self._wake()

    def _on_placed(self, old: Obj | None, new: Obj) -> None:
        self.leave_queue(uid(new))
        if (new.get("status") or {}).get("phase") in FINISHED:
            self._forget(new)
            return
        if self._snapshot.confirm(new):
            self.on_change(Change(ASSIGNED_POD, Action.ADD, None, new))
            return
        known = self._snapshot.pod(uid(new))
        placed = known is None or self._snapshot.is_assumed(uid(new))
        if placed:
            self._snapshot.put_pod(pod_info(new))
            self.on_change(Change(ASSIGNED_POD, Action.ADD, None, new))
            return
        assert known is not None
        change = events.assigned_change(known.pod, new)
        if change is not None or known.stopping != deleting(new):
            self._snapshot.put_pod(pod_info(new))
            self.on_change(change)
        else:
            known.pod = new

    def _forget(self, pod: Obj) -> None:
        """It is gone, or has finished."""
        self.leave_queue(uid(pod))
        known = self._snapshot.pod(uid(pod))
        if known is not None:
            self._snapshot.remove_pod(uid(pod))
            self.on_change(Change(ASSIGNED_POD, Action.DELETE, known.pod, None))

    def leave_queue(self, pod_uid: str) -> None:
        info: PodInfo | None = self._queue.get(pod_uid)
        if info is not None:
            self._snapshot.withdraw(info)
            self._queue.remove(pod_uid)
