"""As much of protobuf's encoding as etcd's requests need. Pure."""

from __future__ import annotations

__all__ = ["field", "varint"]


def varint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    parts = bytearray()
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes (or of a message that is encoded already)."""
    return varint(number << 3 | 2) + varint(len(value)) + value
