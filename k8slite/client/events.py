"""Events for people: what happened to which object, counted instead of repeated.

`EventCorrelator` is pure: it folds the same event into a count, many similar ones into one
combined event, and drops what a noisy source says beyond its rate (client-go's three steps).
`EventRecorder` is its shell: `event` never blocks; when OUTBOX_EVENTS_MAX wait to be written,
further ones are dropped and counted. Events are a courtesy: failing to write one is logged.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
from attrs import define, field

from k8slite.api.kinds import EVENTS
from k8slite.api.meta import Obj, format_time, name, namespace, resource_version, uid
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.errors import REQUEST_ERRORS
from raftkv.host import Host

__all__ = ["EventCorrelator", "EventRecorder", "open_event_recorder", "object_reference"]

log = logging.getLogger(__name__)

OUTBOX_EVENTS_MAX = 1000
CACHE_EVENTS_MAX = 4096
SIMILAR_MAX = 10
SIMILAR_SECONDS = 600.0
BURST = 25
REFILL_SECONDS = 300.0
MESSAGE_BYTES_MAX = 1024
NOT_FOUND = 404
COMBINED = "(combined from similar events): "
V = TypeVar("V")


def object_reference(obj: Obj, field_path: str = "") -> Obj:
    """The ObjectReference of an object, as events carry it in involvedObject."""
    reference: Obj = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "name": name(obj)}
    for key, value in (
        ("namespace", namespace(obj)),
        ("uid", uid(obj)),
        ("resourceVersion", resource_version(obj)),
        ("fieldPath", field_path),
    ):
        if value:
            reference[key] = value
    return reference


@define
class _Similar:
    """Events of one reason about one object, with different messages."""

    since: float
    messages: dict[str, None] = field(factory=dict)


@define
class _Bucket:
    """How much one source may still say about one object."""

    tokens: float
    filled_at: float


class EventCorrelator:
    """Decides what becomes of an event: a new object, a higher count, or nothing (pure)."""

    def __init__(self) -> None:
        self._written: OrderedDict[tuple[str, ...], Obj] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._last_name = 0

    def observe(self, event: Obj, now: float) -> tuple[Obj, bool] | None:
        """(event to write, whether it counts up one already written), or None to drop it.

        `event` has no name and count yet; `now` is wall clock seconds.
        """
        where = _where(event)
        if not self._admit(where, now):
            return None
        event = self._combine(where, event, now)
        key = _key(event)
        before = _touch(self._written, key)
        stamp = format_time(now)
        if before is not None:
            again = {
                **before,
                "message": event["message"],
                "count": before["count"] + 1,
                "lastTimestamp": stamp,
            }
            self._written[key] = again
            return again, True
        target = event["involvedObject"]
        # Nanoseconds, as everywhere in Kubernetes, but never twice the same: clocks are coarse.
        self._last_name = max(self._last_name + 1, int(now * 1e9))
        event["metadata"]["name"] = f"{target['name']}.{self._last_name:x}"
        event.update(count=1, firstTimestamp=stamp, lastTimestamp=stamp)
        _store(self._written, key, event)
        return event, False

    def forget(self, event: Obj) -> None:
        """The written event is gone from the server: the next one is a new object."""
        self._written.pop(_key(event), None)

    def _admit(self, where: tuple[str, ...], now: float) -> bool:
        bucket = _touch(self._buckets, where)
        if bucket is None:
            bucket = _store(self._buckets, where, _Bucket(BURST, now))
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled_at) / REFILL_SECONDS)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combine(self, where: tuple[str, ...], event: Obj, now: float) -> Obj:
        group = (*where, event["type"], event["reason"])
        similar = _touch(self._similar, group)
        if similar is None or now - similar.since > SIMILAR_SECONDS:
            similar = _store(self._similar, group, _Similar(now))
        similar.messages[event["message"]] = None
        if len(similar.messages) < SIMILAR_MAX:
            return event
        del similar.messages[next(iter(similar.messages))]
        return {**event, "message": COMBINED + event["message"]}


def _key(event: Obj) -> tuple[str, ...]:
    """What makes two events the same; all combined ones of a group are."""
    message: str = event["message"]
    told = COMBINED if message.startswith(COMBINED) else message
    return (*_where(event), event["type"], event["reason"], told)


def _where(event: Obj) -> tuple[str, ...]:
    target = event["involvedObject"]
    source = event["source"]
    return (
        source.get("component", ""),
        source.get("host", ""),
        target["kind"],
        target.get("namespace", ""),
        target["name"],
        target.get("uid", ""),
        target.get("fieldPath", ""),
    )


def _touch(entries: OrderedDict[tuple[str, ...], V], key: tuple[str, ...]) -> V | None:
    value = entries.get(key)
    if value is not None:
        entries.move_to_end(key)
    return value


def _store(entries: OrderedDict[tuple[str, ...], V], key: tuple[str, ...], value: V) -> V:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > CACHE_EVENTS_MAX:
        entries.popitem(last=False)
    return value


class EventRecorder:
    """Writes events for one component; `host` is the node name, for components of a node."""

    def __init__(self, api: Api, host: Host, component: str, node: str = "") -> None:
        self._api = api
        self._host = host
        self._source = {"component": component, "host": node} if node else {"component": component}
        self._component = component
        self._correlator = EventCorrelator()
        self._send, self._receive = trio.open_memory_channel[Obj](OUTBOX_EVENTS_MAX)
        self.dropped = 0

    def event(
        self, obj: Obj, type_: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Tell people: `type_` is Normal or Warning, `reason` one CamelCase word."""
        self.event_for(object_reference(obj, field_path), type_, reason, message)

    def event_for(self, reference: Obj, type_: str, reason: str, message: str) -> None:
        """As `event`, about an ObjectReference."""
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": reference.get("namespace") or "default"},
            "involvedObject": reference,
            "type": type_,
            "reason": reason,
            "message": message[:MESSAGE_BYTES_MAX],
            "source": self._source,
            "reportingComponent": self._component,
            "reportingInstance": self._source.get("host", ""),
        }
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    async def run(self) -> None:
        """Write events until cancelled."""
        async for event in self._receive:
            decision = self._correlator.observe(event, self._host.now())
            if decision is None:
                self.dropped += 1
                continue
            try:
                await self._write(*decision)
            except REQUEST_ERRORS as error:
                log.info("event not written reason=%s error=%s", event["reason"], error)

    async def _write(self, event: Obj, again: bool) -> None:
        space = event["metadata"]["namespace"]
        if again:
            fields = ("message", "count", "lastTimestamp")
            patch = {field: event[field] for field in fields}
            try:
                await self._api.patch(EVENTS, name(event), space, patch)
                return
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise
            # Events expire on the server; what is counted up after that begins anew.
            event = {**event, "metadata": {**event["metadata"]}}
        try:
            await self._api.create(EVENTS, event)
        except REQUEST_ERRORS:
            self._correlator.forget(event)
            raise


@asynccontextmanager
async def open_event_recorder(
    api: Api, host: Host, component: str, node: str = ""
) -> AsyncIterator[EventRecorder]:
    """A running recorder; on leaving, events not written yet are lost."""
    recorder = EventRecorder(api, host, component, node)
    async with open_background() as nursery:
        nursery.start_soon(recorder.run, name=f"events {component}")
        yield recorder
