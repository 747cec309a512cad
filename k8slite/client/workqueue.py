"""Work queues: which key is to be looked at next, and when.

`DirtyQueue`, `DelayedKeys` and `RateLimiter` are pure. `WorkQueue` is their trio shell.
Properties, as client-go's: *stingy* (a key added many times before a worker takes it is handled
once), *fair* (first come, first served), *exclusive* (a key in hand is not given to a second
worker; if it was added meanwhile it comes again after `done`). Bounded by the number of
distinct keys, since it holds no events. Keys are any hashable values.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

import trio

__all__ = ["DelayedKeys", "DirtyQueue", "Observer", "RateLimiter", "WorkQueue"]

K = TypeVar("K", bound=Hashable)
BACKOFF_SECONDS_MIN = 0.005
BACKOFF_SECONDS_MAX = 30.0
SPACED_KEYS_MAX = 1000
"""Remembered times of keys handed out; at this number those that are over are forgotten."""
DELAY_SECONDS_MIN = 0.001
"""What rounding leaves of a delay may be too little to move the clock at all."""


class DirtyQueue(Generic[K]):
    """Order, `dirty` (must be handled) and `processing` (in a worker's hand)."""

    def __init__(self) -> None:
        self._order: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def idle(self) -> bool:
        return not self._dirty and not self._processing

    def is_dirty(self, key: K) -> bool:
        return key in self._dirty

    def in_hand(self, key: K) -> bool:
        return key in self._processing

    def add(self, key: K) -> bool:
        """Mark the key; True if a worker can take it now."""
        if key in self._dirty:
            return False
        self._dirty.add(key)
        if key in self._processing:
            return False
        self._order.append(key)
        return True

    def get(self) -> K:
        """The next key. Raises IndexError when there is none."""
        key = self._order.popleft()
        assert key not in self._processing
        self._dirty.remove(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> bool:
        """The worker has finished; True if the key must be handled again."""
        self._processing.remove(key)
        if key not in self._dirty:
            return False
        self._order.append(key)
        return True


class DelayedKeys(Generic[K]):
    """Keys to be added later; of several times for one key the earliest counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._sequence = 0

    def add(self, key: K, due: float) -> None:
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))

    def next_due(self) -> float:
        """When the next key is due; infinity when none waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # superseded by an earlier time, or already handed out
        return self._heap[0][0] if self._heap else float("inf")

    def take_due(self, now: float) -> list[K]:
        keys = []
        while self.next_due() <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._due[key]
            keys.append(key)
        return keys


class RateLimiter(Generic[K]):
    """Doubling delays per key, until the key is forgotten."""

    def __init__(
        self,
        seconds_min: float = BACKOFF_SECONDS_MIN,
        seconds_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._failures: dict[K, int] = {}

    def when(self, key: K) -> float:
        """Seconds to wait before the next try; counts a failure."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._seconds_min * 2.0 ** min(failures, 40), self._seconds_max)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)


class Observer(Protocol):
    """Told what happens in a queue, for its metrics. Times are in seconds."""

    def added(self) -> None: ...

    def taken(self, waited: float) -> None: ...

    def done(self, worked: float) -> None: ...

    def retried(self) -> None: ...


class WorkQueue(Generic[K]):
    """The queue of a controller: handlers add keys, workers get them, in one trio run.

    `spacing_seconds`: a key handed out is not handed out again sooner, so that a burst of events
    about one object costs a few passes and not one each. The first event is never delayed.
    """

    def __init__(
        self, limiter: RateLimiter[K] | None = None, *, spacing_seconds: float = 0.0
    ) -> None:
        self._spacing = spacing_seconds
        self._free_at: dict[K, float] = {}
        self._queue: DirtyQueue[K] = DirtyQueue()
        self._delayed: DelayedKeys[K] = DelayedKeys()
        self._limiter = limiter or RateLimiter()
        self._waiting = trio.lowlevel.ParkingLot()
        self._observer: Observer | None = None
        self._since: dict[K, float] = {}
        """When keys came into the queue, and when into a hand, if somebody observes that."""

    def observe(self, observer: Observer) -> None:
        """From now on, tell the observer."""
        self._observer = observer

    def longest_in_hand(self) -> tuple[float, float]:
        """For how long workers have been at their keys, all together and the longest."""
        now = trio.current_time()
        ages = [now - at for key, at in self._since.items() if self._queue.in_hand(key)]
        return sum(ages), max(ages, default=0.0)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing to do now and nothing in hand (delayed keys do not count)."""
        return self._queue.idle

    def add(self, key: K) -> None:
        free_at = self._free_at.get(key, 0.0)
        if free_at > trio.current_time():
            self._add_at(key, free_at)
        elif self._add_now(key):
            self._waiting.unpark()

    def _add_now(self, key: K) -> bool:
        if self._observer is not None and not self._queue.is_dirty(key):
            self._observer.added()
        ready = self._queue.add(key)
        if ready and self._observer is not None:
            self._since[key] = trio.current_time()
        return ready

    def add_after(self, key: K, seconds: float) -> None:
        """Add the key once `seconds` have passed; 0 or less is now."""
        if seconds <= 0:
            self.add(key)
        else:
            self._add_at(key, trio.current_time() + max(seconds, DELAY_SECONDS_MIN))

    def _add_at(self, key: K, due: float) -> None:
        earlier = due < self._delayed.next_due()
        self._delayed.add(key, due)
        if earlier:
            self._waiting.unpark()  # one waiter wakes up and sleeps again until the new time

    def add_rate_limited(self, key: K) -> None:
        """Add the key after its back-off, because handling it failed."""
        if self._observer is not None:
            self._observer.retried()
        self.add_after(key, self._limiter.when(key))

    def failures(self, key: K) -> int:
        return self._limiter.failures(key)

    def forget(self, key: K) -> None:
        """Handling succeeded: the next failure waits shortly again."""
        self._limiter.forget(key)

    async def get(self) -> K:
        """The next key, for the caller alone until it calls `done`."""
        await trio.lowlevel.checkpoint()
        while True:
            for key in self._delayed.take_due(trio.current_time()):
                self._add_now(key)
            if len(self._queue):
                if len(self._queue) > 1 or self._delayed.next_due() < float("inf"):
                    self._waiting.unpark()  # somebody else must watch over what is left
                key = self._queue.get()
                self._note_handed_out(key)
                if self._observer is not None:
                    now = trio.current_time()
                    self._observer.taken(now - self._since.get(key, now))
                    self._since[key] = now
                return key
            with trio.CancelScope(deadline=self._delayed.next_due()):
                await self._waiting.park()

    def _note_handed_out(self, key: K) -> None:
        if not self._spacing:
            return
        now = trio.current_time()
        if len(self._free_at) >= SPACED_KEYS_MAX:
            self._free_at = {k: at for k, at in self._free_at.items() if at > now}
        self._free_at[key] = now + self._spacing

    def done(self, key: K) -> None:
        """The key is out of hand; if it was added meanwhile, somebody gets it again."""
        if self._observer is not None:
            now = trio.current_time()
            self._observer.done(now - self._since.pop(key, now))
        if self._queue.done(key):
            if self._observer is not None:
                self._since[key] = trio.current_time()
            self._waiting.unpark()
