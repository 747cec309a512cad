"""pods/log for clients who ask by WebSocket: the same bytes, a message for each piece."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping

import trio

from k8slite.api.status import ApiError
from k8slite.apiserver.http.message import UpgradeResponse
from k8slite.apiserver.streaming.backend import Backend
from k8slite.streaming.bytes import BROKEN, LINGER_SECONDS, ByteStream, HangUp
from k8slite.streaming.upgrade import UpgradeRefused, choose_websocket
from k8slite.streaming.websocket import WebSocket

__all__ = ["choose", "log_socket"]

PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io", "")


def choose(headers: Mapping[bytes, bytes]) -> tuple[str, tuple[tuple[bytes, bytes], ...]]:
    """The protocol and the answer's headers. Raises ApiError 400 or 403."""
    try:
        return choose_websocket(headers, PROTOCOLS)
    except UpgradeRefused as refused:
        reason = "BadRequest" if refused.status == 400 else "Forbidden"
        raise ApiError(refused.status, reason, refused.message) from None


def log_socket(
    backend: Backend, protocol: str, headers: tuple[tuple[bytes, bytes], ...]
) -> UpgradeResponse:
    """What sends a kubelet's answer, whose head has been read, and closes it."""

    async def show(websocket: WebSocket) -> None:
        while True:
            data = backend.take()
            if data and protocol.startswith("base64"):
                await websocket.send(base64.b64encode(data), text=True)
            elif data:
                await websocket.send(data)
            if backend.is_complete or not await backend.read():
                return

    async def run(
        receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        websocket = WebSocket(ByteStream(receive, send))

        async def listen() -> None:
            """What clients send is passed over, but that they leave is not."""
            while await websocket.receive() is not None:
                pass
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                try:
                    await show(websocket)
                except (HangUp, *BROKEN):
                    nursery.cancel_scope.cancel()
                await websocket.close()
                nursery.cancel_scope.deadline = trio.current_time() + LINGER_SECONDS
        finally:
            await backend.aclose()

    return UpgradeResponse(run, headers, backend.aclose)
