"""Frames: how messages are cut out of a stream of bytes, and put into one.

Owns: the 4-byte length, the msgpack of a frame's payload, and the refusal of everything else.
Assumes: nothing about the sender; every byte from outside may be garbage.
Never does: I/O, and never allocates what a length field merely claims.

A frame is a 4-byte big-endian payload length followed by the payload. The payload is one msgpack
array of messages, and each message is an array. Several messages in one frame is the normal case:
a side that has many to send packs them together, so that framing, decoding and the system call
are paid once for a batch and not once for a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from raftkv.errors import ProtocolError

__all__ = [
    "HEADER_BYTES",
    "FrameReader",
    "ProtocolError",
    "encode",
    "frame",
    "frame_head",
    "join_messages",
    "pack",
    "pack_array_header",
    "unpack",
]

HEADER_BYTES = 4
EMPTY_BYTES = b"\xc4\x00"

_packer = msgpack.Packer(use_bin_type=True)
pack = _packer.pack
"""One value as msgpack bytes; the packer is shared because making one costs more than using it."""


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """The value that `pack` was given; tuples come back as lists. Raises ProtocolError."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not valid msgpack: {str(error) or type(error).__name__}") from error


def encode(messages: Sequence[Any]) -> bytes:
    """One frame with these messages."""
    return frame(pack(messages))


def frame(payload: bytes) -> bytes:
    """A payload that is packed already, as a frame."""
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


def frame_head(message: Sequence[Any], size: int) -> bytes:
    """The beginning of a frame with one message, which ends with empty bytes: in their place `size`
    bytes are to be sent behind it. So large ones are never copied into a frame.
    """
    packed = pack([message])
    assert packed.endswith(EMPTY_BYTES)
    head = packed.removesuffix(EMPTY_BYTES) + b"\xc6" + size.to_bytes(4, "big")
    return (len(head) + size).to_bytes(HEADER_BYTES, "big") + head


def join_messages(packed: Sequence[bytes]) -> bytes:
    """One frame out of messages that are packed one by one.

    With it the bytes of one event can go to any number of watchers without being packed again.
    """
    head = pack_array_header(len(packed))
    size = len(head) + sum(map(len, packed))
    return b"".join((size.to_bytes(HEADER_BYTES, "big"), head, *packed))


def pack_array_header(count: int) -> bytes:
    """The msgpack bytes that announce an array of `count` items."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdd" + count.to_bytes(4, "big")


class FrameReader:
    """Cuts a stream into frames: feed it what was received, get every complete frame's messages.

    After a ProtocolError the reader is spent.
    """

    __slots__ = ("_buffer", "_max_bytes", "_wanted")

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: the largest payload accepted."""
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._wanted = HEADER_BYTES  # below this many buffered bytes there's nothing to do

    @property
    def pending(self) -> int:
        """Bytes received of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray) -> list[tuple[int, list[Any]]]:
        """`(payload bytes, messages)` for each frame that is complete now, in order.

        Raises ProtocolError for a frame that is too large or no array of arrays.
        """
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            buffer = self._buffer
        frames: list[tuple[int, list[Any]]] = []
        position, end = 0, len(buffer)
        view = memoryview(buffer)
        try:
            while True:
                start = position + HEADER_BYTES
                if start > end:
                    self._wanted = HEADER_BYTES
                    break
                size = int.from_bytes(view[position:start], "big")
                if size > self._max_bytes:
                    raise ProtocolError(
                        f"a frame of {size} bytes is larger than the {self._max_bytes} allowed"
                    )
                if start + size > end:
                    self._wanted = HEADER_BYTES + size
                    break
                position = start + size
                frames.append((size, _messages(view[start:position])))
        finally:
            view.release()
        self._buffer = bytearray(buffer[position:]) if position < end else bytearray()
        return frames


def _messages(payload: memoryview) -> list[Any]:
    with payload:
        messages = unpack(payload)
    if type(messages) is not list:
        raise ProtocolError("a frame must hold an array of messages")
    for message in messages:
        if type(message) is not list or not message:
            raise ProtocolError("each message must be an array that is not empty")
    return messages


def flatten(frames: Iterable[tuple[int, list[Any]]]) -> list[Any]:
    """The messages of all frames, in order, where their sizes don't matter."""
    return [message for _, messages in frames for message in messages]
