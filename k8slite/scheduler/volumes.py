"""Binding a pod's claims for the node that was chosen, before the pod itself is bound.

A free volume gets the claim's name written into it, or the claim gets the node's name, so that a
provisioner makes a volume there; the volume controller does the rest, and this waits for it.
"""

from __future__ import annotations

import trio

from k8slite.api import meta
from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, Kind
from k8slite.api.meta import Obj, name, namespace, resource_version, uid
from k8slite.api.volume_match import claim_reference
from k8slite.client.api import Api
from k8slite.client.informer import Handler, SharedInformers
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.storage import COMPLETED, SELECTED_NODE, Needs, Unusable

__all__ = ["BindFailed", "VolumeBinder"]

BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
WAIT_SECONDS = 600.0


class BindFailed(Exception):
    """The claims could not be bound for this node; the pod must be decided on again."""


class VolumeBinder:
    """One term's view of claims, volumes and classes, and the waiting for them."""

    def __init__(self, api: Api, snapshot: Snapshot) -> None:
        self._api = api
        self._snapshot = snapshot
        self._changed = trio.Event()

    def watch(self, informers: SharedInformers, tell: Handler) -> None:
        """Keep the snapshot's storage; `tell` is called after each change."""
        storage = self._snapshot.storage
        for kind, objects in (
            (PERSISTENT_VOLUME_CLAIMS, storage.claims),
            (PERSISTENT_VOLUMES, storage.volumes),
            (STORAGE_CLASSES, storage.classes),
        ):
            informers.of(kind).add_handler(self._keep(kind, objects, tell))

    def _keep(self, kind: Kind, objects: dict[str, Obj], tell: Handler) -> Handler:
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
            tell(old, new)

        return handler

    def reserve(self, info: PodInfo) -> dict[str, str] | None:
        """After a decision: keep volumes for the pod's claims. None: there is nothing to bind."""
        needs = self._needs(info)
        if needs is None or not needs.unbound:
            return None
        node = self._snapshot.node(info.node)
        assert node is not None
        chosen = self._snapshot.storage.choose(needs.unbound, node.labels, node.name)
        assert chosen is not None, "the filter let the pod pass"
        for claim, volume in chosen.items():
            if volume:
                self._snapshot.storage.kept[volume] = claim
        return chosen

    def release(self, chosen: dict[str, str] | None) -> None:
        """The pod goes elsewhere, or nowhere."""
        for volume in (chosen or {}).values():
            self._snapshot.storage.kept.pop(volume, None)

    def _needs(self, info: PodInfo) -> Needs | None:
        try:
            return self._snapshot.storage.needs(info.pod)
        except Unusable as error:
            raise BindFailed(str(error)) from None

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
