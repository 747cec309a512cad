"""The HTTP layer over in-memory streams: order, limits, and what is not HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import memory_stream_pair

from k8slite.apiserver.http.connection import serve_connection
from k8slite.apiserver.http.crowd import Crowd
from k8slite.apiserver.http.message import (
    Peer,
    Request,
    Response,
    StreamResponse,
    UpgradeResponse,
    Writer,
    chunk,
)
from k8slite.apiserver.http.parser import BadRequest, RequestParser
from tests.apiserver.support import Answer

LIMIT = 1000
Answers = Response | StreamResponse | UpgradeResponse


async def echo(request: Request) -> Answers:
    if request.path == "/stream":

        async def run(writer: Writer) -> None:
            for i in range(3):
                await writer.send(chunk(b"%d\n" % i))

        return StreamResponse(200, run)
    if request.path == "/forever":

        async def forever(writer: Writer) -> None:
            await writer.send(chunk(b"first\n"))
            await trio.sleep_forever()

        return StreamResponse(200, forever)
    if request.path == "/upgrade":

        async def shout(receive, send) -> None:  # type: ignore[no-untyped-def]  # shape in message
            while data := await receive():
                await send(data.upper())

        return UpgradeResponse(shout, ((b"Upgrade", b"shout"), (b"Connection", b"Upgrade")))
    if request.path == "/big":
        return Response(200, b"x" * 200_000)
    text = f"{request.method} {request.path} {request.query_string} ".encode() + request.body
    return Response(200, text, b"text/plain")


@asynccontextmanager
async def open_connection() -> AsyncIterator[trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_connection(theirs, echo, tls=None, body_bytes_max=LIMIT)

        nursery.start_soon(serve)
        yield ours
        await ours.aclose()


async def answers(stream: trio.abc.Stream, count: int) -> list[tuple[int, bytes]]:
    found = []
    rest = b""
    for _ in range(count):
        answer = Answer()
        while not answer.done:
            if not rest:
                rest = bytes(await stream.receive_some(1 << 20))
                assert rest, "closed"
            head, rest = rest[:1], rest[1:]
            answer.feed(head)
        found.append((answer.status, answer.body))
    return found


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_connection() as stream:
        requests = [f"GET /{i}?a=b HTTP/1.1\r\nHost: x\r\n\r\n" for i in range(5)]
        await stream.send_all("".join(requests).encode())
        assert await answers(stream, 5) == [(200, f"GET /{i} a=b ".encode()) for i in range(5)]


async def test_byte_by_byte() -> None:
    async with open_connection() as stream:
        for byte in b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
            await stream.send_all(bytes([byte]))
        assert await answers(stream, 1) == [(200, b"POST /a b  abc")]


async def test_chunked_bodies() -> None:
    async with open_connection() as stream:
        await stream.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert await answers(stream, 1) == [(200, b"POST /  abcde")]


async def test_continue_is_said_before_the_body_comes() -> None:
    async with open_connection() as stream:
        await stream.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await stream.receive_some(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert await answers(stream, 1) == [(200, b"POST /  abc")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"
            + b"x" * 1001
            + b"\r\n",
            413,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 300_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_cannot_be_served_is_refused_and_closed(sent: bytes, status: int) -> None:
    async with open_connection() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, sent)
        received = b""
        while data := await stream.receive_some(1000):
            received += bytes(data)
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert b"Connection: close" in received


async def test_a_stream_ends_and_the_connection_goes_on() -> None:
    async with open_connection() as stream:
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await answers(stream, 1) == [(200, b"0\n1\n2\n")]
        await stream.send_all(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await answers(stream, 1) == [(200, b"GET /next  ")]


async def test_a_stream_is_cancelled_when_the_client_goes() -> None:
    with trio.fail_after(5):
        async with open_connection() as stream:
            await stream.send_all(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some(1000)


async def test_a_stream_that_cannot_begin_is_abandoned() -> None:
    abandoned = trio.Event()

    async def abandon() -> None:
        abandoned.set()

    async def never(writer: Writer) -> None:
        raise AssertionError("the client is gone")

    async def handler(request: Request) -> Answers:
        await ours.aclose()
        return StreamResponse(200, never, abandon=abandon)

    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_connection(theirs, handler, tls=None, body_bytes_max=LIMIT)

        nursery.start_soon(serve)
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            await abandoned.wait()


async def test_close_is_honoured() -> None:
    async with open_connection() as stream:
        await stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert await answers(stream, 1) == [(200, b"GET /a  ")]
        assert await stream.receive_some(10) == b""


async def test_an_upgrade_gives_the_connection_away() -> None:
    async with open_connection() as stream:
        await stream.send_all(
            b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nabc"
        )
        received = b""
        while not received.endswith(b"ABC"):
            received += bytes(await stream.receive_some(1000))
        assert received.startswith(b"HTTP/1.1 101 ")


async def test_large_answers_are_compressed_for_who_asks() -> None:
    import zlib

    async with open_connection() as stream:
        await stream.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
        [(status, body)] = await answers(stream, 1)
        assert status == 200
        assert zlib.decompress(body, 31) == b"x" * 200_000


def test_the_parser_refuses_endless_pipelines() -> None:
    parser = RequestParser(Peer(None, None), LIMIT)
    with pytest.raises(BadRequest):
        parser.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


async def ended(stream: trio.abc.Stream) -> float:
    """When the server closed the connection, on the clock of the test."""
    while await stream.receive_some(1 << 20):
        pass
    return trio.current_time()


async def test_idle_connections_are_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_connection() as stream:
        await trio.sleep(80)
        await stream.send_all(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answers(stream, 1))[0][0] == 200
        began = trio.current_time()
        assert await ended(stream) == pytest.approx(began + 90)


async def test_a_request_must_arrive_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """Slow-loris: a byte now and then does not keep a connection."""
    async with open_connection() as stream:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def dawdle() -> None:
                for byte in b"GET / HTTP/1.1\r\nX-Very-Long: " + b"a" * 1000:
                    try:
                        await stream.send_all(bytes([byte]))
                    except trio.BrokenResourceError:
                        return
                    await trio.sleep(5)

            nursery.start_soon(dawdle)
            assert await ended(stream) == pytest.approx(began + 60)


async def test_an_answer_must_be_read_in_time(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_connection(theirs, echo, tls=None, body_bytes_max=LIMIT)
            assert began + 60 <= trio.current_time() <= began + 70

        nursery.start_soon(serve)
        await ours.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_whoever_has_waited_longest_makes_room() -> None:
    crowd = Crowd(2)
    scopes = [trio.CancelScope() for _ in range(3)]
    assert crowd.enter()
    assert crowd.enter()
    numbers = [crowd.quiet(scope) for scope in scopes[:2]]
    assert crowd.enter()
    assert [scope.cancel_called for scope in scopes] == [True, False, False]
    crowd.busy(numbers[0])
    crowd.leave()
    crowd.busy(numbers[1])  # it has a request at work now, and so has the third
    assert not crowd.enter()
    crowd.leave()
    assert crowd.enter()


async def test_draining_answers_what_is_at_work(autojump_clock: trio.testing.MockClock) -> None:
    crowd = Crowd(10)

    async def slow(request: Request) -> Answers:
        await trio.sleep(1)
        return Response(200, b"done")

    pairs = [memory_stream_pair() for _ in range(2)]
    async with trio.open_nursery() as nursery:

        async def serve(theirs: trio.abc.Stream) -> None:
            assert crowd.enter()
            await serve_connection(theirs, slow, tls=None, body_bytes_max=LIMIT, crowd=crowd)
            crowd.leave()

        for _, theirs in pairs:
            nursery.start_soon(serve, theirs)
        await pairs[0][0].send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(crowd.drain)
        assert await answers(pairs[0][0], 1) == [(200, b"done")]
        assert not await pairs[1][0].receive_some(10)
    assert crowd.open == 0
