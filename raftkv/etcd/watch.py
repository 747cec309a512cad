"""The Watch service: one call carries many watches; so does a connection to the member.

Each call has its own connection, so that whatever holds it back (a client that doesn't read) is
felt by the member exactly as with a client of its own: the watches fall behind, read history later,
and end with a compaction that was faster. Nothing gathers here.

One task reads what the client asks, one reads what the member tells; only the latter sends
responses, in the member's order: created before events, progress never before what it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from raftkv.errors import Compacted, KvError, NoLeader, Unavailable
from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.outcomes import rpc_error
from raftkv.etcd.rpc import Method
from raftkv.etcd.schema import MESSAGES
from raftkv.etcd.translate import event
from raftkv.streams import GONE, only_error, receive
from raftkv.wire.framing import FrameReader, encode
from raftkv.wire.protocol import (
    ALL_WATCHES,
    CANCELED,
    EVENTS,
    MAX_FRAME_FROM_MEMBER,
    MAX_REQUEST_BYTES,
    NO_DELETE,
    NO_PUT,
    PREV_KV,
    PROGRESS,
    error_of,
    is_error,
)

__all__ = ["watch_methods"]

CHUNK_BYTES: Final = 64 * 1024
NO_WATCH: Final = -1
"""The id in responses about no watch, or about all of them."""
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
FILTERS: Final = {0: NO_PUT, 1: NO_DELETE}
WatchResponse: Final = MESSAGES["WatchResponse"]


def watch_methods(member: Member) -> dict[str, Method]:
    async def watch(call: Call) -> None:
        await WatchCall(call, member).run()

    return {
        "/etcdserverpb.Watch/Watch": Method(
            MESSAGES["WatchRequest"], member.led(watch), streams=True
        )
    }


@attrs.define(eq=False, slots=True)
class Watching:
    """One watch: its id as the client knows it."""

    id: int
    fragment: bool


class WatchCall:
    """One call of the service. Watches have numbers of our own on the member's connection, since
    a client may choose any id, and an id anew once it is free."""

    def __init__(self, call: Call, member: Member) -> None:
        self._call = call
        self._member = member
        self._watches: dict[int, Watching] = {}  # by our number
        self._numbers: dict[int, int] = {}  # by the client's id
        self._asked: dict[int, tuple[str, int]] = {}  # request -> what was asked, of which number
        self._requests = 1
        self._watch_numbers = 0
        self._next_id = 0
        self._revision = member.local.revision

    async def run(self) -> None:
        """Until the client ends the call, or the member does. Raises RpcError."""
        stream = await self._member.open_stream()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_requests, stream)
                nursery.start_soon(self._tell, stream)
        except BaseExceptionGroup as group:
            raise only_error(group) from None
        finally:
            await trio.aclose_forcefully(stream)

    # --- what the client asks -------------------------------------------------------------------

    async def _take_requests(self, stream: trio.abc.Stream) -> None:
        while (request := await self._call.receive()) is not None:
            kind = request.WhichOneof("request_union")
            if kind == "create_request":
                await self._create(stream, request.create_request)
            elif kind == "cancel_request":
                number = self._numbers.pop(request.cancel_request.watch_id, None)
                if number is not None:
                    await self._ask(stream, number, "watch_cancel", number)
            elif kind == "progress_request":
                await self._ask(stream, ALL_WATCHES, "watch_progress", ALL_WATCHES)

    async def _create(self, stream: trio.abc.Stream, request: Any) -> None:
        key, end, id_ = request.key or b"\0", request.range_end or None, request.watch_id
        refusal = ""
        if request.start_revision < 0:
            refusal = Compacted.text
        elif end is not None and end != b"\0" and key >= end:
            refusal = EMPTY_RANGE
        elif id_ and id_ in self._numbers:
            refusal = DUPLICATE_ID
        if refusal:
            await self._refuse(refusal)
            return
        if not id_:
            id_ = self._free_id()
        options = (PREV_KV if request.prev_kv else 0) | (PROGRESS if request.progress_notify else 0)
        for each in request.filters:
            options |= FILTERS.get(each, 0)
        self._watch_numbers += 1
        number = self._watch_numbers
        self._watches[number] = Watching(id_, request.fragment)
        self._numbers[id_] = number
        await self._ask(stream, number, "watch", number, key, end, request.start_revision, options)

    def _free_id(self) -> int:
        while self._next_id in self._numbers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    async def _ask(self, stream: trio.abc.Stream, number: int, *request: Any) -> None:
        self._requests += 1
        self._asked[self._requests] = (request[0], number)
        try:
            await stream.send_all(encode([[self._requests, *request]]))
        except GONE as error:
            raise rpc_error(Unavailable(f"{Unavailable.text}: {error}")) from error

    # --- what the member tells ------------------------------------------------------------------

    async def _tell(self, stream: trio.abc.Stream) -> None:
        reader = FrameReader(MAX_FRAME_FROM_MEMBER)
        try:
            while data := await receive(stream, CHUNK_BYTES):
                for _, messages in reader.feed(data):
                    for message in messages:
                        if message[0]:
                            await self._answered(message[0], message[1])
                        else:
                            await self._pushed(message)
        except GONE as error:
            raise rpc_error(Unavailable(f"{Unavailable.text}: {error}")) from error
        raise rpc_error(Unavailable())

    async def _answered(self, request: int, result: Any) -> None:
        asked, number = self._asked.pop(request, ("", 0))
        if asked == "watch":
            watching = self._watches[number]
            error = error_of(result) if is_error(result) else None
            if error is None or isinstance(error, Compacted):
                if error is None:
                    self._seen(result[0])
                await self._send(watch_id=watching.id, created=True)
            else:
                await self._refuse(str(error))
            if error is not None:
                await self._end(number, error)
        elif asked == "watch_cancel":
            self._seen(result[0])
            watching = self._watches.pop(number)
            await self._send(watch_id=watching.id, canceled=True)

    async def _pushed(self, message: Sequence[Any]) -> None:
        _, numbers, kind, what, *rest = message
        if kind == CANCELED:
            await self._end(numbers, error_of(what))
            return
        self._seen(what)
        if kind == EVENTS:
            for number in numbers if isinstance(numbers, list | tuple) else (numbers,):
                await self._send_events(self._watches[number], rest[0])
        elif numbers == ALL_WATCHES:
            await self._send(watch_id=NO_WATCH)
        else:
            await self._send(watch_id=self._watches[numbers].id)

    async def _end(self, number: int, error: KvError) -> None:
        """A watch that is over by the member's word. Raises RpcError: so are all."""
        if isinstance(error, NoLeader):
            raise rpc_error(error)
        watching = self._watches[number]
        if isinstance(error, Compacted):
            # As in etcd, the id is free again only when the client cancels the watch as well.
            oldest = error.compact_revision
            await self._send(watch_id=watching.id, canceled=True, compact_revision=oldest)
            return
        del self._watches[number]
        if self._numbers.get(watching.id) == number:
            del self._numbers[watching.id]

    def _seen(self, revision: int) -> None:
        """What headers tell never goes down on a stream, and is only what the member told on it:
        a revision of which events are still to come would be taken for progress."""
        self._revision = max(self._revision, revision)

    async def _refuse(self, reason: str) -> None:
        await self._send(watch_id=NO_WATCH, created=True, canceled=True, cancel_reason=reason)

    async def _send(self, **fields: Any) -> None:
        header = self._member.header(self._revision)
        await self._call.send(WatchResponse(header=header, **fields))

    async def _send_events(self, watching: Watching, rows: Sequence[Any]) -> None:
        events = [event(row) for row in rows]
        if not watching.fragment:
            await self._send(watch_id=watching.id, events=events)
            return
        while events:
            size = count = 0
            for each in events:
                size += each.ByteSize()
                if count and size >= MAX_REQUEST_BYTES:
                    break
                count += 1
            part, events = events[:count], events[count:]
            await self._send(watch_id=watching.id, events=part, fragment=bool(events))
