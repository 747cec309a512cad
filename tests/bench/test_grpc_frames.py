"""Our side of gRPC, against what a server says by the RFCs (`test_gets` has a real one)."""

from __future__ import annotations

import pytest

from bench.grpc_frames import Broken, Connection, frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
PATH = b"/a.B/C"


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def answer(stream: int, body: bytes = b"\0\0\0\0\1x") -> bytes:
    return (
        frame(HEADERS, 4, stream, b"\x88")
        + frame(DATA, 0, stream, body)
        + frame(HEADERS, 5, stream, b"\x88")
    )


def test_it_begins_with_preface_settings_and_a_wide_window() -> None:
    said = Connection().begin()
    assert said.startswith(PREFACE)
    assert [each[0] for each in frames(said.removeprefix(PREFACE))] == [SETTINGS, WINDOW_UPDATE]


def test_calls_have_streams_of_their_own_and_come_back_by_their_numbers() -> None:
    connection = Connection()
    asked = frames(connection.call([(7, PATH, b"one"), (9, PATH, b"two")]))
    assert [(kind, stream) for kind, _, stream, _ in asked] == [
        (HEADERS, 1),
        (DATA, 1),
        (HEADERS, 3),
        (DATA, 3),
    ]
    assert asked[1][3] == b"\0\0\0\0\3one"
    assert PATH in asked[0][3]
    assert len(asked[2][3]) == 6  # told once, by place from then on
    assert connection.take(answer(3)) == ([(9, PATH, 6)], b"")
    assert connection.take(answer(1)) == ([(7, PATH, 6)], b"")


def test_answers_may_come_in_pieces() -> None:
    connection = Connection()
    connection.call([(0, PATH, b"m")])
    found = [connection.take(bytes((each,)))[0] for each in answer(1)]
    assert found == [[]] * (len(found) - 1) + [[(0, PATH, 6)]]


def test_settings_and_pings_are_acknowledged() -> None:
    back = Connection().take(frame(SETTINGS, 0, 0, b"") + frame(PING, 0, 0, b"12345678"))[1]
    assert frames(back) == [(SETTINGS, 1, 0, b""), (PING, 1, 0, b"12345678")]
    assert Connection().take(frame(SETTINGS, 1, 0, b"")) == ([], b"")


def test_what_the_server_has_no_room_for_waits() -> None:
    connection = Connection()
    message = b"x" * 40_000
    assert len(frames(connection.call([(0, PATH, message), (1, PATH, message)]))) == 2
    room = frame(WINDOW_UPDATE, 0, 0, (40_000).to_bytes(4, "big"))
    assert [each[2] for each in frames(connection.take(room)[1])] == [3, 3]


@pytest.mark.parametrize(
    "said",
    [
        frame(HEADERS, 5, 1, b"\x88"),  # trailers alone: an error
        frame(RST_STREAM, 0, 1, bytes(4)),
        frame(GOAWAY, 0, 0, bytes(8) + b"enough"),
    ],
)
def test_refusals_end_it(said: bytes) -> None:
    connection = Connection()
    connection.call([(0, PATH, b"m")])
    with pytest.raises(Broken):
        connection.take(said)
