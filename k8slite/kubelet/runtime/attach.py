"""The kubelet's end of attaching to a container: the client's streams, and the shim's socket."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import trio

from k8slite.kubelet.runtime.interface import RuntimeFailure, Streams
from k8slite.kubelet.runtime.shim_attach import HEADER, HOLD, RESIZE, STDIN, STDIN_END, STDOUT

__all__ = ["attach"]

READ_BYTES = 64 * 1024
FRAME_BYTES = 32 * 1024
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


async def attach(directory: Path, client: Streams, *, stdin: bool) -> None:
    """Returns when the container has ended. Raises RuntimeFailure, HangUp of the client."""
    async with await _connect(directory) as stream:
        turn = trio.Lock()

        async def tell(kind: int, payload: bytes = b"") -> None:
            async with turn:
                await stream.send_all(HEADER.pack(kind, len(payload)) + payload)

        async def feed() -> None:
            try:
                await tell(HOLD)
                while data := await client.read_stdin():
                    for start in range(0, len(data), FRAME_BYTES):
                        await tell(STDIN, data[start : start + FRAME_BYTES])
                await tell(STDIN_END)
            except _BROKEN:
                client.refuse_stdin()

        async def follow_size() -> None:
            try:
                while True:
                    columns, rows = await client.next_size()
                    await tell(RESIZE, struct.pack(">HH", columns, rows))
            except _BROKEN:
                return

        async with trio.open_nursery() as nursery:
            if stdin:
                nursery.start_soon(feed)
            nursery.start_soon(follow_size)
            await _show(stream, client)
            nursery.cancel_scope.cancel()


async def _connect(directory: Path) -> trio.SocketStream:
    """Through /proc, for a socket's path has at most 108 bytes and ours may be longer."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await trio.open_unix_socket(f"/proc/self/fd/{handle}/attach.sock")
    except OSError as error:
        raise RuntimeFailure(f"nobody listens at the container: {error.strerror}") from None
    finally:
        os.close(handle)


async def _show(stream: trio.abc.ReceiveStream, client: Streams) -> None:
    buffer = bytearray()
    while True:
        try:
            data = await stream.receive_some(READ_BYTES)
        except _BROKEN:
            return
        if not data:
            return
        buffer += data
        while len(buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(buffer)
            end = HEADER.size + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            await client.write("stdout" if kind == STDOUT else "stderr", payload)
