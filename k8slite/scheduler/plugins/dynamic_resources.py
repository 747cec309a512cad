"""Claims for devices: a node must be able to give them, and gives them before the pod is bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from k8slite.api.meta import Obj, key, namespace
from k8slite.scheduler.allocate import Unallocatable, allocate, missing_class
from k8slite.scheduler.decide import Decision
from k8slite.scheduler.devices import Devices, NotReady, claims_of
from k8slite.scheduler.events import (
    DEVICE_CLASS,
    NODE,
    RESOURCE_CLAIM,
    SLICE,
    UNSCHEDULED_POD,
    Action,
    Change,
    Wakes,
)  # fmt: skip
from k8slite.scheduler.framework import SKIP, BindFailed, Handle, PostFilterResult, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.storage import allowed_by

__all__ = ["DynamicResources"]

CANNOT = Rejection(("cannot allocate all claims",))
ELSEWHERE = Rejection(("resourceclaim not available on the node",))
RESERVED_MAX = 256
"""Consumers of one claim."""


@frozen(eq=False)
class State:
    """`allocated`: node selectors of claims that have their devices; `waiting`: the others."""

    devices: Devices
    allocated: tuple[Obj | None, ...]
    waiting: tuple[Obj, ...]


class DynamicResources:
    name = "DynamicResources"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._devices = handle.snapshot.devices
        self._binder = handle.services.claims if handle.services is not None else None
        self._chosen: dict[str, tuple[str, ...]] = {}
        """By the uid of a pod that is being bound: the keys of all its claims."""
        self._written: dict[str, None] = {}
        """Claims whose allocation was written: the promise stays until the informer shows that, or
        for a moment the devices would seem to be free."""
        self.wakes = (
            Wakes(RESOURCE_CLAIM, Action.ADD | Action.UPDATE | Action.DELETE, self._on_claim),
            Wakes(UNSCHEDULED_POD, Action.CLAIMS),
            Wakes(SLICE, Action.ADD | Action.UPDATE),
            Wakes(DEVICE_CLASS, Action.ADD | Action.UPDATE),
            Wakes(NODE, Action.ADD | Action.LABELS),
        )

    def pre_enqueue(self, pod: PodInfo) -> Rejection | None:
        if not pod.resource_claims:
            return None
        try:
            claims_of(pod.pod, self._devices)
        except NotReady as error:
            return Rejection((str(error),))
        return None

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not pod.resource_claims:
            return SKIP
        devices = snapshot.devices
        allocated: list[Obj | None] = []
        waiting: list[Obj] = []
        try:
            claims = claims_of(pod.pod, devices)
        except NotReady as error:
            return Rejection((str(error),))
        for claim in claims:
            allocation = devices.allocation(key(claim))
            if allocation is None:
                why = missing_class(claim, devices)
                if why:
                    return Rejection((why,))
                waiting.append(claim)
                continue
            reserved = (claim.get("status") or {}).get("reservedFor") or ()
            full = len(reserved) >= RESERVED_MAX
            if full and all(each.get("uid") != pod.uid for each in reserved):
                return Rejection(("resourceclaim in use",))
            allocated.append(allocation.get("nodeSelector"))
        return State(devices, tuple(allocated), tuple(waiting)) if claims else SKIP

    def filter(self, state: State, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if not all(allowed_by(selector, node.labels, node.name) for selector in state.allocated):
            return ELSEWHERE
        if not state.waiting:
            return None
        try:
            found = allocate(state.waiting, state.devices, node.name, node.labels)
        except Unallocatable as error:
            return Rejection((str(error),))
        return CANNOT if found is None else None

    def post_filter(self, pod: PodInfo, failure: Decision) -> PostFilterResult:
        told = "still not schedulable" if pod.resource_claims else "no new claims to deallocate"
        return PostFilterResult(None, told)

    def reserve(self, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        """Promise the devices to the pod's claims."""
        if not pod.resource_claims:
            return None
        try:
            claims = claims_of(pod.pod, self._devices)
            waiting = [c for c in claims if self._devices.allocation(key(c)) is None]
            found = allocate(waiting, self._devices, node.name, node.labels)
        except (NotReady, Unallocatable) as error:
            return Rejection((str(error),))
        if found is None:
            return CANNOT
        self._devices.promised.update(found)
        self._chosen[pod.uid] = tuple(map(key, claims))
        return None

    def unreserve(self, pod: PodInfo, node_name: str) -> None:
        for claim_key in self._chosen.pop(pod.uid, ()):
            users = [other for other, keys in self._chosen.items() if claim_key in keys]
            if not users and claim_key not in self._written:
                self._devices.promised.pop(claim_key, None)
            if not users:
                self._written.pop(claim_key, None)

    def needs_pre_bind(self, pod: PodInfo) -> bool:
        return bool(self._chosen.get(pod.uid))

    async def pre_bind(self, pod: PodInfo, node_name: str) -> None:
        """Write the allocations, and that the pod uses them."""
        if self._binder is None:
            raise BindFailed("nobody allocates claims here")
        for claim_key in self._chosen.get(pod.uid, ()):
            await self._binder.reserve(pod, claim_key, self._devices.promised.get(claim_key))
            self._written[claim_key] = None

    def post_bind(self, pod: PodInfo, node_name: str) -> None:
        for claim_key in self._chosen.pop(pod.uid, ()):
            self._written.pop(claim_key, None)

    def _on_claim(self, pod: PodInfo, change: Change) -> bool:
        """One of the pod's own claims changed, or another one gave its devices back."""
        claim = change.new or change.old
        assert claim is not None
        own = [w.get("resourceClaimName") for w in pod.pod["spec"].get("resourceClaims") or ()]
        statuses = (pod.pod.get("status") or {}).get("resourceClaimStatuses") or ()
        own += [each.get("resourceClaimName") for each in statuses]
        mine = namespace(claim) == pod.namespace and claim["metadata"]["name"] in own
        had = ((change.old or {}).get("status") or {}).get("allocation")
        has = ((change.new or {}).get("status") or {}).get("allocation")
        return mine or (had is not None and has is None)
