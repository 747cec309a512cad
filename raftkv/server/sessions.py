"""Client connections: bytes to requests, requests to the inbox, results back to bytes.

One task per connection reads big chunks and decodes every frame in them at once; one task sends
whatever has gathered. There's no task, no wait and no future per request: a request is handed on
together with its session and its id, and whoever has the result calls `Session.reply`.

Owns: the sessions and the table of operations. Assumes the `Service` it is given answers each
request that it took exactly once, or the session is closed. Never waits for a single request.

Bounds: when the inbox is full, or this client doesn't read its replies (the outbox is crowded),
the session stops reading; TCP carries that back to the client. A request that had arrived by then
and would be answered with many bytes is refused (`UNSENT_BYTES_MAX`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any, Protocol

import trio

from raftkv.errors import InvalidRequest, KvError, NotCapable, RequestTooLarge, TooManyRequests
from raftkv.host import Listener, Tls
from raftkv.mvcc.commands import is_read_only, validate
from raftkv.server.inbox import Inbox, Proposal, Read, Reader
from raftkv.server.reading import SWAMPED, check_arguments
from raftkv.streams import GONE, Flusher, Outbox, receive, secured
from raftkv.wire.framing import FrameReader, ProtocolError, pack
from raftkv.wire.protocol import (
    MAX_FRAME_FROM_CLIENT,
    MAX_REQUEST_BYTES,
    SERIALIZABLE,
    VERSION,
    WRITES,
    error_result,
)

__all__ = ["Service", "Session", "Sessions"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024  # of more, each read would ask the kernel for memory and give it back
SESSIONS_MAX = 4_096
HELLO_SECONDS = 10.0
FAREWELL_SECONDS = 1.0
UNSENT_BYTES_MAX = 64 * 1024 * 1024
"""With more than that to be sent, what was asked before reading stopped is refused too."""


class Service(Protocol):
    """What sessions need of the member behind them; everything here is synchronous."""

    inbox: Inbox

    def hello(self) -> list[Any]: ...
    def refusal(self) -> KvError | None:
        """Why proposals and reads can't be taken now, if so."""
        ...

    def new_lease_id(self) -> int: ...
    def range_now(self, arguments: list[Any]) -> list[Any]:
        """A serializable range. Raises KvError."""
        ...

    def watch(self, session: Session, request_id: int, arguments: list[Any]) -> None: ...
    def watch_cancel(self, session: Session, request_id: int, arguments: list[Any]) -> None: ...
    def watch_progress(self, session: Session, request_id: int, arguments: list[Any]) -> None: ...
    def forget(self, session: Session) -> None:
        """The session is over: its watches end."""
        ...

    def snapshot_open(self, session: Session) -> list[Any]: ...
    def snapshot_read(self, session: Session) -> list[Any]: ...
    def hash(self, session: Session, request_id: int, revision: int) -> None:
        """Answers when it is done, which takes a while."""
        ...

    def status(self) -> dict[str, Any]: ...
    def members(self) -> list[Any]: ...
    def move_leader(self, session: Session, request_id: int, to: int) -> None: ...
    def change_membership(self, session: Session, request_id: int, command: list[Any]) -> None: ...


class Session(Reader):
    """One client connection."""

    __slots__ = ("greeted", "number", "outbox", "stream", "watches")

    def __init__(self, number: int, stream: trio.abc.Stream, flusher: Flusher) -> None:
        self.number = number
        self.stream = stream
        self.outbox = Outbox(flusher)
        self.greeted = False
        self.watches: dict[int, int] = {}  # the client's watch id -> the hub's

    @property
    def swamped(self) -> bool:
        return self.outbox.unsent_bytes > UNSENT_BYTES_MAX

    def reply(self, request_id: int, result: Any) -> None:
        self.outbox.add([request_id, result])

    def reply_packed(self, request_id: int, result: Any) -> None:
        """A result that may be large: packed at once, so that its bytes count."""
        self.outbox.add_packed(pack([request_id, result]))

    def fail(self, request_id: int, error: KvError) -> None:
        self.outbox.add([request_id, error_result(error)])


class Sessions:
    """Accepts client connections and serves them until cancelled."""

    def __init__(self, service: Service, tls: Tls | None, flusher: Flusher) -> None:
        self._service = service
        self._tls = tls
        self._flusher = flusher
        self._count = 0
        self._numbers = 0
        self._nursery: trio.Nursery | None = None
        self._handlers: dict[str, Callable[[Session, int, list[Any]], None]] = {
            "range": self._range,
            "revision": self._read,
            "lease_keep_alive": self._read,
            "lease_time_to_live": self._read,
            "leases": self._read,
            "watch": service.watch,
            "watch_cancel": service.watch_cancel,
            "watch_progress": service.watch_progress,
            "status": lambda session, rid, _: session.reply(rid, [service.status()]),
            "members": self._members,
            "move_leader": self._move_leader,
            "member_add": self._change_membership,
            "member_remove": self._change_membership,
            "member_promote": self._change_membership,
            "hash": self._hash,
            "snapshot_open": lambda session, rid, _: session.reply(
                rid, service.snapshot_open(session)
            ),
            "snapshot_read": lambda session, rid, _: session.reply_packed(
                rid, service.snapshot_read(session)
            ),
            "hello": self._hello,
        }

    @property
    def count(self) -> int:
        return self._count

    async def serve(self, listener: Listener) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._flusher.run)
            context = self._tls.server if self._tls else None
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # out of descriptors, or the peer is gone already
                    log.warning("accept failed error=%s", error)
                    await trio.sleep(0.1)
                    continue
                if self._count >= SESSIONS_MAX:
                    log.warning("connection refused sessions=%d", self._count)
                    await trio.aclose_forcefully(stream)
                    continue
                self._count += 1
                nursery.start_soon(self._serve_one, secured(stream, context))

    def attach(self, stream: trio.abc.Stream) -> None:
        """Serve a client in this process, over a stream that needs no TLS. Raises OSError."""
        assert self._nursery is not None
        if self._count >= SESSIONS_MAX:
            raise OSError(errno.EMFILE, f"{SESSIONS_MAX} connections are open already")
        self._count += 1
        self._nursery.start_soon(self._serve_one, stream)

    async def _serve_one(self, stream: trio.abc.Stream) -> None:
        self._numbers += 1
        session = Session(self._numbers, stream, self._flusher)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, session, nursery.cancel_scope)
                await self._read_all(session)
                with trio.move_on_after(FAREWELL_SECONDS):
                    while not session.outbox.idle:  # e.g. the error that ended it
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        finally:
            self._count -= 1
            self._service.forget(session)
            await trio.aclose_forcefully(session.stream)

    async def _write(self, session: Session, scope: trio.CancelScope) -> None:
        try:
            await session.outbox.drain(session.stream)
        except GONE:
            scope.cancel()

    async def _read_all(self, session: Session) -> None:
        """Until the client is gone or no longer makes sense."""
        reader = FrameReader(MAX_FRAME_FROM_CLIENT)
        service, outbox, stream = self._service, session.outbox, session.stream
        try:
            while True:
                if session.greeted:
                    data = await receive(stream, CHUNK_BYTES)
                else:
                    with trio.move_on_after(HELLO_SECONDS) as patience:
                        data = await receive(stream, CHUNK_BYTES)
                    if patience.cancelled_caught:
                        return
                if not data:
                    return
                for size, messages in reader.feed(data):
                    self._take(session, messages, size > MAX_REQUEST_BYTES)
                if service.inbox.full:
                    await service.inbox.wait_room()
                if outbox.crowded:
                    await outbox.wait_room()
        except GONE:
            return
        except ProtocolError as error:
            log.info("closing connection session=%d error=%s", session.number, error)
            session.fail(0, error)

    def _take(self, session: Session, messages: list[Any], large: bool) -> None:
        """Hand on the requests of one frame. Raises ProtocolError."""
        inbox = self._service.inbox
        proposals = []
        refusal = self._service.refusal()
        for message in messages:
            if len(message) < 2 or type(message[0]) is not int or type(message[1]) is not str:
                raise ProtocolError("a request is [id, op, ...]")
            request_id = message[0]
            try:
                if not session.greeted and message[1] != "hello":
                    raise ProtocolError("the first request on a connection is hello")
                if message[1] in WRITES:
                    if large and len(pack(message)) > MAX_REQUEST_BYTES:
                        raise RequestTooLarge(
                            f"{RequestTooLarge.text}: the limit is {MAX_REQUEST_BYTES} bytes"
                        )
                    command = message[1:]
                    if command[0] == "lease_grant" and command[1:2] == [0]:
                        command[1] = self._service.new_lease_id()
                    validate(command)
                    if refusal is not None:
                        raise refusal
                    if command[0] == "txn" and is_read_only(command):
                        inbox.reads.append(Read(session, request_id, "txn", command))
                        inbox.wake()
                    else:
                        proposals.append(Proposal(session, request_id, command))
                else:
                    handler = self._handlers.get(message[1])
                    if handler is None:
                        raise NotCapable(f"unknown operation {message[1]!r:.50}")
                    handler(session, request_id, message)
            except ProtocolError:
                raise
            except KvError as error:
                session.fail(request_id, error)
        if proposals:
            inbox.propose(proposals)

    def _hello(self, session: Session, request_id: int, message: list[Any]) -> None:
        if message[2:3] != [VERSION]:
            raise ProtocolError(f"this member speaks version {VERSION} of the protocol")
        session.greeted = True
        session.reply(request_id, self._service.hello())

    def _range(self, session: Session, request_id: int, message: list[Any]) -> None:
        if len(message) != 7 or not _are_integers(message[4:]):
            raise InvalidRequest("range has 5 arguments: key, end, limit, revision, options")
        validate(["delete", message[2], message[3], False])  # its checks of key and end
        if message[6] & SERIALIZABLE:
            if session.swamped:
                raise TooManyRequests(SWAMPED)
            session.reply_packed(request_id, self._service.range_now(message[2:]))
        else:
            self._read(session, request_id, message)

    def _read(self, session: Session, request_id: int, message: list[Any]) -> None:
        refusal = self._service.refusal()
        if refusal is not None:
            raise refusal
        if message[1] != "range":
            check_arguments(message[1], message[2:])
        inbox = self._service.inbox
        inbox.reads.append(Read(session, request_id, message[1], message[2:]))
        inbox.wake()

    def _move_leader(self, session: Session, request_id: int, message: list[Any]) -> None:
        if not _are_integers(message[2:]) or len(message) != 3:
            raise InvalidRequest("move_leader has one argument, a member id")
        self._service.move_leader(session, request_id, message[2])

    def _members(self, session: Session, request_id: int, message: list[Any]) -> None:
        if len(message) != 3 or type(message[2]) is not bool:
            raise InvalidRequest("members has one argument: whether it is to be linearizable")
        if not message[2]:
            session.reply(request_id, self._service.members())
            return
        refusal = self._service.refusal()
        if refusal is not None:
            raise refusal
        inbox = self._service.inbox
        inbox.reads.append(Read(session, request_id, "members", [self._service.members]))
        inbox.wake()

    def _hash(self, session: Session, request_id: int, message: list[Any]) -> None:
        if not _are_integers(message[2:]) or len(message) != 3:
            raise InvalidRequest("hash has one argument, a revision")
        self._service.hash(session, request_id, message[2])

    def _change_membership(self, session: Session, request_id: int, message: list[Any]) -> None:
        command = message[1:]
        if command[0] == "member_promote":
            if len(command) != 2 or not _are_integers(command[1:]):
                raise InvalidRequest("member_promote has one argument, a member id")
        else:
            validate(command)
        self._service.change_membership(session, request_id, command)


def _are_integers(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
