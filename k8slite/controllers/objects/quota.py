"""ResourceQuotas: what each namespace has taken, counted anew.

The apiserver charges a quota in the same commit as what is charged (`apiserver/admission/quota`).
So a count is exact if it is made from a state at least as new as the quota, and written on
condition that the quota has not changed since. Objects that go give back what they took here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8slite.api import quantity
from k8slite.api.kinds import KIND, PODS, RESOURCE_QUOTAS, Kind
from k8slite.api.meta import Obj, deleting, namespace, resource_version
from k8slite.api.quota import Amounts, added, plain_kind, selects, usage
from k8slite.client.informer import Informer, metadata_only
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.services.service_pods import namespace_index
from k8slite.controllers.workloads.pods import is_terminal

__all__ = ["plan", "run_quota_controller"]

WHOLE = ("pods", "services", "persistentvolumeclaims", "resourcequotas")
"""Kinds whose objects must be seen whole to be counted; of others the metadata is enough."""


def plan(quota: Obj, objects: Iterable[tuple[Kind, Obj]]) -> list[Action]:
    """Make the status say what the objects take (pure)."""
    if deleting(quota):
        return []
    hard = dict(quota["spec"].get("hard") or {})
    total: Amounts = {}
    for kind, obj in objects:
        if selects(quota, kind, obj):
            total = added(total, usage(kind, obj))
    used = {name: total.get(name, "0") for name in hard}
    old = quota.get("status") or {}
    if old.get("hard") == hard and _same(old.get("used") or {}, used):
        return []
    return [Update(RESOURCE_QUOTAS, {**quota, "status": {"hard": hard, "used": used}}, "status")]


def _same(a: Amounts, b: Amounts) -> bool:
    return a.keys() == b.keys() and all(
        a[name] == b[name] or quantity.parse(a[name]) == quantity.parse(b[name]) for name in a
    )


def counted_kinds(quota: Obj) -> list[Kind]:
    """The kinds it limits, as far as they exist."""
    names = dict.fromkeys(plain_kind(r) for r in quota["spec"].get("hard") or {})
    return [KIND[name] for name in names if name in KIND and KIND[name].namespaced]


async def run_quota_controller(context: Context) -> None:
    """Run until cancelled."""
    await _Counting(context).run()


class _Counting:
    """Informers of what some quota counts, started when the first such quota shows up."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
        self._recorder = context.recorder("resourcequota-controller")
        self._quotas = context.informer(RESOURCE_QUOTAS, namespace=namespace_index)
        self._counted: dict[Kind, Informer] = {RESOURCE_QUOTAS: self._quotas}
        self._quotas.add_handler(enqueue_to(self._queue))
        self._quotas.add_handler(self._on_freed)

    async def run(self) -> None:
        await self._quotas.wait_synced()
        await self._context.run_workers("resourcequota", self._queue, self._reconcile)

    async def _reconcile(self, where: str) -> float | None:
        quota = self._quotas.get(where)
        if quota is None:
            return None
        objects: list[tuple[Kind, Obj]] = []
        for kind in counted_kinds(quota):
            objects += [(kind, obj) for obj in await self._objects(kind, quota)]
        await carry_out(self._context.api, self._recorder, plan(quota, objects))
        return self._context.timings.quota_resync

    async def _objects(self, kind: Kind, quota: Obj) -> Sequence[Obj]:
        """The namespace's objects as of the quota's version or later."""
        informer = self._informer(kind)
        await informer.wait_synced()
        if informer.seen(resource_version(quota)):
            return informer.by_index("namespace", namespace(quota))
        live = await self._context.api.list(kind, namespace(quota))
        return live.items

    def _informer(self, kind: Kind) -> Informer:
        informer = self._counted.get(kind)
        if informer is None:
            trim = None if kind.resource in WHOLE else metadata_only
            informers = self._context.informers
            informer = informers.of(kind, {"namespace": namespace_index}, trim=trim)
            self._counted[kind] = informer
            informer.add_handler(self._on_freed)
        return informer

    def _on_freed(self, old: Obj | None, new: Obj | None) -> None:
        """Something is gone or has ended; what comes is charged by the apiserver."""
        if old is None or (new is not None and not _frees(old, new)):
            return
        for quota in self._quotas.by_index("namespace", namespace(old)):
            self._queue.add(f"{namespace(old)}/{quota['metadata']['name']}")


def _frees(old: Obj, new: Obj) -> bool:
    """May the object take less than it did?"""
    if new.get("kind") == PODS.kind:
        return is_terminal(new) != is_terminal(old) or new["spec"] != old["spec"]
    return "spec" in new and new["spec"] != old["spec"]
