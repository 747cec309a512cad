"""What will happen and when: the simulator's calendar.

Pure. Owns the order of events: by time, then by the order in which they were entered, so that two
packets with one deadline leave as they came. Never waits: its owner calls `run_due`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

__all__ = ["Timeline"]


class Timeline:
    """A calendar of callbacks. `on_earlier(when)` is told when a new first event is entered."""

    __slots__ = ("_heap", "_sequence", "on_earlier")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.on_earlier: Callable[[float], None] | None = None

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call `call(*args)` at time `when` (seconds of the owner's clock)."""
        heap = self._heap
        first = not heap or when < heap[0][0]
        self._sequence += 1
        heapq.heappush(heap, (when, self._sequence, call, args))
        if first and self.on_earlier is not None:
            self.on_earlier(when)

    def next_at(self) -> float:
        """The time of the first event; infinity when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def run_due(self, now: float) -> None:
        """Make every call that is due; what they enter for `now` or before is made as well."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, call, args = heapq.heappop(heap)
            call(*args)
