"""Commands over every protocol: the same session each time, then what goes wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from k8slite.streaming.bytes import ByteStream, HangUp
from k8slite.streaming.command import Command, Wants, negotiate, serve_command
from k8slite.streaming.status import error_status, exit_status, success_status
from k8slite.streaming.upgrade import UpgradeRefused
from tests.streaming.clients import (
    CLOSE,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    SpdyClient,
    spdy_headers,
    websocket_headers,
)

ALL = Wants(stdin=True, stdout=True, stderr=True, tty=False)
TTY = Wants(stdin=True, stdout=True, stderr=False, tty=True)
IDLE = 3600.0
Body = Callable[[Command], Awaitable[None]]
WEBSOCKETS = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
]
SPDYS = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]


async def shout(command: Command) -> None:
    """A line to stderr, its input in capitals to stdout, exit code 3."""
    await command.write("stderr", b"ready\n")
    data = b""
    while b"\n" not in data:
        data += await command.read_stdin()
    await command.write("stdout", data.upper())
    await command.finish(exit_status(3))


@asynccontextmanager
async def served(
    headers: dict[bytes, bytes], wants: Wants, body: Body, *, idle: float = IDLE
) -> AsyncIterator[trio.abc.Stream]:
    """The client's end of a served connection; leaving waits for the server's end."""
    ours, theirs = trio.testing.memory_stream_pair()
    protocol = negotiate(headers).protocol

    async def serve() -> None:
        stream = ByteStream.over(theirs)
        await serve_command(stream, headers, protocol, wants, idle, body)
        await theirs.aclose()

    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield ours
            await ours.aclose()


@pytest.mark.parametrize("protocol", WEBSOCKETS)
async def test_a_command_over_websocket(protocol: str, autojump_clock: object) -> None:
    headers = websocket_headers(protocol) if protocol else websocket_headers()
    async with served(headers, ALL, shout) as stream:
        client = Channels(stream, base64="base64" in protocol)
        await client.until(STDERR, b"ready\n")
        await client.send(STDIN, b"hel")
        await client.send(STDIN, b"lo\n")
        output = await client.receive_all()
        assert output[STDOUT] == b"HELLO\n"
        message = "command terminated with non-zero exit code: exit status 3"
        if protocol.startswith(("v4", "v5")):
            assert client.status()["reason"] == "NonZeroExitCode"
            assert client.status()["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        else:
            assert output[ERROR] == message.encode()


@pytest.mark.parametrize("protocol", SPDYS)
async def test_a_command_over_spdy(protocol: str, autojump_clock: object) -> None:
    async with served(spdy_headers(protocol), ALL, shout) as stream:
        client = SpdyClient(ByteStream.over(stream))
        error, stdin, stdout, stderr = [
            await client.open(streamtype=name) for name in ("error", "stdin", "stdout", "stderr")
        ]
        await client.until(stderr, b"ready\n")
        await client.send(stdin, b"hello\n")
        await client.until_ended(error, stdout, stderr)
        assert client.output[stdout] == b"HELLO\n"
        if protocol.startswith("v4"):
            assert json.loads(client.output[error])["details"]["causes"][0]["message"] == "3"
        else:
            assert b"exit status 3" in client.output[error]


async def test_success_and_failure_to_start(autojump_clock: object) -> None:
    for status, shown in ((success_status(), "Success"), (error_status("no such"), "Failure")):

        async def body(command: Command, status: dict[str, object] = status) -> None:
            await command.finish(status)

        async with served(websocket_headers("v4.channel.k8s.io"), ALL, body) as stream:
            client = Channels(stream)
            await client.receive_all()
            assert client.status()["status"] == shown


async def count_input(command: Command) -> None:
    total = 0
    while data := await command.read_stdin():
        total += len(data)
    await command.write("stdout", str(total).encode())
    await command.finish(success_status())


async def test_stdin_ends_while_output_goes_on(autojump_clock: object) -> None:
    async with served(websocket_headers("v5.channel.k8s.io"), ALL, count_input) as stream:
        client = Channels(stream)
        for _ in range(100):
            await client.send(STDIN, bytes(40_000))
        await client.send(CLOSE, bytes((STDIN,)))
        assert (await client.receive_all())[STDOUT] == b"4000000"
    async with served(spdy_headers("v4.channel.k8s.io"), ALL, count_input) as stream:
        spdy = SpdyClient(ByteStream.over(stream))
        numbers = [
            await spdy.open(streamtype=name) for name in ("error", "stdin", "stdout", "stderr")
        ]
        await spdy.send(numbers[1], bytes(1000), fin=True)
        await spdy.until_ended(numbers[0])
        assert spdy.output[numbers[2]] == b"1000"


async def show_sizes(command: Command) -> None:
    for _ in range(2):
        columns, rows = await command.next_size()
        await command.write("stdout", f"{columns}x{rows} ".encode())
    await command.finish(success_status())


async def test_sizes_of_terminals(autojump_clock: object) -> None:
    first, second = b'{"Width":80,"Height":24}\n', b'{"Width":100,"Height":30}'
    async with served(websocket_headers("v5.channel.k8s.io"), TTY, show_sizes) as stream:
        client = Channels(stream)
        await client.send(RESIZE, b'{"Width":0,"Height":24}{"Width":"x"}nonsense')
        await client.send(RESIZE, b"x" * 5000)
        await client.send(RESIZE, first)
        await client.until(STDOUT, b"80x24")
        await client.send(RESIZE, second)
        assert (await client.receive_all())[STDOUT] == b"80x24 100x30 "
    async with served(spdy_headers("v3.channel.k8s.io"), TTY, show_sizes) as stream:
        spdy = SpdyClient(ByteStream.over(stream))
        names = ("error", "stdin", "stdout", "resize")
        error, _, stdout, resize = [await spdy.open(streamtype=name) for name in names]
        await spdy.send(resize, first[:5])
        await spdy.send(resize, first[5:])
        await spdy.until(stdout, b"80x24")
        await spdy.send(resize, second)
        await spdy.until_ended(error)
        assert spdy.output[stdout] == b"80x24 100x30 "


class Ended:
    """A body that runs for ever, and says when it was cancelled."""

    def __init__(self, act: Body | None = None) -> None:
        self.event = trio.Event()
        self.act = act

    async def __call__(self, command: Command) -> None:
        try:
            if self.act is not None:
                await self.act(command)
            await trio.sleep_forever()
        finally:
            self.event.set()


@pytest.mark.parametrize("polite", [True, False])
async def test_a_client_who_leaves_ends_the_command(polite: bool, autojump_clock: object) -> None:
    body = Ended()
    async with served(websocket_headers("v5.channel.k8s.io"), ALL, body) as stream:
        client = Channels(stream)
        await client.receive()
        if polite:
            await client.websocket.close()
        else:
            await stream.aclose()
        await body.event.wait()
    body = Ended()
    async with served(spdy_headers("v4.channel.k8s.io"), ALL, body) as stream:
        spdy = SpdyClient(ByteStream.over(stream))
        for name in ("error", "stdin", "stdout", "stderr"):
            await spdy.open(streamtype=name)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        await body.event.wait()


async def test_who_leaves_while_stdin_is_stuck_is_noticed(autojump_clock: object) -> None:
    """Nobody reads what is typed, so nothing tells of the end but a ping that cannot be sent."""
    body = Ended()
    async with served(websocket_headers("v5.channel.k8s.io"), ALL, body) as stream:
        client = Channels(stream)
        for _ in range(40):
            await client.send(STDIN, bytes(60_000))
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        with trio.fail_after(30):
            await body.event.wait()


async def test_a_slow_reader_holds_the_command_up(autojump_clock: object) -> None:
    """What is produced and not read is bounded by the connection, not kept."""
    produced = 0

    async def flood(command: Command) -> None:
        nonlocal produced
        while True:
            await command.write("stdout", bytes(32_768))
            produced += 32_768

    send, receive = trio.testing.lockstep_stream_one_way_pair()
    quiet, _ = trio.testing.memory_stream_one_way_pair()
    del quiet
    never, hold = trio.testing.memory_stream_one_way_pair()
    stream = trio.StapledStream(send, hold)
    headers = websocket_headers("v5.channel.k8s.io")
    with trio.move_on_after(60):
        await serve_command(
            ByteStream.over(stream), headers, "v5.channel.k8s.io", ALL, IDLE, Ended(flood)
        )
    assert produced <= 65_536
    await never.aclose()
    await receive.aclose()


async def test_idle_connections_are_cut(autojump_clock: trio.testing.MockClock) -> None:
    body = Ended()
    async with served(websocket_headers("v5.channel.k8s.io"), ALL, body, idle=100) as stream:
        client = Channels(stream)
        await client.receive()
        for _ in range(5):
            await trio.sleep(60)
            await client.send(STDIN, b"x")
        started = trio.current_time()
        with contextlib.suppress(HangUp):
            for _ in range(20):  # keep-alives do not count
                await client.websocket.ping()
                await trio.sleep(10)
        assert body.event.is_set()
        assert 90 <= trio.current_time() - started <= 110


async def test_streams_that_are_not_opened_are_not_waited_for(autojump_clock: object) -> None:
    async with served(spdy_headers("v4.channel.k8s.io"), ALL, Ended()) as stream:
        spdy = SpdyClient(ByteStream.over(stream))
        await spdy.open(streamtype="error")
        wrong = await spdy.open(streamtype="nonsense")
        while await spdy.receive():
            pass
        assert wrong in spdy.reset
        assert 29 <= trio.current_time() <= 40


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff nonsense",
        b"\x82\x05hello",  # a frame without a mask
        b"\x82\xfe\x00\x00\x00\x00\x00\x00",  # lengths must be minimal
        b"\x8b\x80\x00\x00\x00\x00",  # an unknown control frame
    ],
)
async def test_nonsense_ends_the_command(data: bytes, autojump_clock: object) -> None:
    body = Ended()
    async with served(websocket_headers("v5.channel.k8s.io"), ALL, body) as stream:
        await stream.send_all(data)
        await body.event.wait()


@given(st.sampled_from(WEBSOCKETS[:5]), st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_any_bytes_are_borne(protocol: str, pieces: list[bytes], draw: Any) -> None:
    """Frames that are none, messages that are none: the command runs on or is ended, no more."""
    framed = draw.draw(st.booleans())

    async def body(command: Command) -> None:
        while await command.read_stdin():
            pass
        await command.next_size()

    async def main() -> None:
        async with served(websocket_headers(protocol), TTY, body) as stream:
            client = Channels(stream)
            with contextlib.suppress(HangUp, trio.BrokenResourceError):
                for piece in pieces:
                    if framed:
                        await client.websocket.send(piece)
                    else:
                        await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_borne_by_spdy(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with served(spdy_headers("v4.channel.k8s.io"), ALL, Ended()) as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_messages_that_must_be_whole_are_bounded(autojump_clock: object) -> None:
    body = Ended()
    async with served(websocket_headers("base64.channel.k8s.io"), ALL, body) as stream:
        client = Channels(stream)
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with trio.move_on_after(5):
                    await client.websocket.send(b"0" + b"A" * 3_000_000, text=True)

            nursery.start_soon(flood)
            await body.event.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({b"connection": b"Upgrade", b"upgrade": b"h2c"}, 400),
        (websocket_headers("v9.channel.k8s.io"), 403),
        ({**websocket_headers(), b"sec-websocket-version": b"8"}, 400),
        ({**websocket_headers(), b"sec-websocket-key": b"short"}, 400),
        (spdy_headers("v9.channel.k8s.io"), 403),
    ],
)
def test_refused_upgrades(headers: dict[bytes, bytes], status: int) -> None:
    with pytest.raises(UpgradeRefused) as refused:
        negotiate(headers)
    assert refused.value.status == status


def test_the_clients_preference_decides() -> None:
    for asked, chosen in (
        (("v9", "v4.channel.k8s.io", "v5.channel.k8s.io"), "v4.channel.k8s.io"),
        (("v5.channel.k8s.io", "v4.channel.k8s.io"), "v5.channel.k8s.io"),
    ):
        agreed = negotiate(websocket_headers(*asked))
        assert agreed.protocol == chosen
        assert dict(agreed.headers)[b"Sec-WebSocket-Protocol"] == chosen.encode()
        assert dict(agreed.headers)[b"Sec-WebSocket-Accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    asked = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io")
    assert negotiate(spdy_headers(*asked)).protocol == "v4.channel.k8s.io"
