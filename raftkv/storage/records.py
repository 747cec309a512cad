"""Records of the write-ahead log: bytes to payloads, and the verdict on what does not parse.

One record is one `Wal.sync`: the next record is written only after the one before it is durable.
That law makes tears and damage tell apart. A crash can tear the last record of the last segment
and nothing else; so a bad record that is followed by a whole one, or stands in an older segment,
was durable once and is damaged now. Zeros at the end of any segment are space that was reserved
ahead; where a record is missing before them, the chain in the next segment's head tells.

    length 4 | CRC-32 of the payload 4 | chain 4 | CRC-32 of these twelve bytes 4 | payload | zeros
    up to a multiple of 16; numbers little-endian

The chain is the CRC-32 of length and payload checksum, started with the chain of the record
before: a record that is missing, doubled or moved breaks it. It begins anew in each segment,
whose first record (`replay.py`) holds the last chain of the segment before. The header has its
own checksum, so a damaged length is never mistaken for a torn record, and is aligned, so that it
lies within one disk sector, which is written whole or not at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

from raftkv.errors import WalDamaged

__all__ = ["ADVICE", "CHAIN_START", "HEADER_BYTES", "Record", "Tail", "encode", "scan"]

CHAIN_START: Final = 0
SECTOR: Final = 512
ALIGNMENT: Final = 16
_HEADER: Final = struct.Struct("<IIII")
_CHAINED: Final = struct.Struct("<II")
HEADER_BYTES: Final = _HEADER.size
PAYLOAD_BYTES_MAX: Final = 1 << 30

ADVICE: Final = (
    "do not edit the file. If the other members are healthy: remove this one with `raftkv member "
    "remove`, delete its data directory, and add it under a new name with `raftkv member add` and "
    "`raftkv serve --join`. If it is the only one: move the directory away and restore a backup "
    "with `raftkv snapshot restore`"
)


class Record(NamedTuple):
    """One whole record: where it begins, its payload, and the chain up to and including it."""

    offset: int
    payload: memoryview
    chain: int


class Tail(NamedTuple):
    """Where the whole records end. `torn`: the beginning of another one lies behind, to be cut."""

    offset: int
    chain: int
    torn: bool


def encode(payload: bytes, chain: int) -> tuple[bytes, int]:
    """The bytes of a record after the one with `chain`, and its own chain."""
    assert 0 < len(payload) <= PAYLOAD_BYTES_MAX
    checksum = crc32(payload)
    chain = crc32(_CHAINED.pack(len(payload), checksum), chain)
    start = struct.pack("<III", len(payload), checksum, chain)
    header = start + crc32(start).to_bytes(4, "little")
    padding = bytes(-len(payload) % ALIGNMENT)
    return b"".join((header, payload, padding)), chain


def _header(data: memoryview, offset: int) -> tuple[int, int, int] | None:
    """(length, checksum, chain) where a valid header stands at `offset`."""
    length, checksum, chain, own = _HEADER.unpack_from(data, offset)
    if not length or crc32(data[offset : offset + 12]) != own:
        return None
    return length, checksum, chain


def scan(name: str, data: bytes, last: bool) -> Iterator[Record | Tail]:
    """The records of a segment in order, then one Tail.

    Only the `last` segment may end torn. Raises WalDamaged, with the offset of the bad record.
    """
    view = memoryview(data)
    chain = CHAIN_START
    offset = 0
    while offset < len(data):
        if len(data) - offset < HEADER_BYTES:
            break
        header = _header(view, offset)
        if header is None:
            break
        length, checksum, expected = header
        end = offset + HEADER_BYTES + length
        if end > len(data):
            break
        payload = view[offset + HEADER_BYTES : end]
        if crc32(payload) != checksum:
            break
        chain = crc32(_CHAINED.pack(length, checksum), chain)
        if chain != expected:
            raise WalDamaged(
                name, offset, ADVICE, "the record is whole but not the next one of this log"
            )
        yield Record(offset, payload, chain)
        offset = min(end + -length % ALIGNMENT, len(data))
    if not bytes(view[offset:]).strip(b"\0"):
        yield Tail(offset, chain, False)  # the end, or space that was reserved and never used
        return
    reason = _damage(view, offset)
    if reason is None and not last:
        reason = "the record is cut short, but a later segment exists"
    if reason is not None:
        raise WalDamaged(name, offset, ADVICE, reason)
    yield Tail(offset, chain, True)


def _damage(data: memoryview, offset: int) -> str | None:
    """Why the bad record at `offset` can't be the work of a crash; None where it can."""
    rest = bytes(data[offset:]).rstrip(b"\0")
    if len(rest) < HEADER_BYTES:
        return None
    follower = _next_whole(data, offset + ALIGNMENT)
    if follower is not None:
        return f"a whole record follows at byte {follower}"
    header = _header(data, offset)
    if header is None:
        if bytes(data[offset : offset + HEADER_BYTES]).strip(b"\0"):
            return "the header's checksum does not match"
        return None
    end = offset + HEADER_BYTES + header[0]
    if end > len(data) or _has_empty_sector(data, offset, end):
        return None
    return "the checksum does not match"


def _next_whole(data: memoryview, start: int) -> int | None:
    for offset in range(start, len(data) - HEADER_BYTES + 1, ALIGNMENT):
        header = _header(data, offset)
        if header is None:
            continue
        payload = data[offset + HEADER_BYTES : offset + HEADER_BYTES + header[0]]
        if len(payload) == header[0] and crc32(payload) == header[1]:
            return offset
    return None


def _has_empty_sector(data: memoryview, start: int, end: int) -> bool:
    """Whether a sector's share of the record is all zeros: it never reached the disk."""
    position = start
    while position < end:
        stop = min(end, position - position % SECTOR + SECTOR)
        if not bytes(data[position:stop]).strip(b"\0"):
            return True
        position = stop
    return False
