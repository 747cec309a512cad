"""watch: from which revision on, in which form, and for how long.

Bytes of an event are made once for each form that somebody watches in, and written to all who
share it. A watcher that is too slow is closed; it will list again.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import trio

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, too_old_resource_version
from k8slite.apiserver.call import Call
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import Form, negotiate
from k8slite.apiserver.http.message import StreamResponse, Writer, chunk
from k8slite.apiserver.options import ListOptions, list_options
from k8slite.apiserver.versions import prepare
from k8slite.apiserver.watch_cache import (
    ADDED,
    DELETED,
    MODIFIED,
    Entry,
    Event,
    Filter,
    KindCache,
    Subscription,
    seen_as,
)

__all__ = ["watch"]

SEED_BATCH_EVENTS = 500
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


async def watch(call: Call) -> StreamResponse:
    """Answer with a stream of events; errors of the start are ordinary answers."""
    form = negotiate(call)
    options = list_options(call, call.kind, watch=True)
    mirror, core = call.core.mirror, call.core
    cache = mirror.cache(call.kind)
    version = options.resource_version
    if options.send_initial_events or version is None:
        if version is None:
            await mirror.wait_fresh()
        elif version:
            await mirror.wait_at_least(version)
    if call.info.name:
        key = f"{call.namespace}/{call.info.name}" if call.kind.namespaced else call.info.name
    else:
        key = ""
    prefix = f"{call.namespace}/" if call.namespace and call.kind.namespaced else ""
    selection = None if options.selection.empty else options.selection
    late_selection = None
    if selection is not None and selection.converts is not None:
        selection, late_selection = None, selection
    subscription = Subscription(
        mirror.waker,
        prefix,
        key,
        selection,
        core.config.watch_queue_events_max,
        bookmarks=options.bookmarks,
    )
    if selection is not None and prefix and not key:
        name = selection.fields.required("metadata.name")
        if name is not None:
            subscription.key = prefix + name
    seconds = options.timeout_seconds
    if not seconds:
        low = core.config.watch_seconds_min
        seconds = int(low + core.host.rng.random() * low)

    async def run(writer: Writer) -> None:
        # Only now, when the client has its head: one that left before leaves nothing behind.
        late = _seed(cache, subscription, options, mirror.revision)
        if late is not None:
            await _fail(writer, too_old_resource_version(*late).to_status())
            return
        number = cache.add(subscription)
        marks_end = mirror.revision if options.send_initial_events and options.bookmarks else 0
        stream = _Stream(core, form, call.kind, writer, subscription, late_selection)
        try:
            await stream.run(marks_end, trio.current_time() + seconds)
        finally:
            cache.remove(number)

    core.metrics.watches_started += 1
    return StreamResponse(200, run)


def _seed(
    cache: KindCache, subscription: Subscription, options: ListOptions, revision: int
) -> tuple[int, int] | None:
    """Queue what the watch begins with; (asked, oldest) if that history is gone."""
    version = options.resource_version
    initial = options.send_initial_events
    if initial or (initial is None and not version):
        found: Iterable[Entry] = cache.select(subscription.prefix)
        if subscription.key:
            only = cache.entries.get(subscription.key)
            found = () if only is None else (only,)
        subscription.seed(
            [
                (ADDED, event)
                for entry in found
                if subscription.select(event := Event(ADDED, entry, None)) is not None
            ]
        )
        return None
    if not version:
        return None
    if version > revision:
        subscription.after = version
        return None
    history = cache.history(version)
    if history is None:
        return version, cache.floor
    subscription.seed(
        [(kind, event) for event in history if (kind := subscription.select(event)) is not None]
    )
    return None


async def _fail(writer: Writer, status: Obj) -> None:
    """End a watch with an ERROR event, as kube-apiserver does."""
    await writer.send(chunk(orjson.dumps({"type": "ERROR", "object": status}) + b"\n"))


class _Stream:
    """Turns a subscription into chunks."""

    def __init__(
        self,
        core: Core,
        form: Form,
        kind: Kind,
        writer: Writer,
        subscription: Subscription,
        late_selection: Filter | None,
    ) -> None:
        self._core = core
        self._now = core.now
        self._late_selection = late_selection
        self._form = form
        self._kind = kind
        self._writer = writer
        self._subscription = subscription
        self._first = form.style == "table"
        look = (kind.group, kind.version, form.style, form.version, form.include_object)
        self._keys = {type_: (look, type_) for type_ in (ADDED, MODIFIED, DELETED)}
        self._sending = False

    async def run(self, marks_end: int, deadline: float) -> None:
        """Send until the deadline (trio's clock) or until the subscription is closed.

        Raises BrokenResourceError when either came in the middle of a write.
        """
        try:
            with trio.move_on_at(deadline):
                await self._run(marks_end)
        except ApiError as error:  # a webhook does not convert
            await _fail(self._writer, error.to_status())
        if self._sending:
            raise trio.BrokenResourceError("the watch timed out in the middle of a write")

    async def _run(self, marks_end: int) -> None:
        subscription = self._subscription
        events = await subscription.take() if subscription.has_events else []
        await self._send_events(events)
        if marks_end:
            marks_end = max(marks_end, events[-1][1].revision) if events else marks_end
            await self._send(self._bookmark(marks_end, initial=True))
        if not self._kind.stored_as:
            subscription.deliver = self._deliver
        while not subscription.closed:
            events = await subscription.take()
            if subscription.unsent is not None:
                rest, subscription.unsent = subscription.unsent, None
                await self._send_rest(rest)
            if events:
                await self._send_events(events)
            elif subscription.bookmark_due:
                revision, subscription.bookmark_due = subscription.bookmark_due, 0
                await self._send(self._bookmark(revision))

    async def _send_events(self, events: list[tuple[str, Event]]) -> None:
        if self._kind.stored_as and events:
            events = await self._converted(events)
        if len(events) == 1:
            await self._send(self._encode(*events[0]))
            return
        for start in range(0, len(events), SEED_BATCH_EVENTS):
            part = events[start : start + SEED_BATCH_EVENTS]
            await self._send(b"".join([self._encode(*pair) for pair in part]))

    async def _converted(self, events: list[tuple[str, Event]]) -> list[tuple[str, Event]]:
        """The events, their objects ready to be read in our version; then selected by it.

        Raises ApiError 500.
        """
        pairs = [(event.entry, event.previous) for _, event in events]
        await prepare(self._core, self._kind, [e for pair in pairs for e in pair if e is not None])
        late = self._late_selection
        if late is None:
            return events
        return [(seen, event) for _, event in events if (seen := seen_as(late, event)) is not None]

    async def _send(self, framed: bytes) -> None:
        """A write that a stuck client cannot hold up for ever: closing the watcher ends it."""
        subscription = self._subscription
        if subscription.closed:
            raise trio.BrokenResourceError("the watcher was too slow")
        rest = self._writer.send_now(framed)
        if rest is not None:
            await self._send_rest(rest)

    def _deliver(self, events: list[tuple[str, Event]]) -> bytes | None:
        """See Subscription.deliver."""
        try:
            return self._writer.send_now(b"".join([self._encode(*pair) for pair in events]))
        except trio.BrokenResourceError:
            return b""  # the task will meet the same error

    async def _send_rest(self, rest: bytes) -> None:
        subscription = self._subscription
        self._sending = True
        with trio.CancelScope() as subscription.sending:
            await self._writer.send(rest)
        self._sending = False
        if subscription.sending.cancelled_caught:
            raise trio.BrokenResourceError("the watcher was too slow")

    def _encode(self, type_: str, event: Event) -> bytes:
        with_columns = self._first
        self._first = False
        key = self._keys[type_]
        if not with_columns:
            found = event.encoded.get(key)
            if found is not None:
                return found
        form, kind = self._form, self._kind
        body = form.event_object(kind, _shown(type_, event), self._now(), columns=with_columns)
        framed = chunk(b'{"type":"%b","object":%b}\n' % (type_.encode(), body))
        if not with_columns:
            event.encoded[key] = framed
        return framed

    def _bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        metadata: Obj = {"resourceVersion": str(revision)}
        if initial:
            metadata["annotations"] = {_INITIAL_EVENTS_END: "true"}
        body = self._form.bookmark(self._kind, metadata)
        return chunk(orjson.dumps({"type": "BOOKMARK", "object": body}) + b"\n")


def _shown(type_: str, event: Event) -> Entry:
    """The object of an event; one that left a watcher's selection is shown as it was before."""
    previous = event.previous
    if type_ is not DELETED or event.type is DELETED or previous is None:
        return event.entry
    return previous.at(event.revision)
