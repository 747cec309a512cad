"""Watches of clients: who watches, what has been sent, who has to catch up.

Owns: the streams and, through it, the `WatchHub`. New events gather (`notify`) and are told in
rounds (`tell`, a task); another task moves those that are behind (`catch_up`).

An event is packed once; the same bytes go to every watcher of every connection, and once only to
a connection, however many of its watches they are for. A round is followed by a pause in
proportion to the connections that it wrote to: one write to each of a thousand sockets costs far
more than the events in it, so under load they leave in fewer, larger pushes.

Order on a connection is the order of its outbox: created, then events by revision, then progress,
which therefore never speaks of events that are still to come.

When a connection's outbox is crowded its watches fall behind: they cost a cursor, read history
when there's room again, and end with Compacted if compaction was faster. Nothing is ever skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from raftkv.errors import Compacted, InvalidRequest, KvError, NoLeader, TooManyRequests
from raftkv.mvcc.commands import Event
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.watchers import Watch, WatchHub
from raftkv.server.sessions import Session
from raftkv.streams import Wakeup
from raftkv.wire.framing import pack, pack_array_header
from raftkv.wire.protocol import (
    ALL_WATCHES,
    CANCELED,
    EVENTS,
    NO_DELETE,
    NO_PUT,
    PREV_KV,
    PROGRESS,
    PROGRESS_PUSH,
    error_result,
)

__all__ = ["WatchStreams"]

log = logging.getLogger(__name__)

WATCHES_PER_SESSION_MAX = 10_000
RECEIVER_SECONDS = 0.0001
"""The pause after a round, for each connection that was told: 100 ms with a thousand of them."""
PUSH_HEAD = b"\x95\x00"  # an array of 5 whose first item is 0
PACKED_EVENTS = pack(EVENTS)


@attrs.define(eq=False, slots=True)
class Stream:
    """One watch of one client."""

    watch: Watch
    session: Session
    client_id: int
    prev_kv: bool
    wants_progress: bool
    active: bool = False  # sent something since the last round of progress


class WatchStreams:
    def __init__(self, machine: Machine) -> None:
        self.hub = WatchHub(machine)
        self._streams: dict[int, Stream] = {}
        self._numbers = 0
        self._behind: dict[int, None] = {}
        self._progress_asked: dict[int, None] = {}
        self._common_asked: dict[Session, None] = {}
        self._news: list[Event] = []  # applied, but not told yet
        self._news_came = Wakeup()
        self._wakeup = Wakeup()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def behind(self) -> int:
        return len(self._behind)

    # --- what clients ask -----------------------------------------------------------------------

    def create(self, session: Session, request_id: int, message: list[Any]) -> None:
        """`[id, "watch", watch id, key, end, start revision, options]`. Raises KvError."""
        if tuple(map(type, message[2:3] + message[5:])) != (int, int, int) or message[5] < 0:
            raise InvalidRequest("watch has 5 arguments: id, key, end, start revision, options")
        _, _, client_id, key, end, start, options = message
        if type(key) is not bytes or not (end is None or type(end) is bytes):
            raise InvalidRequest("the key and the end of a watch are bytes")
        if client_id in session.watches or client_id < 0:
            raise InvalidRequest(f"watch id {client_id} is in use on this connection")
        if len(session.watches) >= WATCHES_PER_SESSION_MAX:
            raise TooManyRequests(f"more than {WATCHES_PER_SESSION_MAX} watches on a connection")
        self._tell()  # "from now on" is what is applied, not what was told
        self._numbers += 1
        watch = self.hub.add(
            self._numbers,
            key,
            end,
            start,
            prev_kv=bool(options & PREV_KV),
            no_put=bool(options & NO_PUT),
            no_delete=bool(options & NO_DELETE),
        )
        stream = Stream(
            watch, session, client_id, bool(options & PREV_KV), bool(options & PROGRESS)
        )
        self._streams[watch.id] = stream
        session.watches[client_id] = watch.id
        session.reply(request_id, [self.hub.revision])
        if watch.next_revision <= self.hub.revision:
            self._lag(watch.id)

    def cancel(self, session: Session, request_id: int, message: list[Any]) -> None:
        if len(message) != 3 or type(message[2]) is not int:
            raise InvalidRequest("watch_cancel has one argument, a watch id")
        watch_id = session.watches.get(message[2])
        if watch_id is not None:
            self._remove(watch_id)
        session.reply(request_id, [self.hub.revision])

    def ask_progress(self, session: Session, request_id: int, message: list[Any]) -> None:
        if len(message) != 3 or type(message[2]) is not int:
            raise InvalidRequest("watch_progress has one argument, a watch id")
        self._tell()
        watch_id = session.watches.get(message[2])
        session.reply(request_id, [self.hub.revision])
        if message[2] == ALL_WATCHES:
            if not self._tell_common_progress(session):
                self._common_asked[session] = None
        elif watch_id is not None and not self._tell_progress(watch_id):
            self._progress_asked[watch_id] = None

    def forget(self, session: Session) -> None:
        for watch_id in list(session.watches.values()):
            self._remove(watch_id)
        self._common_asked.pop(session, None)

    # --- what is told ---------------------------------------------------------------------------

    def notify(self, events: Sequence[Event]) -> None:
        """New events, whole revisions in order, right after they were applied."""
        self._news += events
        if self._streams:
            self._news_came.set()
        else:
            self._tell()

    async def tell(self) -> None:
        """Tell what has gathered, round after round, until cancelled."""
        while True:
            await self._news_came.wait()
            receivers = self._tell()
            await trio.sleep(receivers * RECEIVER_SECONDS)

    def _tell(self) -> int:
        """One round: the number of connections that got something."""
        if not self._news:
            return 0
        news, self._news = self._news, []
        pushes: dict[tuple[Session, int, bool], tuple[Sequence[Event], list[int]]] = {}
        for watch_id, matched in self.hub.notify(news).items():
            stream = self._streams[watch_id]
            if stream.session.outbox.crowded:
                self.hub.fall_behind(watch_id, matched[0][1][3])
                self._lag(watch_id)
                continue
            stream.active = True
            place = (stream.session, id(matched), stream.prev_kv)
            push = pushes.get(place)
            if push is None:
                pushes[place] = (matched, [stream.client_id])
            else:
                push[1].append(stream.client_id)
        packed: dict[tuple[int, bool], bytes] = {}
        singles: dict[tuple[int, bool], bytes] = {}
        for (session, identity, prev_kv), (matched, client_ids) in pushes.items():
            body = packed.get((identity, prev_kv))
            if body is None:
                body = packed[identity, prev_kv] = _pack_events(matched, prev_kv, singles)
            session.outbox.add_packed(_push(client_ids, body))
        return len(pushes)

    def replace_machine(self, machine: Machine) -> None:
        """A snapshot was installed: streams go on in the new history, from where they are."""
        self._tell()
        for watch in self.hub.replace_machine(machine):
            self._lag(watch.id)

    def _lag(self, watch_id: int) -> None:
        self._behind[watch_id] = None
        self._wakeup.set()

    async def catch_up(self) -> None:
        """Bring those that are behind forward, one bounded step each in turn, until cancelled."""
        while True:
            await self._wakeup.wait()
            moved = True
            while self._behind and moved:
                moved = False
                for watch_id in list(self._behind):
                    if watch_id in self._behind and self._step(watch_id):
                        moved = True
                        await trio.lowlevel.checkpoint()

    def _step(self, watch_id: int) -> bool:
        """One piece of history for one watch; False where its connection has no room."""
        stream = self._streams[watch_id]
        if stream.session.outbox.crowded:
            return False
        try:
            events, synced = self.hub.history(watch_id)
        except Compacted as error:
            self._end(watch_id, error)
            return True
        if events:
            stream.active = True
            body = _pack_events(events, stream.prev_kv, {})
            stream.session.outbox.add_packed(_push([stream.client_id], body))
        if synced or stream.watch.next_revision > self.hub.revision:
            self._behind.pop(watch_id, None)
            self._answer_askers()
        return True

    def _answer_askers(self) -> None:
        for watch_id in list(self._progress_asked):
            if self._tell_progress(watch_id):
                del self._progress_asked[watch_id]
        for session in list(self._common_asked):
            if self._tell_common_progress(session):
                del self._common_asked[session]

    def _tell_progress(self, watch_id: int) -> bool:
        """Say how far a watch is, if everything up to there has been sent."""
        revision = self.hub.progress((watch_id,))
        if revision is None:
            return False
        stream = self._streams[watch_id]
        stream.session.outbox.add([0, stream.client_id, PROGRESS_PUSH, revision])
        return True

    def _tell_common_progress(self, session: Session) -> bool:
        """The same for all watches of a connection; those that wait for a future revision are
        told nothing that they could miss."""
        if any(watch_id in self._behind for watch_id in session.watches.values()):
            return False
        session.outbox.add([0, ALL_WATCHES, PROGRESS_PUSH, self.hub.revision])
        return True

    # --- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Now and then: those who are behind may have room again."""
        if self._behind:
            self._wakeup.set()
        self._answer_askers()

    def progress_round(self) -> None:
        """Tell every quiet watch that asked for it how far it is."""
        for watch_id, stream in self._streams.items():
            if stream.wants_progress and not stream.active and not stream.session.outbox.crowded:
                self._tell_progress(watch_id)
            stream.active = False

    def no_leader(self) -> None:
        """This member is cut off: watches must not hang silently, their clients go elsewhere."""
        if self._streams:
            log.warning("no leader, ending watches=%d", len(self._streams))
        for watch_id in list(self._streams):
            self._end(watch_id, NoLeader())

    def _end(self, watch_id: int, error: KvError) -> None:
        stream = self._streams[watch_id]
        stream.session.outbox.add([0, stream.client_id, CANCELED, error_result(error)])
        self._remove(watch_id)

    def _remove(self, watch_id: int) -> None:
        stream = self._streams.pop(watch_id)
        del stream.session.watches[stream.client_id]
        self.hub.remove(watch_id)
        self._behind.pop(watch_id, None)
        self._progress_asked.pop(watch_id, None)


def _push(client_ids: list[int], body: bytes) -> bytes:
    """Events for one watch, or for several of a connection at once."""
    return PUSH_HEAD + pack(client_ids if client_ids[1:] else client_ids[0]) + PACKED_EVENTS + body


def _pack_events(
    events: Sequence[Event], prev_kv: bool, singles: dict[tuple[int, bool], bytes]
) -> bytes:
    """The last revision and the array of events, as they stand in a push.

    `singles` remembers packed events over several lists that share them.
    """
    parts = [pack(events[-1][1][3]), pack_array_header(len(events))]
    for event in events:
        place = (id(event), prev_kv)
        single = singles.get(place)
        if single is None:
            single = pack(event if prev_kv else (event[0], event[1], None))
            singles[place] = single
        parts.append(single)
    return b"".join(parts)
