"""Pods that wait for a place (pure): active, backing off, or unschedulable until something changes.

*Active* pods are tried next: the most important first, then first come. *Backing off*: tried
again after a time that doubles with each failure. *Unschedulable*: no node passed; such a pod
moves on when an event occurs that one of the filters that rejected it cares about, or after five
minutes. A pod in hand (popped, not yet settled) is in none of them. Bounded by the pods there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from attrs import define

from k8slite.scheduler.framework import ClusterEvent, Filter
from k8slite.scheduler.pod_info import PodInfo

__all__ = ["SchedulingQueue"]

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 10.0
UNSCHEDULABLE_SECONDS_MAX = 300.0


@define(eq=False)
class Waiting:
    """A pod in the queue."""

    info: PodInfo
    order: int
    attempts: int = 0
    place: str = "active"
    failed_at: float = 0.0
    rejected_by: tuple[str, ...] = ()
    moves_when_popped: int = 0


class SchedulingQueue:
    """`now` is monotonic seconds throughout."""

    def __init__(
        self,
        filters: Iterable[Filter] = (),
        *,
        backoff_min: float = BACKOFF_SECONDS_MIN,
        backoff_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self._events: Mapping[str, tuple[ClusterEvent, ...]] = {f.name: f.events for f in filters}
        self._backoff_min = backoff_min
        self._backoff_max = backoff_max
        self._waiting: dict[str, Waiting] = {}
        self._parked: dict[str, Waiting] = {}
        """The unschedulable ones: events look at no others."""
        self._active: list[tuple[int, int, str]] = []
        self._backing_off: list[tuple[float, int, str]] = []
        self._order = 0
        self._moves = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def count(self, place: str) -> int:
        """How many pods are "active", "backoff", "unschedulable" or "in hand"."""
        return sum(waiting.place == place for waiting in self._waiting.values())

    def add(self, info: PodInfo, now: float) -> None:
        """A pod that needs a place, or a new version of one that waits.

        A changed pod that no node would take is tried again: the change may be why.
        """
        waiting = self._waiting.get(info.uid)
        if waiting is None:
            self._order += 1
            waiting = self._waiting[info.uid] = Waiting(info, self._order)
            self._push_active(waiting)
            return
        before, waiting.info = waiting.info, info
        if waiting.place == "unschedulable" and _matters(before, info):
            self._move(waiting, now)

    def remove(self, pod_uid: str) -> None:
        """The pod is gone or has got a place; heaps forget it when they come to it."""
        self._waiting.pop(pod_uid, None)
        self._parked.pop(pod_uid, None)

    def pop(self, now: float) -> PodInfo | None:
        """The next pod to try, into the caller's hand, or None."""
        self._flush(now)
        while self._active:
            _, order, pod_uid = heapq.heappop(self._active)
            waiting = self._waiting.get(pod_uid)
            if waiting is not None and waiting.place == "active" and waiting.order == order:
                waiting.place = "in hand"
                waiting.attempts += 1
                waiting.moves_when_popped = self._moves
                return waiting.info
        return None

    def next_due(self) -> float:
        """When a pod that backs off may be tried; infinity if none does."""
        while self._backing_off:
            due, order, pod_uid = self._backing_off[0]
            waiting = self._waiting.get(pod_uid)
            if waiting is not None and waiting.place == "backoff" and waiting.order == order:
                return due
            heapq.heappop(self._backing_off)
        return float("inf")

    def set_unschedulable(self, pod_uid: str, rejected_by: tuple[str, ...], now: float) -> None:
        """The pod in hand found no node. Nothing happens if it is gone meanwhile."""
        waiting = self._in_hand(pod_uid)
        if waiting is None:
            return
        waiting.rejected_by = rejected_by
        waiting.failed_at = now
        if waiting.moves_when_popped != self._moves:
            self._push_backoff(waiting)  # something changed while we looked: do not sleep on it
        else:
            waiting.place = "unschedulable"
            self._parked[pod_uid] = waiting

    def set_failed(self, pod_uid: str, now: float) -> None:
        """Trying the pod in hand failed for a reason of ours (a lost binding): try it again."""
        waiting = self._in_hand(pod_uid)
        if waiting is not None:
            waiting.failed_at = now
            self._push_backoff(waiting)

    def on_event(self, event: ClusterEvent, now: float) -> bool:
        """Something changed; True if a pod may be tried because of it."""
        self._moves += 1
        moved = False
        for waiting in [*self._parked.values()]:
            if self._cares(waiting, event):
                self._move(waiting, now)
                moved = True
        return moved

    def _cares(self, waiting: Waiting, event: ClusterEvent) -> bool:
        if not waiting.rejected_by:
            return True
        return any(event in self._events.get(name, ()) for name in waiting.rejected_by)

    def _in_hand(self, pod_uid: str) -> Waiting | None:
        waiting = self._waiting.get(pod_uid)
        return waiting if waiting is not None and waiting.place == "in hand" else None

    def _move(self, waiting: Waiting, now: float) -> None:
        if now >= waiting.failed_at + self._backoff(waiting):
            self._push_active(waiting)
        else:
            self._push_backoff(waiting)

    def _backoff(self, waiting: Waiting) -> float:
        doubled: float = self._backoff_min * 2.0 ** min(waiting.attempts - 1, 20)
        return min(doubled, self._backoff_max)

    def _push_active(self, waiting: Waiting) -> None:
        self._parked.pop(waiting.info.uid, None)
        waiting.place = "active"
        entry = (-waiting.info.priority, waiting.order, waiting.info.uid)
        heapq.heappush(self._active, entry)

    def _push_backoff(self, waiting: Waiting) -> None:
        self._parked.pop(waiting.info.uid, None)
        waiting.place = "backoff"
        due = waiting.failed_at + self._backoff(waiting)
        heapq.heappush(self._backing_off, (due, waiting.order, waiting.info.uid))

    def _flush(self, now: float) -> None:
        while self.next_due() <= now:
            _, _, pod_uid = heapq.heappop(self._backing_off)
            self._push_active(self._waiting[pod_uid])

    def flush_unschedulable(self, now: float) -> None:
        """Try again what has waited for five minutes, in case an event was missed."""
        for waiting in [*self._parked.values()]:
            if now - waiting.failed_at >= UNSCHEDULABLE_SECONDS_MAX:
                self._push_active(waiting)


def _matters(old: PodInfo, new: PodInfo) -> bool:
    return old.pod["spec"] != new.pod["spec"] or old.labels != new.labels
