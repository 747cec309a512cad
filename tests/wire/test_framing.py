"""Frames survive any cutting of the stream, and garbage ends in one typed error."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.wire.framing import (
    FrameReader,
    ProtocolError,
    encode,
    flatten,
    frame_head,
    join_messages,
    pack,
)

MESSAGES: list[list[Any]] = [
    [1, "put", b"key", b"value" * 50, 0, False],
    [2, "range", b"\x00", b"\xff", 0, 0, 0],
    [0, 7, "events", 12, [["put", [b"k", b"v", 1, 2, 3, 0], None]]],
]


def test_byte_by_byte_gives_what_the_whole_gives() -> None:
    data = b"".join(encode([message]) for message in MESSAGES)
    whole = flatten(FrameReader(4096).feed(data))
    reader = FrameReader(4096)
    single = [
        message for i in range(len(data)) for message in flatten(reader.feed(data[i : i + 1]))
    ]
    assert whole == single == MESSAGES
    assert reader.pending == 0


@given(st.lists(st.integers(1, 40), max_size=30))
def test_any_cutting_gives_the_same(cuts: list[int]) -> None:
    data = encode(MESSAGES) + encode(MESSAGES[:1])
    reader, got, position = FrameReader(4096), [], 0
    for cut in [*cuts, len(data)]:
        got += flatten(reader.feed(data[position : position + cut]))
        position += cut
    assert got == [*MESSAGES, MESSAGES[0]]


def test_truncated_frame_waits() -> None:
    data = encode(MESSAGES)
    for cut in range(len(data)):
        reader = FrameReader(4096)
        assert reader.feed(data[:cut]) == []
        assert flatten(reader.feed(data[cut:])) == MESSAGES


@given(st.lists(st.lists(st.integers() | st.binary() | st.none(), min_size=1), max_size=40))
def test_joined_messages_equal_packed_together(messages: list[list[Any]]) -> None:
    messages = [[m if not isinstance(m, int) else m % 2**63 for m in one] for one in messages]
    joined = join_messages([pack(message) for message in messages])
    assert flatten(FrameReader(1 << 20).feed(joined)) == messages


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "larger than"),
        (b"\xff\xff\xff\xff", "larger than"),
        (b"\x00\x00\x00\x01\xc1", "not valid msgpack"),
        (b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff", "not valid msgpack"),
        (b"\x00\x00\x00\x02\x01\x02", "not valid msgpack"),
        (b"\x00\x00\x00\x00", "not valid msgpack"),
        (b"\x00\x00\x00\x01\x05", "array of messages"),
        (b"\x00\x00\x00\x02\x91\x05", "must be an array"),
        (b"\x00\x00\x00\x02\x91\x90", "must be an array"),
        (b"\x00\x00\x00\x03\x91\xa1\xff", "not valid msgpack"),
        (b"\x00\x00\x04\x00" + b"\x91" * 1024, "not valid msgpack"),
    ],
)
def test_garbage_is_a_typed_error(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        FrameReader(4096).feed(data)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        FrameReader(100).feed(data)


@pytest.mark.parametrize("size", [0, 1, 300, 70_000])
def test_large_bytes_may_follow_the_head_of_their_frame(size: int) -> None:
    """The same message, though shorter lengths would have a shorter form."""
    data = bytes(size)
    sent = frame_head([9, "meta", [1, b""]], size) + data
    ((_, messages),) = FrameReader(1 << 20).feed(sent)
    assert messages == [[9, "meta", [1, data]]]
