"""What a gRPC call is to its handler: requests, metadata, deadline; and how it may fail. Pure.

gRPC as its specification describes it for HTTP/2 ("gRPC over HTTP2", protocol version 1): the
path names the method, each message has five bytes before it, the outcome comes in trailers.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple
from urllib.parse import quote

__all__ = [
    "MESSAGE_BYTES_MAX",
    "Handler",
    "Headers",
    "Method",
    "RpcError",
    "Status",
    "frame",
    "outcome_headers",
    "split_messages",
    "timeout_of",
    "unknown_method",
]

Headers = list[tuple[bytes, bytes]]
Handler = Callable[..., Awaitable[Any]]

MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""The largest message taken: etcd's largest request, and what gRPC needs beside it."""
PREFIX: Final = struct.Struct(">BI")
TIMEOUT_UNITS: Final = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}


class Status(IntEnum):
    """gRPC's status codes, those that are used here."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class RpcError(Exception):
    """A call that ends with another status than OK."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Method(NamedTuple):
    """One method of a service.

    `request` is the message class. `handler(call, request)` gives the response of a unary method;
    `handler(call)` of a streaming one receives and sends as it likes.
    """

    request: Any
    handler: Handler
    streams: bool = False


def frame(message: bytes) -> bytes:
    """A message as it stands in the stream, not compressed."""
    return PREFIX.pack(0, len(message)) + message


def split_messages(buffer: bytearray) -> list[bytes]:
    """Take the whole messages off the beginning of the buffer.

    Raises RpcError: compressed, or too large.
    """
    found = []
    while len(buffer) >= PREFIX.size:
        compressed, length = PREFIX.unpack_from(buffer)
        if compressed:
            raise RpcError(Status.UNIMPLEMENTED, "grpc: compressed messages are not supported")
        if length > MESSAGE_BYTES_MAX:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED,
                f"grpc: received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})",
            )
        end = PREFIX.size + length
        if len(buffer) < end:
            break
        found.append(bytes(buffer[PREFIX.size : end]))
        del buffer[:end]
    return found


def timeout_of(value: bytes) -> float:
    """Seconds of a `grpc-timeout` header. Raises RpcError."""
    digits, unit = value[:-1], TIMEOUT_UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > 8:
        raise RpcError(Status.INTERNAL, f"malformed grpc-timeout: {value!r:.40}")
    return int(digits) * unit


def outcome_headers(status: Status, message: str) -> Headers:
    """The trailers that end a call; the message is percent-encoded."""
    headers = [(b"grpc-status", b"%d" % status)]
    if message:
        headers.append(
            (b"grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]\"<>\\^`{|}").encode())
        )
    return headers


def unknown_method(path: str, methods: Mapping[str, Method]) -> RpcError:
    """Says whether it is the service or the method that isn't there."""
    service, _, name = path.removeprefix("/").rpartition("/")
    if any(known.startswith(f"/{service}/") for known in methods):
        return RpcError(Status.UNIMPLEMENTED, f"unknown method {name} for service {service}")
    return RpcError(Status.UNIMPLEMENTED, f"unknown service {service}")
