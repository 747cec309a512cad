"""One connection to a server behind the apiserver, for one request: a kubelet, a pod, a service.

Owns: the connection until it is given away or closed. The answer's head is parsed, its body handed
on as it comes; at most one piece of READ_BYTES is held.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

import httptools
import trio

from k8slite.api.status import ApiError
from k8slite.apiserver.call import Call
from k8slite.streaming.bytes import BROKEN, ByteStream, why
from raftkv.host import Address

__all__ = ["Backend", "open_backend", "secured", "unreachable"]

READ_BYTES = 64 * 1024
HEAD_BYTES_MAX = 256 * 1024
CONNECT_SECONDS = 10.0
Header = tuple[bytes, bytes]


class Backend:
    """Made by `open_backend`. Use `request` once; then the body, or `byte_stream` after a 101."""

    def __init__(self, stream: trio.abc.Stream, address: Address) -> None:
        self.address = address
        self.status = 0
        self.headers: list[Header] = []
        self.is_complete = False
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._has_head = False
        self._head_bytes = 0
        self._early = b""

    # callbacks of httptools

    def on_message_begin(self) -> None:
        self.headers, self._head_bytes = [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = self.status == 101 or self.status >= 200

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = self._has_head

    def header(self, name: bytes) -> bytes:
        """The last value of a header of the answer (lower case), b"" if absent."""
        return next((v for n, v in reversed(self.headers) if n.lower() == name), b"")

    async def request(
        self, method: str, target: str, headers: Iterable[Header], body: bytes = b""
    ) -> None:
        """Send, and read the head of the answer. Raises BROKEN's errors."""
        lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
        lines += [b"%b: %b" % header for header in headers]
        await self._stream.send_all(b"\r\n".join([*lines, b"", b""]) + body)
        while not self._has_head:
            if not await self.read():
                raise trio.BrokenResourceError("the connection was closed before the answer")
            if self._head_bytes > HEAD_BYTES_MAX:
                raise trio.BrokenResourceError("the answer's headers are too large")

    def take(self) -> bytes:
        """The body received since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    async def read(self) -> bool:
        """Receive some; False at the end. Raises BROKEN's errors."""
        data = bytes(await self._stream.receive_some(READ_BYTES))
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._early = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                raise trio.BrokenResourceError("the answer is not HTTP") from error
        return bool(data)

    async def read_rest(self, bytes_max: int) -> bytes:
        """The whole body, or as much of it as wanted. Raises BROKEN's errors."""
        parts: list[bytes] = []
        size = 0
        while size < bytes_max:
            data = self.take()
            parts.append(data)
            size += len(data)
            if self.is_complete or not await self.read():
                parts.append(self.take())
                break
        return b"".join(parts)[:bytes_max]

    def detach(self) -> trio.abc.Stream:
        """The bare connection after a 101, for a server that has said nothing of its own yet."""
        return self._stream

    def byte_stream(self) -> ByteStream:
        """The connection after it has left HTTP."""
        return ByteStream.over(self._stream, self._early)

    async def aclose(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)


async def secured(stream: trio.abc.Stream, address: Address, tls: ssl.SSLContext | None) -> Backend:
    """A connection that is there already, with TLS if wanted. Raises BROKEN's errors."""
    if tls is None:
        return Backend(stream, address)
    secure = trio.SSLStream(stream, tls, server_hostname=address.host, https_compatible=True)
    await secure.do_handshake()
    return Backend(secure, address)


async def open_backend(call: Call, address: Address, tls: ssl.SSLContext | None) -> Backend:
    """Connect. Raises ApiError 503 with the reason."""
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await call.core.host.net.open_stream(address)
            return await secured(stream, address, tls)
    except BaseException as error:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        if isinstance(error, (*BROKEN, trio.TooSlowError)):
            raise unreachable(address, error) from None
        raise


def unreachable(address: Address, error: BaseException) -> ApiError:
    """A back end that cannot be reached, or has left in the middle."""
    reason = "i/o timeout" if isinstance(error, trio.TooSlowError) else why(error)
    message = f"error trying to reach service: dial tcp {address}: {reason}"
    return ApiError(503, "ServiceUnavailable", message, {})
