"""The garbage collector: deletes what has lost all its owners, in the order that was asked for.

The graph and the decisions are in `ownership_graph`. The loop watches the metadata of all kinds
(kinds that other controllers watch too are watched once; custom kinds come and go with their
definitions), and before it deletes anything it asks the apiserver about owners that it has not
seen: an owner's creation may still be on its way here. Deletions carry uid and resourceVersion, so
that an object that got a new owner meanwhile stays.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import trio

from k8slite.api.kinds import KINDS, Kind
from k8slite.api.meta import Obj, owner_references, resource_version, uid
from k8slite.api.status import ApiError
from k8slite.client.informer import Informer, metadata_only
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.context import Context
from k8slite.controllers.custom_kinds import CustomKinds
from k8slite.controllers.objects.ownership_graph import (
    ORPHAN,
    Decision,
    Identity,
    Node,
    OwnershipGraph,
    OwnerState,
    decide,
    node_of,
)

__all__ = ["COLLECTED_KINDS", "run_garbage_collector"]

log = logging.getLogger(__name__)

ABSENT_OWNERS_MAX = 500
"""Uids known not to exist any more; a uid never comes back."""
NOT_FOUND = 404
CONFLICT = 409
IGNORED = ("events",)


def _collected_kinds() -> tuple[Kind, ...]:
    by_resource: dict[tuple[str, str], Kind] = {}
    for kind in KINDS:
        complete = {"list", "watch", "delete", "get"} <= {*kind.verbs}
        if complete and kind.plural not in IGNORED:
            by_resource.setdefault((kind.group, kind.plural), kind)
    return tuple(by_resource.values())


COLLECTED_KINDS = _collected_kinds()


async def run_garbage_collector(context: Context) -> None:
    """Run until cancelled."""
    collector = _Collector(context)
    for informer in collector.informers:
        # Those of custom kinds are not waited for: a webhook that converts them may be away, and
        # owners that were not seen are asked for anyway.
        await informer.wait_synced()
    await context.run_workers("garbage-collector", collector.queue, collector.reconcile)


class _Collector:
    """Keys of the queue are uids."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue()
        self._context = context
        self._api = context.api
        self._graph = OwnershipGraph()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self.informers = [
            context.informers.of(kind, trim=metadata_only) for kind in COLLECTED_KINDS
        ]
        for informer in self.informers:
            informer.add_handler(self._on_change)
        self._followed: dict[Kind, tuple[Informer, trio.CancelScope]] = {}
        self._custom = CustomKinds(context, self._follow, self._unfollow)

    def _follow(self, kind: Kind) -> None:
        informer = Informer(self._api, kind, self._context.host, trim=metadata_only)
        informer.add_handler(self._on_change)
        scope = trio.CancelScope()
        self._followed[kind] = informer, scope

        async def run() -> None:
            with scope:
                await informer.run()

        self._context.nursery.start_soon(run, name=f"informer {kind.resource}")

    def _unfollow(self, kind: Kind, gone: bool) -> None:
        informer, scope = self._followed.pop(kind)
        scope.cancel()
        for obj in informer.list() if gone else ():
            self._on_change(obj, None)

    def _on_change(self, old: Obj | None, new: Obj | None) -> None:
        look: list[str] = []
        if old is not None and (new is None or uid(old) != uid(new)):
            self._note_absent(uid(old))
            look += self._graph.remove(uid(old))
        if new is not None:
            look += self._graph.put(new)
        for object_uid in look:
            self.queue.add(object_uid)

    def _note_absent(self, object_uid: str) -> None:
        self._absent[object_uid] = None
        if len(self._absent) > ABSENT_OWNERS_MAX:
            self._absent.popitem(last=False)

    async def reconcile(self, object_uid: str) -> None:
        seen = self._graph.get(object_uid)
        if seen is None:
            return
        states = {}
        for reference in seen.owners:
            states[reference["uid"]] = await self._owner_state(seen.identity, reference)
        decision = decide(seen, self._graph.dependents(object_uid), lambda r: states[r["uid"]])
        for other in decision.look:
            self.queue.add(other)
        if decision.orphan:
            await self._orphan(seen, decision)
        elif decision.keep_owners is not None or decision.delete or decision.drop_finalizer:
            await self._change(seen, decision)

    async def _owner_state(self, dependent: Identity, reference: Obj) -> OwnerState:
        owner = self._graph.get(reference["uid"])
        if owner is not None:
            return OwnerState.WAITING if owner.waits_for_dependents else OwnerState.SOLID
        if reference["uid"] in self._absent:
            return OwnerState.ABSENT
        kind = self._custom.find(reference["apiVersion"], reference["kind"])
        if kind is None:
            return OwnerState.SOLID  # a kind we do not know may well exist: never delete for it
        space = dependent.namespace if kind.namespaced else None
        if kind.namespaced and not space:
            return OwnerState.SOLID  # an impossible reference; somebody must look at it
        live = await self._live(kind, space, reference["name"])
        if live is None or uid(live) != reference["uid"]:
            self._note_absent(reference["uid"])
            return OwnerState.ABSENT
        return OwnerState.WAITING if node_of(live).waits_for_dependents else OwnerState.SOLID

    async def _live(self, kind: Kind, space: str | None, name: str) -> Obj | None:
        try:
            return await self._api.get(kind, name, space)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    async def _change(self, seen: Node, decision: Decision) -> None:
        """Carry a decision out, on the object as it is now; it was made from a cache."""
        where = seen.identity
        kind = self._custom.find(where.api_version, where.kind)
        if kind is None:
            return  # its definition is gone, and so is it
        live = await self._live(kind, where.namespace or None, where.name)
        if live is None or uid(live) != where.uid:
            return  # the event of its deletion is on its way
        if [*owner_references(live)] != [*seen.owners]:
            self.queue.add_after(where.uid, 0.1)  # the cache will show other owners soon
            return
        if decision.delete:
            await self._delete(kind, where, live, decision.delete)
            return
        metadata: Obj = {"uid": where.uid, "resourceVersion": resource_version(live)}
        if decision.drop_finalizer:
            finalizers = live["metadata"].get("finalizers") or []
            if decision.drop_finalizer not in finalizers:
                return
            rest = [f for f in finalizers if f != decision.drop_finalizer]
            metadata["finalizers"] = rest or None
        else:
            metadata["ownerReferences"] = [*(decision.keep_owners or ())] or None
        await self._patch(kind, where, metadata)

    async def _delete(self, kind: Kind, where: Identity, live: Obj, policy: str) -> None:
        log.info("delete kind=%s key=%s/%s", kind.resource, where.namespace, where.name)
        try:
            await self._api.delete(
                kind,
                where.name,
                where.namespace or None,
                uid=where.uid,
                resource_version=resource_version(live),
                propagation=policy,
            )
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise

    async def _orphan(self, owner: Node, decision: Decision) -> None:
        """Take the owner's references off its dependents, then let the owner go."""
        for dependent in decision.orphan:
            kind = self._custom.find(dependent.identity.api_version, dependent.identity.kind)
            if kind is None:
                continue
            rest = [r for r in dependent.owners if r["uid"] != owner.identity.uid]
            metadata = {
                "uid": dependent.identity.uid,
                "resourceVersion": dependent.resource_version,
                "ownerReferences": rest or None,
            }
            await self._patch(kind, dependent.identity, metadata)
        await self._change(owner, Decision(drop_finalizer=ORPHAN))

    async def _patch(self, kind: Kind, where: Identity, metadata: Obj) -> None:
        patch = {"metadata": metadata}
        try:
            await self._api.patch(kind, where.name, where.namespace or None, patch)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
