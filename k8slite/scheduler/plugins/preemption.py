"""DefaultPreemption: less important pods go, so that a more important one gets their room."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from k8slite.scheduler.decide import Decision
from k8slite.scheduler.events import ASSIGNED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import Handle, InvalidArgs, PostFilterResult, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.preempt import (
    CANDIDATES_MIN,
    PERCENT_MIN,
    Candidate,
    candidates,
    cheapest,
    not_eligible,
    useless_message,
)
from k8slite.scheduler.snapshot import Snapshot

if TYPE_CHECKING:
    from k8slite.scheduler.extenders import Extenders

__all__ = ["DefaultPreemption"]

BUSY = Rejection(("waiting for the preemption for this pod to be finished",))


class DefaultPreemption:
    """The victims are deleted beside the loop; until all of them were, the pod stays out of the
    queue, and until all are gone it asks for no others."""

    name = "DefaultPreemption"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._percent = _number(args, "minCandidateNodesPercentage", PERCENT_MIN)
        self._least = _number(args, "minCandidateNodesAbsolute", CANDIDATES_MIN)
        if self._percent > 100 or (not self._percent and not self._least):
            raise InvalidArgs("minCandidateNodesPercentage: must be from 0 to 100, not both zero")
        self._handle = handle
        self._services = handle.services
        self._rng = self._services.rng if self._services is not None else random.Random(0)
        self._busy: dict[str, None] = {}
        self._victims: dict[str, tuple[str, ...]] = {}
        """By the uid of the pod that they make room for."""
        self.wakes = (Wakes(ASSIGNED_POD, Action.DELETE, self._was_victim),)

    def pre_enqueue(self, pod: PodInfo) -> Rejection | None:
        return BUSY if pod.uid in self._busy else None

    def post_filter(
        self, pod: PodInfo, failure: Decision
    ) -> PostFilterResult | Awaitable[PostFilterResult]:
        snapshot = self._handle.snapshot
        if not snapshot.nodes:
            return PostFilterResult(None)
        self._forget_gone(snapshot)
        if any(snapshot.pod(victim) is not None for victim in self._victims.get(pod.uid, ())):
            return PostFilterResult(None)
        why = not_eligible(pod, snapshot, failure.resolvable)
        if why:
            return PostFilterResult(None, f"preemption: {why}")
        profile = self._services.profile(pod.scheduler_name) if self._services else None
        assert profile is not None, "preemption needs to know the other plugins"
        found = candidates(
            pod,
            snapshot,
            failure.resolvable,
            profile,
            self._rng,
            percent=self._percent,
            least=self._least,
        )
        extenders = self._services.extenders if self._services is not None else None
        if found and extenders is not None and extenders.care(pod):
            return self._ask_extenders(extenders, pod, found, failure)
        return self._pick(pod, found, failure)

    async def _ask_extenders(
        self, extenders: Extenders, pod: PodInfo, found: list[Candidate], failure: Decision
    ) -> PostFilterResult:
        agreed = await extenders.preempt(pod, found, self._handle.snapshot)
        return self._pick(pod, agreed, failure)

    def _pick(self, pod: PodInfo, found: list[Candidate], failure: Decision) -> PostFilterResult:
        snapshot, best = self._handle.snapshot, cheapest(found)
        if best is None:
            message = useless_message(snapshot, failure.resolvable)
            return PostFilterResult("", f"preemption: {message}")
        return self._make_room(pod, best)

    def _make_room(self, pod: PodInfo, best: Candidate) -> PostFilterResult:
        snapshot, services = self._handle.snapshot, self._services
        assert services is not None
        for other in [*snapshot.nominated_on(best.node)]:
            if other.priority < pod.priority:  # there will be no room for it
                services.denominate(other)
        self._victims[pod.uid] = tuple(victim.uid for victim in best.victims)
        self._busy[pod.uid] = None

        async def work() -> None:
            done = False
            try:
                done = await services.evict(pod, best.victims, best.node)
            finally:
                self._busy.pop(pod.uid, None)
                if not done:
                    self._victims.pop(pod.uid, None)
            # With none left, nothing will happen that wakes it; what has happened meanwhile found
            # it gated.
            left = done and any(snapshot.pod(v.uid) is not None for v in best.victims)
            services.activate(pod.uid, left)

        return PostFilterResult(best.node, "", work)

    def _forget_gone(self, snapshot: Snapshot) -> None:
        gone = [p for p, vs in self._victims.items() if all(snapshot.pod(v) is None for v in vs)]
        for pod_uid in gone:
            del self._victims[pod_uid]

    def _was_victim(self, pod: PodInfo, change: Change) -> bool:
        """The last one that it waited for."""
        return pod.uid not in self._busy


def _number(args: Mapping[str, Any], field: str, default: int) -> int:
    value = args.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or value < 0:
        raise InvalidArgs(f"{field}: {value!r} is not a number of at least 0")
    return value
