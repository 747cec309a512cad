"""Namespaces on their way out: delete what is in them, then let them go.

A namespace that is being deleted admits nothing new. The loop deletes the contents of all
namespaced kinds, custom ones too, looks again until nothing is left (pods take their time to stop),
and then removes the finalizer `kubernetes` from the spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api.kinds import KINDS, NAMESPACES, Kind
from k8slite.api.meta import Obj, copy, deleting, format_time, name, set_condition
from k8slite.api.status import ApiError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.custom_kinds import CustomKinds
from k8slite.controllers.execute import carry_out

__all__ = ["CONTENT_KINDS", "Remaining", "plan", "run_namespace_controller"]

FINALIZER = "kubernetes"
NOT_SERVED = (404, 405)


class Remaining(NamedTuple):
    """What is left of one kind: how many objects, and which finalizers hold how many of them."""

    kind: Kind
    objects: int
    finalizers: dict[str, int]


def _content_kinds() -> tuple[Kind, ...]:
    by_resource: dict[tuple[str, str], Kind] = {}
    for kind in KINDS:
        if kind.namespaced and {"list", "delete"} <= {*kind.verbs}:
            by_resource.setdefault((kind.group, kind.plural), kind)
    # The other group of the same events.
    by_resource.pop(("events.k8s.io", "events"), None)
    return tuple(by_resource.values())


CONTENT_KINDS = _content_kinds()


def plan(space: Obj, remaining: Sequence[Remaining], now: float) -> list[Action]:
    """Say what still holds the namespace up, or let it go (pure)."""
    finalizers = (space.get("spec") or {}).get("finalizers") or []
    if not deleting(space) or FINALIZER not in finalizers:
        return []
    if not remaining:
        rest = [f for f in finalizers if f != FINALIZER]
        spec = {**(space.get("spec") or {}), "finalizers": rest}
        return [Update(NAMESPACES, {**space, "spec": spec}, "finalize")]
    status = copy(space.get("status") or {})
    status["phase"] = "Terminating"
    changed = [set_condition(status, c, format_time(now)) for c in _conditions(remaining)]
    if not any(changed):
        return []
    return [Update(NAMESPACES, {**space, "status": status}, "status")]


def _conditions(remaining: Sequence[Remaining]) -> list[Obj]:
    left = ", ".join(f"{r.kind.resource} has {r.objects} resource instances" for r in remaining)
    held: dict[str, int] = {}
    for kind_left in remaining:
        for finalizer, count in kind_left.finalizers.items():
            held[finalizer] = held.get(finalizer, 0) + count
    by_finalizer = ", ".join(f"{f} in {held[f]} resource instances" for f in sorted(held))
    return [
        {
            "type": "NamespaceDeletionDiscoveryFailure",
            "status": "False",
            "reason": "ResourcesDiscovered",
            "message": "All resources successfully discovered",
        },
        {
            "type": "NamespaceDeletionContentFailure",
            "status": "False",
            "reason": "ContentDeleted",
            "message": "All content successfully deleted, may be waiting on finalization",
        },
        {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": f"Some resources are remaining: {left}",
        },
        {
            "type": "NamespaceFinalizersRemaining",
            "status": "True" if held else "False",
            "reason": "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            "message": f"Some content in the namespace has finalizers remaining: {by_finalizer}"
            if held
            else "All content-preserving finalizers finished",
        },
    ]


async def run_namespace_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("namespace-controller")
    spaces = context.informer(NAMESPACES)
    custom = CustomKinds(context)

    async def reconcile(key: str) -> float | None:
        space = spaces.get(key)
        if space is None or not deleting(space):
            return None
        if FINALIZER not in ((space.get("spec") or {}).get("finalizers") or []):
            return None
        kinds = [*CONTENT_KINDS, *(kind for kind in custom.all() if kind.namespaced)]
        remaining = await _delete_contents(context, kinds, name(space))
        await carry_out(context.api, recorder, plan(space, remaining, context.host.now()))
        return context.timings.namespace_retry if remaining else None

    spaces.add_handler(enqueue_to(queue))
    await spaces.wait_synced()
    await custom.definitions.wait_synced()
    await context.run_workers("namespace", queue, reconcile)


async def _delete_contents(context: Context, kinds: Sequence[Kind], space: str) -> list[Remaining]:
    remaining = []
    for kind in kinds:
        try:
            left = await _delete_kind(context, kind, space)
        except ApiError as error:
            if error.code not in NOT_SERVED:
                raise
            continue
        if left.objects:
            remaining.append(left)
    return remaining


async def _delete_kind(context: Context, kind: Kind, space: str) -> Remaining:
    """Ask for the deletion of all objects of the kind; what is left after that."""
    items = (await context.api.list(kind, space)).items
    if not all(map(deleting, items)):
        if "deletecollection" in kind.verbs:
            await context.api.delete_collection(kind, space, propagation="Background")
        else:
            for item in items:
                await context.api.delete(kind, name(item), space, propagation="Background")
        items = (await context.api.list(kind, space)).items
    finalizers: dict[str, int] = {}
    for item in items:
        for finalizer in item["metadata"].get("finalizers") or ():
            finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
    return Remaining(kind, len(items), finalizers)
