"""Just enough gRPC over a Unix socket: a server of unary methods, and calls, one a connection.

HTTP/2 is the `h2` library's (an optional one: the extra `devices`). Messages are bytes here. What
plugins send is bounded by MESSAGE_BYTES_MAX.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

__all__ = ["GrpcError", "Handler", "serve_connection", "stream_call", "unary_call"]

Handler = Callable[[bytes], Awaitable[bytes]]
PREFIX: Final = struct.Struct(">BI")
RECEIVE_BYTES: Final = 64 * 1024
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
WINDOW_BYTES: Final = 64 * 1024 - 1
UNIMPLEMENTED, INVALID_ARGUMENT = 12, 3
CONTENT_TYPE: Final = ("content-type", "application/grpc")


class GrpcError(Exception):
    """A call that failed, or a peer that does not speak gRPC; the text is for logs and events."""


def _frame(message: bytes) -> bytes:
    return PREFIX.pack(0, len(message)) + message


def _messages(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole messages out of a buffer. Raises GrpcError."""
    while len(buffer) >= PREFIX.size:
        packed, size = PREFIX.unpack_from(buffer)
        if packed or size > MESSAGE_BYTES_MAX:
            raise GrpcError(f"a message of {size} bytes, or compressed")
        if len(buffer) < PREFIX.size + size:
            return
        yield bytes(buffer[PREFIX.size : PREFIX.size + size])
        del buffer[: PREFIX.size + size]


async def unary_call(path: str, method: str, request: bytes) -> bytes:
    """The answer of a method. Raises GrpcError, OSError."""
    async with aclosing(stream_call(path, method, request)) as answers:
        async for answer in answers:
            return answer
    raise GrpcError(f"{method}: no answer")


async def stream_call(path: str, method: str, request: bytes) -> AsyncGenerator[bytes]:
    """The answers of a method, as they come, until its end. Raises GrpcError, OSError."""
    if len(request) > WINDOW_BYTES - PREFIX.size:
        raise GrpcError(f"{method}: a request of {len(request)} bytes")
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        CONTENT_TYPE,
        ("te", "trailers"),
        ("user-agent", "k8slite"),
    ]
    connection.send_headers(1, headers)
    connection.send_data(1, _frame(request), end_stream=True)
    buffer = bytearray()
    async with await trio.open_unix_socket(path) as stream:
        while True:
            try:
                await stream.send_all(connection.data_to_send())
                data = await stream.receive_some(RECEIVE_BYTES)
                events = connection.receive_data(bytes(data)) if data else []
            except (trio.BrokenResourceError, ProtocolError) as error:
                raise GrpcError(f"{method}: {error}") from error
            if not data:
                raise GrpcError(f"{method}: the connection was closed")
            for event in events:
                if isinstance(event, DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                    buffer += event.data or b""
                    for message in _messages(buffer):
                        yield message
                elif isinstance(event, (ResponseReceived, TrailersReceived)):
                    _check(method, _text(event.headers))
                elif isinstance(event, (StreamReset, ConnectionTerminated)):
                    raise GrpcError(f"{method}: {event}")
                elif isinstance(event, StreamEnded):
                    return


def _text(headers: Iterable[tuple[Any, Any]] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers or ()}


def _check(method: str, headers: Mapping[str, str]) -> None:
    status = headers.get("grpc-status", "0")
    if status != "0":
        raise GrpcError(f"{method}: status {status}: {headers.get('grpc-message', '')}")


async def serve_connection(stream: trio.abc.Stream, handlers: Mapping[str, Handler]) -> None:
    """Answer the calls of one client, one after the other, until it leaves.

    A handler's GrpcError becomes the outcome of its call. Raises GrpcError for what is no gRPC.
    """
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    calls: dict[int, tuple[str, bytearray]] = {}
    while True:
        await stream.send_all(connection.data_to_send())
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            return
        try:
            events = connection.receive_data(bytes(data))
        except ProtocolError as error:
            raise GrpcError(str(error)) from error
        for event in events:
            if isinstance(event, RequestReceived):
                path = _text(event.headers)[":path"]
                calls[event.stream_id or 0] = path, bytearray()
            elif isinstance(event, DataReceived):
                stream_id = event.stream_id or 0
                connection.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
                calls[stream_id][1].extend(event.data or b"")
                if len(calls[stream_id][1]) > MESSAGE_BYTES_MAX:
                    raise GrpcError("a request that is too large")
            elif isinstance(event, StreamReset):
                calls.pop(event.stream_id or 0, None)
            elif isinstance(event, StreamEnded):
                stream_id = event.stream_id or 0
                await _answer(connection, stream_id, *calls.pop(stream_id), handlers)


async def _answer(
    connection: H2Connection,
    stream_id: int,
    path: str,
    body: bytearray,
    handlers: Mapping[str, Handler],
) -> None:
    outcome = [("grpc-status", "0")]
    head = [(":status", "200"), CONTENT_TYPE]
    handler = handlers.get(path)
    answer = b""
    if handler is None:
        outcome = [("grpc-status", str(UNIMPLEMENTED)), ("grpc-message", "unknown method")]
    else:
        try:
            [request] = _messages(body)
            answer = await handler(request)
        except (GrpcError, ValueError) as error:
            text = str(error).encode("ascii", "replace").decode().replace("\n", " ")
            outcome = [("grpc-status", str(INVALID_ARGUMENT)), ("grpc-message", text)]
    if outcome[0][1] != "0":
        connection.send_headers(stream_id, [*head, *outcome], end_stream=True)
        return
    connection.send_headers(stream_id, head)
    connection.send_data(stream_id, _frame(answer))
    connection.send_headers(stream_id, outcome, end_stream=True)
