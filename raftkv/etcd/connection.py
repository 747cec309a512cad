"""One HTTP/2 connection with gRPC calls on it, in the member's own event loop.

The `h2` library knows HTTP/2; here are the tasks around it. One reads: it feeds the library and
hands messages to calls. One writes whatever has gathered. Each call has a task, for its handler
may wait. All run in one thread, so nothing needs a lock but the messages of a call that two tasks
send on.

Bounds: the library's windows bound what a client may send ahead (`REQUEST_WINDOW` a call), and
what is sent to it: a handler waits in `Call.send` while the client doesn't read. Requests that are
not whole yet take at most `GATHERED_BYTES_MAX` a connection; beyond that they are refused. From who
reads no answers nothing is read (`READ_AHEAD_BYTES_MAX`), and who is silent is asked (`_guard`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from raftkv.errors import KvError
from raftkv.etcd.outcomes import rpc_error
from raftkv.etcd.rpc import (
    Headers,
    Method,
    RpcError,
    Status,
    frame,
    outcome_headers,
    split_messages,
    timeout_of,
    unknown_method,
)
from raftkv.streams import GONE, Wakeup, receive

__all__ = ["Call", "GrpcConnection"]

log = logging.getLogger(__name__)
logging.getLogger("hpack").setLevel(logging.INFO)  # else it tells each header

CHUNK_BYTES = 64 * 1024
PREFACE_SECONDS = 10.0
CALLS_MAX = 2_048
REQUEST_WINDOW = 1024 * 1024
CONNECTION_WINDOW = 64 * 1024 * 1024
SETTINGS: Final = {
    SettingCodes.MAX_CONCURRENT_STREAMS: CALLS_MAX,
    SettingCodes.INITIAL_WINDOW_SIZE: REQUEST_WINDOW,
    SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,
}
GATHERED_BYTES_MAX = 64 * 1024 * 1024
UNSENT_BYTES_MAX = 1024 * 1024
"""With more than that not yet taken by the system, who wants to send waits."""
READ_AHEAD_BYTES_MAX = 1024 * 1024
"""What a client may make us answer before it reads an answer."""
QUIET_SECONDS = 60.0
PING_SECONDS = 20.0
ONE_REQUEST: Final = "grpc: a unary call has one request, and a whole one"
ANSWER: Final = [(b":status", b"200"), (b"content-type", b"application/grpc")]
NO_GRPC: Final = [(b":status", b"415")]


class Call:
    """One call of a client. Handlers use `receive`, `send` and `require_leader`."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_ended",
        "_held_back",
        "_lock",
        "_news",
        "_requests",
        "answered",
        "id",
        "method",
        "require_leader",
        "scope",
    )

    def __init__(
        self, connection: GrpcConnection, stream_id: int, method: Method, headers: Headers
    ) -> None:
        self._connection = connection
        self.id = stream_id
        self.method = method
        self.answered = False
        self.require_leader = False
        """Whether the client would rather have no answer than one of a member without a leader."""
        deadline = inf
        for name, value in headers:
            if name == b"grpc-timeout":
                deadline = trio.current_time() + timeout_of(value)
            elif name == b"hasleader":
                self.require_leader = value == b"true"
        self.scope = trio.CancelScope(deadline=deadline)
        self._buffer = bytearray()
        self._requests: deque[Any] = deque()
        self._held_back = 0  # bytes that the client may send again once a request was taken
        self._ended = False
        self._news = trio.Event()
        self._lock = trio.Lock()

    async def receive(self) -> Any | None:
        """The next request of a streaming call; None: there will be no more."""
        while not self._requests:
            if self._ended:
                return None
            self._news = trio.Event()
            await self._news.wait()
        request = self._requests.popleft()
        if not self._requests and self._held_back:
            self._connection.acknowledge(self.id, self._held_back)
            self._held_back = 0
        return request

    async def send(self, response: Any) -> None:
        """A response of a streaming call; waits while the client doesn't read."""
        async with self._lock:
            await self._connection.send(self, response.SerializeToString())

    # --- for the connection ---------------------------------------------------------------------

    @property
    def gathered(self) -> int:
        return len(self._buffer)

    def take(self, data: bytes, controlled: int) -> bool:
        """Bytes of requests; whether the client may send as many again now. Raises RpcError."""
        self._buffer += data
        for message in split_messages(self._buffer):
            try:
                self._requests.append(self.method.request.FromString(message))
            except DecodeError as error:
                raise RpcError(
                    Status.INTERNAL, f"grpc: error unmarshalling request: {error}"
                ) from error
        if not self.method.streams:
            if len(self._requests) > 1:
                raise RpcError(Status.INTERNAL, ONE_REQUEST)
            return True
        if not self._requests:
            return True
        self._held_back += controlled
        self._news.set()
        return False

    def end(self) -> None:
        """The client has sent everything."""
        self._ended = True
        self._news.set()

    def only_request(self) -> Any:
        """That of a unary call. Raises RpcError."""
        if len(self._requests) != 1 or self._buffer:
            raise RpcError(Status.INTERNAL, ONE_REQUEST)
        return self._requests[0]


class GrpcConnection:
    """Serves the methods to one client, until it is gone."""

    def __init__(self, stream: trio.abc.Stream, methods: Mapping[str, Method]) -> None:
        self._stream = stream
        self._methods = methods
        self._h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,  # none of them is passed on to anybody
                normalize_outbound_headers=False,
                validate_outbound_headers=False,
            )
        )
        self._calls: dict[int, Call] = {}
        self._wakeup = Wakeup()
        self._unsent = 0
        self._room = trio.lowlevel.ParkingLot()
        self._sending = False
        self._read_ahead = 0  # bytes since the last time that all was sent
        self._greeted = False
        self._heard_at = trio.current_time()

    async def run(self) -> None:
        h2 = self._h2
        h2.local_settings = Settings(client=False, initial_values=SETTINGS)
        h2.initiate_connection()
        h2.increment_flow_control_window(CONNECTION_WINDOW)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            nursery.start_soon(self._guard, nursery.cancel_scope)
            await self._read(nursery)
            nursery.cancel_scope.cancel()

    # --- in -------------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            while self._sending and self._read_ahead > READ_AHEAD_BYTES_MAX:
                await self._room.park()
            try:
                if self._greeted:
                    data = await receive(self._stream, CHUNK_BYTES)
                else:
                    with trio.move_on_after(PREFACE_SECONDS) as patience:
                        data = await receive(self._stream, CHUNK_BYTES)
                    if patience.cancelled_caught:
                        return
                if not data:
                    return
                self._heard_at = trio.current_time()
                self._read_ahead += len(data)
                events = self._h2.receive_data(bytes(data))
            except GONE:
                return
            except ProtocolError as error:
                log.info("closing a connection that breaks HTTP/2: %s", error)
                self._wakeup.set()
                await trio.lowlevel.checkpoint()
                return
            for event in events:
                if isinstance(event, ConnectionTerminated):
                    return
                self._handle(event, nursery)
            self._wakeup.set()

    def _handle(self, event: Event, nursery: trio.Nursery) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, RequestReceived):
            self._open(event, nursery)
        elif isinstance(event, StreamEnded):
            self._ended(event, nursery)
        elif isinstance(event, StreamReset):
            call = self._calls.pop(event.stream_id or 0, None)
            if call is not None:
                call.scope.cancel()
                self._room.unpark_all()
        elif isinstance(event, WindowUpdated):
            self._room.unpark_all()
        elif isinstance(event, SettingsAcknowledged):
            self._greeted = True

    def _open(self, event: RequestReceived, nursery: trio.Nursery) -> None:
        headers: Headers = list(event.headers or ())
        stream_id = event.stream_id or 0
        fields = dict(headers)
        if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
            self._h2.send_headers(stream_id, NO_GRPC, end_stream=True)
            return
        path = fields.get(b":path", b"").decode("ascii", "replace")
        try:
            method = self._methods.get(path)
            if method is None:
                raise unknown_method(path, self._methods)
            call = Call(self, stream_id, method, headers)
        except RpcError as error:
            outcome = outcome_headers(error.status, str(error))
            self._h2.send_headers(stream_id, ANSWER + outcome, end_stream=True)
            return
        self._calls[stream_id] = call
        if method.streams:
            nursery.start_soon(self._run, call, None)

    def _data(self, event: DataReceived) -> None:
        stream_id, controlled = event.stream_id or 0, event.flow_controlled_length or 0
        call = self._calls.get(stream_id)
        if call is None:
            self.acknowledge(stream_id, controlled)
            return
        try:
            if call.take(event.data or b"", controlled):
                self.acknowledge(stream_id, controlled)
            if call.gathered and self._gathered() > GATHERED_BYTES_MAX:
                raise RpcError(Status.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        except RpcError as error:
            call.scope.cancel()
            self._finish(call, error.status, str(error))

    def _gathered(self) -> int:
        return sum(call.gathered for call in self._calls.values())

    def _ended(self, event: StreamEnded, nursery: trio.Nursery) -> None:
        call = self._calls.get(event.stream_id or 0)
        if call is None:
            return
        call.end()
        if not call.method.streams:
            try:
                request = call.only_request()
            except RpcError as error:
                self._finish(call, error.status, str(error))
            else:
                nursery.start_soon(self._run, call, request)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """The client may send as many bytes again."""
        if size:
            try:
                self._h2.acknowledge_received_data(size, stream_id)
            except H2Error:  # the connection is about to end
                return
            self._wakeup.set()

    # --- calls ----------------------------------------------------------------------------------

    async def _run(self, call: Call, request: Any | None) -> None:
        """The task of one call."""
        status, message = Status.OK, ""
        with call.scope:
            try:
                if call.method.streams:
                    await call.method.handler(call)
                else:
                    response = await call.method.handler(call, request)
                    await self.send(call, response.SerializeToString())
            except RpcError as error:
                status, message = error.status, str(error)
            except KvError as error:
                found = rpc_error(error)
                status, message = found.status, str(found)
        if call.scope.cancelled_caught:
            status, message = Status.DEADLINE_EXCEEDED, "context deadline exceeded"
        self._finish(call, status, message)

    async def send(self, call: Call, message: bytes) -> None:
        """A message, as fast as the client takes it."""
        data = memoryview(frame(message))
        h2, stream_id = self._h2, call.id
        while self._unsent > UNSENT_BYTES_MAX:
            await self._room.park()
        try:
            if not call.answered:
                call.answered = True
                h2.send_headers(stream_id, ANSWER)
            while data:
                window = h2.local_flow_control_window(stream_id)
                if window <= 0 or self._unsent > UNSENT_BYTES_MAX:
                    await self._room.park()
                    continue
                size = min(window, h2.max_outbound_frame_size, len(data))
                h2.send_data(stream_id, bytes(data[:size]))
                self._unsent += size
                self._wakeup.set()
                data = data[size:]
        except H2Error:  # the client has given the call up; its reset is being read
            call.scope.cancel()
            await trio.lowlevel.checkpoint()

    def _finish(self, call: Call, status: Status, message: str) -> None:
        """End a call, unless it has ended: the client may have gone away meanwhile."""
        if self._calls.pop(call.id, None) is None:
            return
        outcome = outcome_headers(status, message)
        try:
            self._h2.send_headers(
                call.id, outcome if call.answered else ANSWER + outcome, end_stream=True
            )
        except H2Error:
            return
        self._wakeup.set()

    # --- out ------------------------------------------------------------------------------------

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                data = self._h2.data_to_send()
                if not data:
                    await self._wakeup.wait()
                    continue
                taken = self._unsent
                self._read_ahead = 0
                self._sending = True
                await self._stream.send_all(data)
                self._sending = False
                self._unsent -= taken
                self._room.unpark_all()
        except GONE:
            scope.cancel()

    async def _guard(self, scope: trio.CancelScope) -> None:
        """Notice a client whose machine is gone: TCP alone would keep its watches for ever."""
        while True:
            await trio.sleep(QUIET_SECONDS)
            asked_at = trio.current_time()
            if asked_at - self._heard_at < QUIET_SECONDS:
                continue
            self._h2.ping(bytes(8))
            self._wakeup.set()
            await trio.sleep(PING_SECONDS)
            if self._heard_at < asked_at:
                log.info("closing a connection that is silent")
                scope.cancel()
