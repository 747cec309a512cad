"""Pods that wait for a place (pure).

*Active* pods are tried next: the most important first, then first come. *Backing off*: tried again
after a time that doubles with each failure, or as soon as nobody else waits. *Unschedulable*: no
node passed; such a pod moves on when something happens of which a plugin that rejected it says that
it may help, or after five minutes. *Gated*: a plugin keeps it out of the queue. A pod *in hand*
(popped, not yet settled) is in none of them; what happens meanwhile is kept, and judged when it
comes back. Bounded by the pods there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

from attrs import define

from k8slite.scheduler.events import Change, pod_change
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.profile import Profile

__all__ = ["PLACES", "SchedulingQueue"]

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 10.0
UNSCHEDULABLE_SECONDS_MAX = 300.0
CHANGES_MAX = 4096
"""Things that happened while pods are in hand; if there are more, those pods are tried again."""
PLACES = ("active", "backoff", "unschedulable", "gated", "in hand")


@define(eq=False)
class Waiting:
    """A pod in the queue. `seen`: what had happened when it was popped."""

    info: PodInfo
    order: int
    added_at: float = 0.0
    attempts: int = 0
    place: str = "active"
    failed_at: float = 0.0
    by_error: bool = False
    rejected_by: tuple[str, ...] = ()
    seen: int = 0


class SchedulingQueue:
    """`now` is monotonic seconds throughout."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        *,
        backoff_min: float = BACKOFF_SECONDS_MIN,
        backoff_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self._profiles = profiles
        self._backoff_min = backoff_min
        self._backoff_max = backoff_max
        self._waiting: dict[str, Waiting] = {}
        self._parked: dict[tuple[str, ...], dict[str, Waiting]] = {}
        """Unschedulable and gated pods by who rejected them: changes look at no others."""
        self._active: list[tuple[Any, int, str]] = []
        self._backing_off: list[tuple[float, int, str]] = []
        self._failed: list[tuple[float, int, str]] = []
        """Those that back off from an error, which nothing that happens in the cluster cures."""
        self._changes: list[Change] = []
        self._first_change = 0
        self._in_hand = 0
        self._order = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def count(self, place: str) -> int:
        """How many pods are in one of PLACES."""
        return sum(waiting.place == place for waiting in self._waiting.values())

    def get(self, pod_uid: str) -> PodInfo | None:
        waiting = self._waiting.get(pod_uid)
        return None if waiting is None else waiting.info

    def waited(self, pod_uid: str) -> tuple[int, float]:
        """How often a pod was tried, and when it came."""
        waiting = self._waiting.get(pod_uid)
        return (0, 0.0) if waiting is None else (waiting.attempts, waiting.added_at)

    def add(self, info: PodInfo, now: float) -> None:
        """A pod that needs a place, or a new version of one that waits: that is tried again if a
        plugin that rejected it says that the change may help."""
        waiting = self._waiting.get(info.uid)
        if waiting is None:
            self._order += 1
            waiting = self._waiting[info.uid] = Waiting(info, self._order, now)
            self._push_active(waiting)
            return
        before, waiting.info = waiting.info, info
        info.nominated = info.nominated or before.nominated
        change = pod_change(before.pod, info.pod)
        if change is None:
            return
        if waiting.place in ("unschedulable", "gated") and self._helps(waiting, change):
            self._move(waiting, now)

    def remove(self, pod_uid: str) -> None:
        """The pod is gone or has got a place; heaps forget it when they come to it."""
        waiting = self._waiting.pop(pod_uid, None)
        if waiting is not None:
            self._leave(waiting)
            self._forget_changes()

    def pop(self, now: float) -> PodInfo | None:
        """The next pod to try, into the caller's hand, or None."""
        self._flush(now)
        while self._active:
            _, order, pod_uid = heapq.heappop(self._active)
            waiting = self._waiting.get(pod_uid)
            if waiting is not None and waiting.place == "active" and waiting.order == order:
                return self._take(waiting)
        # Nobody else waits: no reason to let one wait that something may have helped.
        if self._due_of(self._backing_off) < float("inf"):
            _, _, pod_uid = heapq.heappop(self._backing_off)
            return self._take(self._waiting[pod_uid])
        return None

    def _take(self, waiting: Waiting) -> PodInfo:
        waiting.place = "in hand"
        waiting.attempts += 1
        waiting.seen = self._first_change + len(self._changes)
        self._in_hand += 1
        return waiting.info

    def next_due(self) -> float:
        """When a pod that backs off may be tried; infinity if none does."""
        return min(self._due_of(self._backing_off), self._due_of(self._failed))

    def _due_of(self, heap: list[tuple[float, int, str]]) -> float:
        while heap:
            due, order, pod_uid = heap[0]
            waiting = self._waiting.get(pod_uid)
            if waiting is not None and waiting.place == "backoff" and waiting.order == order:
                return due
            heapq.heappop(heap)
        return float("inf")

    def set_unschedulable(self, pod_uid: str, rejected_by: tuple[str, ...], now: float) -> None:
        """The pod in hand found no node. Nothing happens if it is gone meanwhile."""
        waiting = self._out_of_hand(pod_uid, now)
        if waiting is None:
            return
        waiting.rejected_by = rejected_by
        waiting.by_error = False
        missed = self._missed(waiting)
        if missed is None or any(self._helps(waiting, change) for change in missed):
            self._push_backoff(waiting)  # something changed while we looked: do not sleep on it
        else:
            self._park(waiting, "unschedulable")
        self._forget_changes()

    def set_failed(self, pod_uid: str, now: float) -> None:
        """Trying the pod in hand failed for a reason of ours (a lost binding): try it again."""
        waiting = self._out_of_hand(pod_uid, now)
        if waiting is not None:
            waiting.by_error = True
            self._push_backoff(waiting)
        self._forget_changes()

    def on_change(self, change: Change, now: float) -> bool:
        """Something happened; True if a pod may be tried because of it."""
        if self._in_hand:
            self._changes.append(change)
            if len(self._changes) > CHANGES_MAX:
                self._first_change += len(self._changes) // 2
                del self._changes[: len(self._changes) // 2]
        moved = False
        for rejected_by, group in [*self._parked.items()]:
            if rejected_by and not self._may_care(rejected_by, change, group):
                continue
            for waiting in [*group.values()]:
                if self._helps(waiting, change):
                    self._move(waiting, now)
                    moved = True
        return moved

    def activate(self, pod_uid: str, now: float, *, gated_only: bool = False) -> bool:
        """Try a pod that is unschedulable or gated again; False if it is neither."""
        waiting = self._waiting.get(pod_uid)
        places = ("gated",) if gated_only else ("unschedulable", "gated")
        if waiting is None or waiting.place not in places:
            return False
        self._move(waiting, now)
        return True

    def flush_unschedulable(self, now: float) -> None:
        """Try again what has waited for five minutes, in case something was missed."""
        for group in [*self._parked.values()]:
            for waiting in [*group.values()]:
                old = now - waiting.failed_at >= UNSCHEDULABLE_SECONDS_MAX
                if waiting.place == "unschedulable" and old:
                    self._push_active(waiting)

    # Who cares about what.

    def _may_care(
        self, rejected_by: tuple[str, ...], change: Change, group: Mapping[str, Waiting]
    ) -> bool:
        """Does one of the plugins care about such changes at all? All of a group are of few
        profiles, and plugins of one name care about the same."""
        names = dict.fromkeys(waiting.info.scheduler_name for waiting in group.values())
        for scheduler_name in names:
            known = self._profiles[scheduler_name].wakes
            for plugin in rejected_by:
                wakes = known.get(plugin)
                if wakes is None or any(
                    w.resource == change.resource and w.action & change.action for w in wakes
                ):
                    return True
        return False

    def _helps(self, waiting: Waiting, change: Change) -> bool:
        if not waiting.rejected_by:
            return True
        known = self._profiles[waiting.info.scheduler_name].wakes
        for plugin in waiting.rejected_by:
            wakes = known.get(plugin)
            if wakes is None or any(each.matches(waiting.info, change) for each in wakes):
                return True
        return False

    def _missed(self, waiting: Waiting) -> list[Change] | None:
        """What happened while it was in hand; None: nobody knows any more."""
        start = waiting.seen - self._first_change
        return None if start < 0 else self._changes[start:]

    def _forget_changes(self) -> None:
        if not self._in_hand:
            self._first_change += len(self._changes)
            self._changes.clear()

    # Moving.

    def _out_of_hand(self, pod_uid: str, now: float) -> Waiting | None:
        waiting = self._waiting.get(pod_uid)
        if waiting is None or waiting.place != "in hand":
            return None
        self._leave(waiting)
        waiting.failed_at = now
        self._order += 1
        waiting.order = self._order  # behind those that came meanwhile
        return waiting

    def _leave(self, waiting: Waiting) -> None:
        """It is about to be elsewhere."""
        if waiting.place == "in hand":
            self._in_hand -= 1
        group = self._parked.get(waiting.rejected_by)
        if group is not None and group.pop(waiting.info.uid, None) is not None and not group:
            del self._parked[waiting.rejected_by]
        waiting.place = ""

    def _park(self, waiting: Waiting, place: str) -> None:
        waiting.place = place
        self._parked.setdefault(waiting.rejected_by, {})[waiting.info.uid] = waiting

    def _move(self, waiting: Waiting, now: float) -> None:
        if now >= waiting.failed_at + self._backoff(waiting):
            self._push_active(waiting)
        else:
            self._push_backoff(waiting)

    def _backoff(self, waiting: Waiting) -> float:
        if not waiting.attempts:
            return 0.0
        doubled: float = self._backoff_min * 2.0 ** min(waiting.attempts - 1, 20)
        return min(doubled, self._backoff_max)

    def _is_gated(self, waiting: Waiting) -> bool:
        """Asks the plugins of PreEnqueue; a pod that one of them rejects is parked."""
        for plugin in self._profiles[waiting.info.scheduler_name].pre_enqueue:
            if plugin.pre_enqueue(waiting.info) is not None:
                self._leave(waiting)
                waiting.rejected_by = (plugin.name,)
                self._park(waiting, "gated")
                return True
        return False

    def _push_active(self, waiting: Waiting) -> None:
        if self._is_gated(waiting):
            return
        self._leave(waiting)
        waiting.place = "active"
        key = self._profiles[waiting.info.scheduler_name].sort.sort_key(waiting.info)
        heapq.heappush(self._active, (key, waiting.order, waiting.info.uid))

    def _push_backoff(self, waiting: Waiting) -> None:
        if self._is_gated(waiting):
            return
        self._leave(waiting)
        waiting.place = "backoff"
        due = waiting.failed_at + self._backoff(waiting)
        heap = self._failed if waiting.by_error else self._backing_off
        heapq.heappush(heap, (due, waiting.order, waiting.info.uid))

    def _flush(self, now: float) -> None:
        for heap in (self._backing_off, self._failed):
            while self._due_of(heap) <= now:
                _, _, pod_uid = heapq.heappop(heap)
                self._push_active(self._waiting[pod_uid])
