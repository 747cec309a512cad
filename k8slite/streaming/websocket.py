"""WebSocket messages over a byte stream, after the handshake. Frames are wsproto's business.

Owns: the connection's state, answers to pings, the closing handshake. One task reads, any may
write. Messages are handed on in pieces as they come, so that their length needs no bound.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from typing import NamedTuple

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from k8slite.streaming.bytes import ByteStream, HangUp

__all__ = ["Piece", "Tunnel", "WebSocket"]

NORMAL, TOO_BIG = 1000, 1009


class Piece(NamedTuple):
    """A part of a message; `first` and `last` tell where the message begins and ends."""

    data: bytes
    first: bool
    last: bool


class WebSocket:
    """One end of a connection; the server's unless `client`."""

    def __init__(self, stream: ByteStream, *, client: bool = False) -> None:
        self.stream = stream
        role = ConnectionType.CLIENT if client else ConnectionType.SERVER
        self._connection = Connection(role)
        self._pieces: deque[Piece] = deque()
        self._first = True
        self._ended = False

    async def receive(self) -> Piece | None:
        """The next piece; None when the peer has closed, is gone, or talks nonsense."""
        while not self._pieces:
            if self._ended:
                return None
            data = await self.stream.receive()
            if not data:
                self._ended = True
                continue
            try:
                await self._feed(data)
            except (HangUp, RemoteProtocolError, LocalProtocolError):
                self._ended = True
        return self._pieces.popleft()

    async def _feed(self, data: bytes) -> None:
        connection = self._connection
        connection.receive_data(data)
        answers = []
        for event in connection.events():
            if isinstance(event, (BytesMessage, TextMessage)):
                text = event.data
                raw = text.encode() if isinstance(text, str) else bytes(text)
                self._pieces.append(Piece(raw, self._first, event.message_finished))
                self._first = event.message_finished
            elif isinstance(event, Ping):
                if connection.state is ConnectionState.OPEN:
                    answers.append(connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._ended = True
                if connection.state is ConnectionState.REMOTE_CLOSING:
                    answers.append(connection.send(event.response()))
                break
        if answers:
            await self.stream.send(b"".join(answers))

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """A whole message. Raises HangUp."""
        if text:
            await self._write(TextMessage(data=data.decode("latin-1")))
        else:
            await self._write(BytesMessage(data=data))

    async def send_on(self, channel: int, data: bytes, *, base64: bool) -> None:
        """A message of one of Kubernetes' channels, as text or binary. Raises HangUp."""
        self.stream.touch()
        if base64:
            await self.send(bytes((0x30 + channel,)) + b64encode(data), text=True)
        else:
            await self.send(bytes((channel,)) + data)

    async def ping(self) -> None:
        """Raises HangUp."""
        await self._write(Ping())

    async def _write(self, event: BytesMessage | TextMessage | Ping | CloseConnection) -> None:
        try:
            data = self._connection.send(event)
        except LocalProtocolError as error:  # closed by either side
            raise HangUp(str(error)) from None
        await self.stream.send(data)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye; who reads goes on until the peer's. Never raises for the peer."""
        try:
            await self._write(CloseConnection(code=code, reason=reason))
        except HangUp:
            return


class Tunnel(ByteStream):
    """A byte stream inside a WebSocket's binary messages, whose borders mean nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(self._next, websocket.send)
        self._websocket = websocket

    async def _next(self) -> bytes:
        while True:
            piece = await self._websocket.receive()
            if piece is None:
                return b""
            if piece.data:
                return piece.data

    async def send(self, data: bytes) -> None:
        """Raises HangUp."""
        await self._websocket.send(data)
