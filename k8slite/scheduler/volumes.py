"""Binding a pod's claims for the node that was chosen, before the pod itself is bound.

A free volume gets the claim's name written into it, or the claim gets the node's name, so that a
provisioner makes a volume there; the volume controller does the rest, and this waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from k8slite.api import meta
from k8slite.api.kinds import (
    KIND,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Kind,
)
from k8slite.api.meta import Obj, name, namespace, resource_version, uid
from k8slite.api.volume_match import claim_reference
from k8slite.client.api import Api
from k8slite.client.informer import Handler, SharedInformers
from k8slite.scheduler import events
from k8slite.scheduler.events import Change
from k8slite.scheduler.framework import BindFailed
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.storage import COMPLETED, SELECTED_NODE

__all__ = ["VolumeBinder"]

CSI_NODES = KIND["csinodes.storage.k8s.io"]
CSI_DRIVERS = KIND["csidrivers.storage.k8s.io"]
CSI_CAPACITIES = KIND["csistoragecapacities.storage.k8s.io"]
VOLUME_ATTACHMENTS = KIND["volumeattachments.storage.k8s.io"]
BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
WAIT_SECONDS = 600.0


class VolumeBinder:
    """One term's view of claims, volumes and classes, and the waiting for them."""

    def __init__(self, api: Api, snapshot: Snapshot) -> None:
        self._api = api
        self._snapshot = snapshot
        self._changed = trio.Event()

    def watch(self, informers: SharedInformers, tell: Callable[[Change], None]) -> None:
        """Keep the snapshot's storage; `tell` is called after each change."""
        storage = self._snapshot.storage
        for kind, resource, objects in (
            (PERSISTENT_VOLUME_CLAIMS, events.CLAIM, storage.claims),
            (PERSISTENT_VOLUMES, events.VOLUME, storage.volumes),
            (STORAGE_CLASSES, events.CLASS, storage.classes),
            (CSI_NODES, events.CSI, storage.csi_nodes),
            (CSI_DRIVERS, events.CSI, storage.csi_drivers),
            (CSI_CAPACITIES, events.CSI, storage.capacities),
            (VOLUME_ATTACHMENTS, events.CSI, storage.attachments),
        ):
            informers.of(kind).add_handler(self._keep(kind, resource, objects, tell))

    def _keep(
        self, kind: Kind, resource: str, objects: dict[str, Obj], tell: Callable[[Change], None]
    ) -> Handler:
        def handler(old: Obj | None, new: Obj | None) -> None:
            if new is None:
                assert old is not None
                objects.pop(meta.key(old), None)
            else:
                objects[meta.key(new)] = new
            if kind is PERSISTENT_VOLUMES and (new is None or new["spec"].get("claimRef")):
                gone = new or old
                assert gone is not None
                self._snapshot.storage.kept.pop(name(gone), None)
            changed, self._changed = self._changed, trio.Event()
            changed.set()
            tell(events.object_change(resource, old, new))

        return handler

    async def bind(self, info: PodInfo, chosen: dict[str, str]) -> None:
        """Raises BindFailed, ApiError, ClientError."""
        node, storage = info.node, self._snapshot.storage
        for where, own in chosen.items():
            claim, volume = storage.claims.get(where), storage.volumes.get(own)
            if claim is None or (own and volume is None):
                raise BindFailed(f"claim {where} or its volume is gone")
            if volume is not None and not volume["spec"].get("claimRef"):
                notes = {BOUND_BY_US: "yes"}
                held = {"resourceVersion": resource_version(volume), "annotations": notes}
                patch = {"metadata": held, "spec": {"claimRef": claim_reference(claim)}}
                await self._api.patch(PERSISTENT_VOLUMES, own, None, patch)
            elif volume is None and meta.annotations(claim).get(SELECTED_NODE) != node:
                held = {"resourceVersion": resource_version(claim), "uid": uid(claim)}
                patch = {"metadata": {**held, "annotations": {SELECTED_NODE: node}}}
                await self._api.patch(
                    PERSISTENT_VOLUME_CLAIMS, name(claim), namespace(claim), patch
                )
        with trio.move_on_after(WAIT_SECONDS):
            await self._wait_bound(chosen, node)
            return
        raise BindFailed(f"binding volumes: not bound within {WAIT_SECONDS:.0f} s")

    async def _wait_bound(self, chosen: dict[str, str], node: str) -> None:
        asked: dict[str, None] = {}
        while True:
            changed = self._changed
            missing = 0
            for where, own in chosen.items():
                claim = self._snapshot.storage.claims.get(where)
                if claim is None:
                    raise BindFailed(f"claim {where} is gone")
                notes = meta.annotations(claim)
                if notes.get(COMPLETED) and claim["spec"].get("volumeName"):
                    continue
                missing += 1
                if own:
                    continue
                if notes.get(SELECTED_NODE) == node:
                    asked[where] = None
                elif where in asked:
                    raise BindFailed(f"the provisioner of claim {where} refused node {node}")
            if not missing:
                return
            await changed.wait()
