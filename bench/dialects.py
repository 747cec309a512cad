"""What a load says on a connection: raftkv's own protocol, or etcd's.

A dialect owns one connection's bytes and no socket. The load names virtual clients by small
numbers, each with at most one request in flight; the dialect turns them into requests, and bytes
from the server into the numbers of those that were answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bench import grpc_frames, protobuf
from raftkv.wire.framing import FrameReader, encode, flatten
from raftkv.wire.protocol import MAX_FRAME_FROM_MEMBER, VERSION, is_error

__all__ = ["DIALECTS", "Dialect", "Refused", "Request"]

Request = tuple[str, bytes, bytes]
"""`("put", key, value)`, or `("get", key, b"")`: a linearizable read."""


class Refused(Exception):
    """The server answered with an error, or with nonsense."""


class Dialect(Protocol):
    def begin(self) -> bytes:
        """What is sent first."""
        ...

    def ask(self, asking: Sequence[tuple[int, Request]]) -> bytes:
        """The requests of some clients, as bytes to be sent at once."""
        ...

    def take(self, data: bytes) -> tuple[list[int], bytes]:
        """Which clients were answered by these bytes, and what to send back. Raises Refused."""
        ...


class Raftkv:
    """`raftkv.wire.protocol`: requests that are ready together share a frame."""

    def __init__(self) -> None:
        self._reader = FrameReader(MAX_FRAME_FROM_MEMBER)

    def begin(self) -> bytes:
        return encode([[1 << 40, "hello", VERSION]])

    def ask(self, asking: Sequence[tuple[int, Request]]) -> bytes:
        return encode([_RAFTKV[request[0]](client, request) for client, request in asking])

    def take(self, data: bytes) -> tuple[list[int], bytes]:
        answered = []
        for request_id, result in flatten(self._reader.feed(data)):
            if is_error(result):
                raise Refused(f"{result[1]}: {result[2]}")
            if request_id < 1 << 40:
                if result[0] == []:
                    raise Refused("a key that was put is not there")
                answered.append(request_id - 1)
        return answered, b""


def _raftkv_put(client: int, request: Request) -> list[Any]:
    return [client + 1, "put", request[1], request[2], 0, False]


def _raftkv_get(client: int, request: Request) -> list[Any]:
    return [client + 1, "range", request[1], None, 0, 0, 0]


_RAFTKV = {"put": _raftkv_put, "get": _raftkv_get}


class Etcd:
    """etcd's gRPC: each request is a stream of its own, as its own clients send them."""

    SMALLEST_FOUND = 100
    """The answer to a get that found nothing is a header alone, of less than so many bytes."""

    def __init__(self) -> None:
        self._grpc = grpc_frames.Connection()
        self._gets: set[int] = set()

    def begin(self) -> bytes:
        return self._grpc.begin()

    def ask(self, asking: Sequence[tuple[int, Request]]) -> bytes:
        calls = []
        for client, (op, key, value) in asking:
            path, message = _ETCD[op](key, value)
            calls.append((client, path, message))
        return self._grpc.call(calls)

    def take(self, data: bytes) -> tuple[list[int], bytes]:
        try:
            answers, back = self._grpc.take(data)
        except grpc_frames.Broken as error:
            raise Refused(str(error)) from error
        for _, path, size in answers:
            if path == GET_PATH and size < self.SMALLEST_FOUND:
                raise Refused("a key that was put is not there")
        return [client for client, _, _ in answers], back


PUT_PATH, GET_PATH = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range"


def _etcd_put(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    return PUT_PATH, protobuf.field(1, key) + protobuf.field(2, value)


def _etcd_get(key: bytes, _: bytes) -> tuple[bytes, bytes]:
    return GET_PATH, protobuf.field(1, key)


_ETCD = {"put": _etcd_put, "get": _etcd_get}

DIALECTS: dict[str, Callable[[], Dialect]] = {"raftkv": Raftkv, "etcd": Etcd}
