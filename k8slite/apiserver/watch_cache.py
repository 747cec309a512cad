"""The objects of one resource as bytes, their recent history, and those who watch them.

Owns: entries in key order, a bounded ring of events, the list of subscriptions.
Assumes: one task, the mirror's, applies every change of the store in revision order.
Never waits: a subscriber that lets its queue fill is closed, and will list again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import orjson
import trio
from sortedcontainers import SortedDict

from k8slite.api.kinds import Kind
from k8slite.apiserver.objects import body_at, body_of, version_of

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Entry",
    "Event",
    "Filter",
    "KindCache",
    "Subscription",
    "Waker",
    "seen_as",
]

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"


_NOTHING: dict[str, Any] = {}
"""Shared by all: most entries are never converted."""


class Entry:
    """One object at one revision. `version` is the apiVersion noted with it, if any."""

    __slots__ = ("_obj", "body", "converted", "key", "name", "namespace", "revision", "version")

    def __init__(self, key: str, revision: int, body: bytes, version: str = "") -> None:
        self.key = key
        self.version = version
        self.converted: dict[str, tuple[Kind, dict[str, Any]]] = _NOTHING
        """What a webhook made of it: version -> (the kind as it was then, the object)."""
        self.namespace, _, self.name = key.rpartition("/")
        self.revision = revision
        self.body = body
        self._obj: dict[str, Any] | None = None

    @classmethod
    def of(cls, key: str, revision: int, value: bytes) -> Entry:
        """Of a stored value."""
        return cls(key, revision, body_of(value, revision), version_of(value))

    def at(self, revision: int) -> Entry:
        """The same object under another revision."""
        moved = Entry(self.key, revision, body_at(self.body, revision), self.version)
        for version, (kind, obj) in self.converted.items():
            metadata = {**obj["metadata"], "resourceVersion": str(revision)}
            moved.converted = {**moved.converted, version: (kind, {**obj, "metadata": metadata})}
        return moved

    def parsed(self) -> dict[str, Any]:
        """The object, without apiVersion and kind, shared by all callers: never change it."""
        obj = self._obj
        if obj is None:
            obj = self._obj = orjson.loads(b"{" + self.body)
        return obj


class Filter(Protocol):
    """Which objects a request is about, besides the namespace in its path."""

    def matches(self, entry: Entry) -> bool: ...


class Event:
    """One change. `previous` is the object before it, for watchers whose selector it leaves.

    `encoded` keeps what was encoded for one watcher for all others of the same form.
    """

    __slots__ = ("encoded", "entry", "previous", "revision", "type")

    def __init__(self, type_: str, entry: Entry, previous: Entry | None) -> None:
        self.type = type_
        self.entry = entry
        self.previous = previous
        self.revision = entry.revision
        self.encoded: dict[tuple[object, str], bytes] = {}


def seen_as(chosen: Filter, event: Event) -> str | None:
    """The type of an event for who sees only what a filter lets through; None: nothing."""
    previous = event.previous
    was = previous is not None and chosen.matches(previous)
    if event.type is not DELETED and chosen.matches(event.entry):
        return MODIFIED if was else ADDED
    return DELETED if was else None


WAKES_PER_TURN = 8
WAKE_SECONDS = 50e-6
"""What waking one costs, generously: a round takes as long as this allows, and no less, so that
many watchers leave time to writers and find more than one event each.
"""
PAUSE_SECONDS_MIN = 1e-3
DELIVERED_EVENTS = 64
"""More events than these are left to the watcher's own task."""
ENCODED_EVENTS = 200
"""How many of the latest events keep their encoded forms."""


class Waker:
    """Wakes watchers a few at a time, in the order in which news came for them.

    Woken all at once, five hundred watchers would each be sent a single event before the next
    write is even read. Woken in turns, each finds all that has gathered meanwhile and sends it in
    one piece, and writers are answered in between. One task runs it.
    """

    def __init__(self) -> None:
        self._line: deque[Subscription] = deque()
        self._news = trio.Event()

    def add(self, subscription: Subscription) -> None:
        """Have a watcher woken; it must not be in line already."""
        self._line.append(subscription)
        self._news.set()

    async def run(self) -> None:
        """For ever."""
        line = self._line
        while True:
            await self._news.wait()
            round_end = trio.current_time() + len(line) * WAKE_SECONDS
            left = len(line)
            while left:
                for _ in range(min(WAKES_PER_TURN, left)):
                    line.popleft().wake()
                    left -= 1
                await trio.lowlevel.checkpoint()
            if not line:
                self._news = trio.Event()
            if round_end - trio.current_time() > PAUSE_SECONDS_MIN:
                await trio.sleep_until(round_end)


Deliver = Callable[[list[tuple[str, Event]]], bytes | None]


class Subscription:
    """One watcher's queue. Its task takes `(type, event)` pairs; nobody else does."""

    __slots__ = (
        "_in_line",
        "_limit",
        "_queue",
        "_task",
        "_waker",
        "after",
        "bookmark_due",
        "bookmarks",
        "closed",
        "deliver",
        "filter",
        "key",
        "prefix",
        "sending",
        "unsent",
    )

    def __init__(
        self,
        waker: Waker,
        prefix: str,
        key: str,
        filter_: Filter | None,
        limit: int,
        *,
        bookmarks: bool,
    ) -> None:
        self._waker = waker
        self._in_line = False
        self.prefix = prefix
        self.key = key
        self.filter = filter_
        self.bookmarks = bookmarks
        self.bookmark_due = 0
        self.closed = False
        self.after = 0
        """Events up to this revision are not for this watcher."""
        self.sending = trio.CancelScope()
        """Around each write to the client; cancelled when the watcher is closed."""
        self.deliver: Deliver | None = None
        """Sends events without waiting; None when all has left, else what is still to be sent."""
        self.unsent: bytes | None = None
        self._limit = limit
        self._queue: list[tuple[str, Event]] = []
        self._task: trio.lowlevel.Task | None = None

    def seed(self, events: list[tuple[str, Event]]) -> None:
        """Put what comes before all other events; it does not count against the limit."""
        assert not self._queue
        self._queue = events
        self._limit += len(events)

    def offer(self, event: Event) -> None:
        """Queue an event if it concerns this watcher; close the watcher if its queue is full."""
        kind = self.select(event)
        if kind is None or event.revision <= self.after:
            return
        if len(self._queue) >= self._limit:
            self.close()
            return
        self._queue.append((kind, event))
        self._wake()

    def select(self, event: Event) -> str | None:
        """The type under which this watcher sees the event; None if it does not."""
        key = event.entry.key
        if self.key:
            if key != self.key:
                return None
        elif self.prefix and not key.startswith(self.prefix):
            return None
        return event.type if self.filter is None else seen_as(self.filter, event)

    @property
    def has_events(self) -> bool:
        """Is anything queued?"""
        return bool(self._queue)

    def offer_bookmark(self, revision: int) -> None:
        """Have a bookmark of this revision sent after what is queued."""
        if self.bookmarks:
            self.bookmark_due = revision
            self._wake()

    def close(self) -> None:
        """End the watch; what is queued is dropped."""
        self.closed = True
        self.sending.cancel()
        self._queue = []
        self._wake()

    def _wake(self) -> None:
        if not self._in_line:
            self._in_line = True
            self._waker.add(self)

    def wake(self) -> None:
        """Send what is queued, or let the task do it. For the Waker alone.

        Most of the time the socket takes everything at once: then no task need run.
        """
        self._in_line = False
        task = self._task
        if task is None:
            return
        queue, deliver = self._queue, self.deliver
        if deliver is not None and 0 < len(queue) <= DELIVERED_EVENTS and not self.closed:
            self._queue = []
            self.unsent = deliver(queue)
            if self.unsent is None and not self.bookmark_due:
                return
        self._task = None
        trio.lowlevel.reschedule(task)

    async def take(self) -> list[tuple[str, Event]]:
        """Everything queued, at least one event, or nothing when closed or a bookmark is due."""
        if not self._queue and not self.closed and not self.bookmark_due:
            self._task = trio.lowlevel.current_task()

            def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.checkpoint()
        queue, self._queue = self._queue, []
        return queue


class KindCache:
    """See the module. `floor` is the revision after which history is complete."""

    def __init__(self, group: str, plural: str, history_events: int) -> None:
        self.group = group
        self.plural = plural
        self.floor = 0
        self.changed_at = 0
        self.entries: SortedDict[str, Entry] = SortedDict()
        self._history: deque[Event] = deque()
        self._history_events = history_events
        self._subscriptions: dict[int, Subscription] = {}
        self._next_id = 0

    # --- reading --------------------------------------------------------------------------------

    def get(self, namespace: str, name: str) -> Entry | None:
        """The object as of now."""
        found: Entry | None = self.entries.get(f"{namespace}/{name}" if namespace else name)
        return found

    def select(self, prefix: str, start: str = "") -> Iterator[Entry]:
        """Entries in key order whose key has the prefix, from `start` on."""
        if not prefix and not start:
            return iter(self.entries.values())
        first = max(prefix, start)
        last = prefix[:-1] + "0" if prefix else None  # "0" is the character after "/"
        entries = self.entries
        keys = entries.irange(first or None, last, inclusive=(True, False))
        return map(entries.__getitem__, keys)

    def history(self, revision: int) -> Iterator[Event] | None:
        """Events after `revision`, oldest first; None where the ring no longer has them all."""
        if revision < self.floor:
            return None
        found: list[Event] = []
        for event in reversed(self._history):
            if event.revision <= revision:
                break
            found.append(event)
        return reversed(found)

    # --- changes --------------------------------------------------------------------------------

    def load(self, key: str, revision: int, value: bytes) -> None:
        """Take an object of the first list: no event."""
        self.entries[key] = Entry.of(key, revision, value)

    def apply(self, key: str, revision: int, value: bytes | None) -> None:
        """Take a change of the store and tell the watchers."""
        assert revision >= self.changed_at, (revision, self.changed_at)
        previous: Entry | None = self.entries.get(key)
        if value is None:
            if previous is None:
                return
            del self.entries[key]
            entry = previous.at(revision)
            event = Event(DELETED, entry, previous)
        else:
            entry = Entry.of(key, revision, value)
            self.entries[key] = entry
            event = Event(ADDED if previous is None else MODIFIED, entry, previous)
        self.changed_at = revision
        self._remember(event)
        overflowed = False
        for subscription in self._subscriptions.values():
            subscription.offer(event)
            overflowed = overflowed or subscription.closed
        if overflowed:
            self._subscriptions = {k: s for k, s in self._subscriptions.items() if not s.closed}

    def _remember(self, event: Event) -> None:
        history = self._history
        history.append(event)
        if len(history) > ENCODED_EVENTS:
            history[-ENCODED_EVENTS - 1].encoded = {}  # who still wants it encodes it again
        while len(history) > self._history_events:
            self.floor = history.popleft().revision

    def reset(self, floor: int) -> None:
        """Forget everything; watchers are closed and will list again."""
        self.entries.clear()
        self._history.clear()
        self.floor = floor
        self.changed_at = 0
        self.close_all()

    # --- watchers -------------------------------------------------------------------------------

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._subscriptions)

    def add(self, subscription: Subscription) -> int:
        """Let it see every change from now on; the number to `remove` it by."""
        self._next_id += 1
        self._subscriptions[self._next_id] = subscription
        return self._next_id

    def remove(self, number: int) -> None:
        """Forget a subscription; no error if it was closed already."""
        self._subscriptions.pop(number, None)

    def bookmark(self, revision: int) -> None:
        """Offer a bookmark to all who asked for them."""
        for subscription in self._subscriptions.values():
            subscription.offer_bookmark(revision)

    def close_all(self) -> None:
        """Close every watcher."""
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions = {}
