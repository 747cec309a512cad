"""TLS for the server's side of a connection, with one system call to read and one to write.

In the place of trio.SSLStream: OpenSSL works on buffers in memory, and where a socket lies below,
their contents go straight to it. That saves a third of a small request's cost.

Assumes: one task sends and one receives at a time. What receiving makes OpenSSL want to say (a new
key) leaves with the next bytes sent. Never closes politely: HTTP says itself where an answer ends.
"""

from __future__ import annotations

import os
import ssl

import trio

__all__ = ["WRITE_BYTES", "TlsStream"]

READ_BYTES = 64 * 1024
WRITE_BYTES = 256 * 1024
"""Encrypted and sent at a time, so that a large answer is not in memory twice."""


class TlsStream(trio.abc.Stream):
    """The server's end of a TLS connection over any stream."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._file = transport.socket.fileno() if isinstance(transport, trio.SocketStream) else -1
        self._unsent = b""

    def certificate(self) -> bytes | None:
        """The client's, verified (DER)."""
        return self._tls.getpeercert(binary_form=True)

    async def do_handshake(self) -> None:
        """Raises ssl.SSLError, and what the transport raises."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise trio.BrokenResourceError("the client left in the handshake") from None
                continue
            await self._flush()
            return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes; b"" at the end."""
        size = max_bytes or READ_BYTES
        waited = False
        while True:
            if self._incoming.pending or waited or self._tls.pending():
                try:
                    data = self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
                else:
                    if not waited:
                        await trio.lowlevel.checkpoint()
                    return data
            if not await self._fill():
                return b""
            waited = True

    async def _fill(self) -> bool:
        """Receive what there is; False at the end of the connection."""
        if self._file < 0:
            data = bytes(await self._transport.receive_some(READ_BYTES))
        else:
            data = await self._read_file()
        if not data:
            self._incoming.write_eof()
            return False
        self._incoming.write(data)
        return True

    async def _read_file(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._file)
            try:
                return os.read(self._file, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    def try_send(self, data: bytes) -> bool:
        """Take bytes and send at once what the socket takes; False: `send_all(b"")` sends the rest.

        Raises BrokenResourceError.
        """
        if data:
            self._tls.write(data)
        return self._file >= 0 and self._write_now()

    def _write_now(self) -> bool:
        """Hand everything encrypted to the socket; has it taken all?"""
        out = self._outgoing.read()
        if self._unsent:
            out = self._unsent + out
        if not out:
            return True
        try:
            sent = os.write(self._file, out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self._unsent = out[sent:]
        return not self._unsent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. Raises BrokenResourceError, ClosedResourceError."""
        if len(data) <= WRITE_BYTES:
            if data:
                self._tls.write(data)
            await self._flush()
            return
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            self._tls.write(view[start : start + WRITE_BYTES])
            await self._flush()

    async def _flush(self) -> None:
        """Send all that is encrypted."""
        while True:
            if self._file < 0:
                out = self._outgoing.read()
                if not out:
                    return
                await self._transport.send_all(out)
            elif self._write_now():
                return
            else:
                await trio.lowlevel.wait_writable(self._file)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the transport, without a farewell."""
        self._file = -2
        await trio.aclose_forcefully(self._transport)
