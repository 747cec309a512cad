"""Pods whose devices got a taint with NoExecute go, when their claims do not tolerate it.

`eviction_due` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k8slite.api.kinds import KIND, PODS
from k8slite.api.meta import Obj, deleting, key, make_key, namespace, parse_time, uid
from k8slite.api.taints import tolerates
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Note, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.workloads.pods import is_terminal

__all__ = ["eviction_due", "run_device_taint_controller"]

CLAIMS = KIND["resourceclaims.resource.k8s.io"]
SLICES = KIND["resourceslices.resource.k8s.io"]
NEVER = float("inf")
Taints = dict[tuple[str, str, str], list[Obj]]
"""NoExecute taints by (driver, pool, device)."""


def taints_of(slices: Iterable[Obj]) -> Taints:
    found: Taints = {}
    for spec in (each["spec"] for each in slices):
        for device in spec.get("devices") or ():
            taints = [t for t in device.get("taints") or () if t["effect"] == "NoExecute"]
            if taints:
                found[spec["driver"], spec["pool"]["name"], device["name"]] = taints
    return found


def results_of(claim: Obj) -> Iterator[Obj]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    yield from (allocation.get("devices") or {}).get("results") or ()


def eviction_due(claim: Obj, taints: Taints) -> float:
    """When the users of the claim have to go (seconds since the epoch); infinity: never."""
    due = NEVER
    for result in results_of(claim):
        where = result["driver"], result["pool"], result["device"]
        for taint in taints.get(where, ()):
            since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else 0.0
            tolerations = [t for t in result.get("tolerations") or () if tolerates(t, taint)]
            if not tolerations:
                return since
            seconds = [t.get("tolerationSeconds") for t in tolerations]
            limited = [each for each in seconds if each is not None]
            if len(limited) == len(seconds):
                due = min(due, since + max(0, min(limited)))
    return due


async def run_device_taint_controller(context: Context) -> None:
    """Run until cancelled. Keys are those of claims."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("device-taint-eviction")
    claims, slices = context.informer(CLAIMS), context.informer(SLICES)
    pods = context.informer(PODS)

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            queue.add(key(new))

    def on_slice(old: Obj | None, new: Obj | None) -> None:
        before = taints_of([old] if old is not None else [])
        if new is None or taints_of([new]) == before:
            return
        for claim in claims.list():
            queue.add(key(claim))

    async def reconcile(where: str) -> float | None:
        claim = claims.get(where)
        if claim is None:
            return None
        due = eviction_due(claim, taints_of(slices.list()))
        wait = due - context.host.now()
        if wait > 0:
            return None if due == NEVER else wait
        for user in (claim.get("status") or {}).get("reservedFor") or ():
            pod = pods.get(make_key(namespace(claim), user.get("name", "")))
            if pod is None or uid(pod) != user.get("uid") or deleting(pod) or is_terminal(pod):
                continue
            note = Note(pod, "Normal", "DeviceTaintManagerEviction", "Marking for deletion")
            await carry_out(context.api, recorder, [note, delete(PODS, pod)])
        return None

    claims.add_handler(on_claim)
    slices.add_handler(on_slice)
    for informer in (claims, slices, pods):
        await informer.wait_synced()
    await context.run_workers("device-taint-eviction", queue, reconcile)
