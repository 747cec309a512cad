"""Pass a request to a back end and its answer to the client: bytes as they come, both ways.

Owns: a back end's connection from the request to the answer's end. Who is slow stops who is fast:
nothing is kept but the piece on its way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping

from k8slite.apiserver.http.message import Response, StreamResponse, UpgradeResponse, Writer, chunk
from k8slite.apiserver.streaming.backend import Backend, Header, unreachable
from k8slite.streaming.bytes import BROKEN, ByteStream, relay

__all__ = ["HOP_BY_HOP", "copying", "pass_on", "upgrade_headers"]

TOKEN_PROTOCOL = b"base64url.bearer.authorization.k8s.io."
BODILESS = frozenset((204, 304))
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_OUR_OWN = HOP_BY_HOP | {b"content-length", b"content-type"}
Answer = Response | StreamResponse | UpgradeResponse


def upgrade_headers(headers: Mapping[bytes, bytes]) -> list[Header]:
    """What a back end must be told so that it leaves HTTP as the client wants."""
    passed: list[Header] = [(b"Connection", b"Upgrade")]
    for name, value in headers.items():
        if name == b"sec-websocket-protocol":
            value = _without_token(value)
            if value:
                passed.append((name, value))
        elif name.startswith(b"sec-websocket-") or name in (
            b"upgrade",
            b"x-stream-protocol-version",
        ):
            passed.append((name, value))
    return passed


def _without_token(protocols: bytes) -> bytes:
    """Browsers can authenticate by a subprotocol only, which is for the apiserver alone."""
    words = [word.strip() for word in protocols.split(b",")]
    return b", ".join(word for word in words if not word.startswith(TOKEN_PROTOCOL))


async def pass_on(
    backend: Backend,
    method: str,
    target: str,
    headers: list[Header],
    body: bytes = b"",
    *,
    change: Callable[[bytes, bytes], bytes] = lambda name, value: value,
) -> Answer:
    """Send the request and give the answer; `change` may alter the values of its headers.

    Raises ApiError 503 when the back end leaves before it has answered.
    """
    try:
        await backend.request(method, target, headers, body)
        if backend.status != 101 and (method == "HEAD" or backend.status in BODILESS):
            await backend.aclose()
            return Response(
                backend.status, b"", backend.header(b"content-type"), _passed(backend, change)
            )
    except BROKEN as error:
        await backend.aclose()
        raise unreachable(backend.address, error) from None
    except BaseException:
        await backend.aclose()
        raise
    if backend.status == 101:
        return UpgradeResponse(_relaying(backend), tuple(backend.headers), backend.aclose)
    return StreamResponse(
        backend.status,
        copying(backend),
        backend.header(b"content-type"),
        _passed(backend, change),
        abandon=backend.aclose,
    )


def _passed(backend: Backend, change: Callable[[bytes, bytes], bytes]) -> tuple[Header, ...]:
    return tuple(
        (name, change(name.lower(), value))
        for name, value in backend.headers
        if name.lower() not in _OUR_OWN
    )


def _relaying(
    backend: Backend,
) -> Callable[
    [Callable[[], Awaitable[bytes]], Callable[[bytes], Awaitable[None]]], Awaitable[None]
]:
    async def run(
        receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        try:
            await relay(ByteStream(receive, send), backend.byte_stream())
        finally:
            await backend.aclose()

    return run


def copying(backend: Backend) -> Callable[[Writer], Awaitable[None]]:
    """What writes a back end's body as it comes, and closes it."""

    async def run(writer: Writer) -> None:
        try:
            while True:
                data = backend.take()
                if data:
                    await writer.send(chunk(data))
                if backend.is_complete:
                    return
                with contextlib.suppress(*BROKEN):
                    if await backend.read():
                        continue
                return
        finally:
            await backend.aclose()

    return run
