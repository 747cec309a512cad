"""SPDY frames: there and back, in any pieces, and what is no SPDY."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.streaming import spdy
from k8slite.streaming.spdy import Data, GoAway, Parser, Ping, Reset, SpdyError, SynReply, SynStream

STREAM_ID = st.integers(1, 0x7FFFFFFF)
HEADERS = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20),
    st.text(st.characters(max_codepoint=255), max_size=40),
    max_size=5,
)
FRAMES = st.one_of(
    st.builds(SynStream, STREAM_ID, st.booleans(), HEADERS),
    st.builds(SynReply, STREAM_ID, st.booleans(), HEADERS),
    st.builds(Reset, STREAM_ID, st.integers(1, 11)),
    st.builds(Ping, STREAM_ID),
    st.builds(GoAway, STREAM_ID),
    st.builds(Data, STREAM_ID, st.booleans(), st.binary(max_size=300)),
)


def written(writer: spdy.Writer, frame: spdy.Frame) -> bytes:
    match frame:
        case SynStream(number, fin, headers):
            return writer.syn_stream(number, headers, fin=fin)
        case SynReply(number, fin, headers):
            return writer.syn_reply(number, headers, fin=fin)
        case Reset(number, status):
            return writer.reset(number, status)
        case Ping(number):
            return writer.ping(number)
        case GoAway(number):
            return writer.go_away(number)
        case Data(number, fin, data):
            return writer.data(number, data, fin=fin)
    raise AssertionError(frame)


@given(st.lists(FRAMES, max_size=8))
def test_there_and_back(frames: list[spdy.Frame]) -> None:
    writer, parser = spdy.Writer(), Parser()
    data = b"".join(written(writer, frame) for frame in frames)
    assert parser.feed(data) == frames


@given(st.lists(FRAMES, max_size=6), st.data())
def test_in_any_pieces(frames: list[spdy.Frame], draw: Any) -> None:
    writer, parser = spdy.Writer(), Parser()
    data = b"".join(written(writer, frame) for frame in frames)
    content: dict[int, bytes] = {}
    others: list[spdy.Frame] = []
    ended = 0
    while data:
        size = draw.draw(st.integers(1, 40))
        for frame in parser.feed(data[:size]):
            if isinstance(frame, Data):
                content[frame.stream_id] = content.get(frame.stream_id, b"") + frame.data
                ended += frame.fin
            else:
                others.append(frame)
        data = data[size:]
    expected: dict[int, bytes] = {}
    for frame in frames:
        if isinstance(frame, Data):
            expected[frame.stream_id] = expected.get(frame.stream_id, b"") + frame.data
    assert {k: v for k, v in content.items() if v} == {k: v for k, v in expected.items() if v}
    assert others == [frame for frame in frames if not isinstance(frame, Data)]
    assert ended == sum(frame.fin for frame in frames if isinstance(frame, Data))


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    try:
        Parser().feed(data)
    except SpdyError:
        return


def test_the_dictionary_is_the_drafts() -> None:
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x0a" + bytes(10),  # version 2
        b"\x80\x03\x00\x01\x00\xff\xff\xff",  # a control frame of 16 MiB
        b"\x80\x03\x00\x63\x00\x00\x00\x00",  # an unknown kind
        b"\x80\x03\x00\x01\x00\x00\x00\x0b" + bytes(10) + b"x",  # headers that are not compressed
        b"\x80\x03\x00\x03\x00\x00\x00\x02\x00\x00",  # cut short
    ],
)
def test_what_is_no_spdy(data: bytes) -> None:
    with pytest.raises(SpdyError):
        Parser().feed(data)


def test_a_header_bomb_is_refused() -> None:
    bomb = spdy.Writer().syn_stream(1, {"a": "x" * 10_000_000})
    with pytest.raises(SpdyError, match="more than"):
        Parser().feed(bomb)
