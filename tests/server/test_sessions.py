"""What a member says to clients that misbehave: one typed error, and nobody else is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from raftkv.errors import NoSpace
from raftkv.host import Address
from raftkv.os_host import OsHost
from raftkv.wire.framing import FrameReader, encode, flatten
from raftkv.wire.protocol import VERSION
from tests.server.support import Cluster, client_of, open_cluster


class Raw:
    """A connection that says exactly what it's told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.reader = FrameReader(1 << 24)

    @classmethod
    async def open(cls, cluster: Cluster, address: Address, *, hello: bool = True) -> Raw:
        raw = cls(await OsHost().net.open_stream(address))
        cluster.streams.append(raw.stream)
        if hello:
            assert (await raw.ask([1, "hello", VERSION]))[1][0] == "raftkv"
        return raw

    async def ask(self, *messages: list[Any]) -> list[Any]:
        await self.stream.send_all(encode(messages))
        return (await self.receive())[0]

    async def receive(self) -> list[list[Any]]:
        """The messages of the next frames; none at the end of the stream."""
        while data := await self.stream.receive_some(65536):
            messages = flatten(self.reader.feed(data))
            if messages:
                return messages
        return []


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: kv\r\n\r\n",
        b"\xff" * 64,
        b"\x00\x00\x00\x01\xc1",
        encode([["not", "a", "request"]]),
        encode([[1]]),
    ],
)
async def test_garbage_ends_that_connection_only(tmp_path: Path, garbage: bytes) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        await kv.put(b"k", b"v")
        raw = await Raw.open(cluster, cluster.endpoints[0])
        await raw.stream.send_all(garbage)
        said = await raw.receive()
        assert said[0][:1] == [0]
        assert said[0][1][:2] == ["error", "ProtocolError"]
        assert await raw.receive() == []
        assert await kv.put(b"k", b"w") == 3


async def test_hello_comes_first_and_in_our_version(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster:
        raw = await Raw.open(cluster, cluster.endpoints[0], hello=False)
        assert "hello" in (await raw.ask([1, "put", b"k", b"v", 0, False]))[1][2]
        raw = await Raw.open(cluster, cluster.endpoints[0], hello=False)
        assert "version" in (await raw.ask([1, "hello", 99]))[1][2]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (["nonsense"], "NotCapable"),
        (["put", b"k"], "InvalidRequest"),
        (["put", "text", b"v", 0, False], "InvalidRequest"),
        (["put", b"", b"v", 0, False], "EmptyKey"),
        (["put", b"k", bytes(1_600_000), 0, False], "RequestTooLarge"),
        (["txn", [], [["txn"]], []], "InvalidRequest"),
        (["range", b"k"], "InvalidRequest"),
        (["range", b"k", None, -1, 0, 0], "InvalidRequest"),
        (["range", b"", None, 0, 0, 0], "EmptyKey"),
        (["range", 5, None, 0, 0, 4], "InvalidRequest"),
        (["revision", 1], "InvalidRequest"),
        (["lease_keep_alive", "x"], "InvalidRequest"),
        (["lease_keep_alive", 5], "LeaseNotFound"),
        (["watch", 1, "k", None, 0, 0], "InvalidRequest"),
        (["watch", 1, b"k", None, -1, 0], "InvalidRequest"),
        (["watch"], "InvalidRequest"),
        (["watch_cancel"], "InvalidRequest"),
        (["move_leader", 9], "InvalidRequest"),
        (["lease_checkpoint", 1, 1], "NotCapable"),
    ],
)
async def test_bad_requests_are_refused_one_by_one(
    tmp_path: Path, request_: list[Any], code: str
) -> None:
    async with open_cluster(tmp_path, 1) as cluster:
        await cluster.wait_leader()
        raw = await Raw.open(cluster, cluster.endpoints[0])
        await raw.ask([2, "put", b"k", b"v", 0, False])
        answers: dict[int, Any] = {}
        await raw.stream.send_all(encode([[9, *request_], [10, "range", b"k", None, 0, 0, 0]]))
        while not {9, 10} <= answers.keys():
            messages = await raw.receive()
            assert messages, "the connection stays"
            answers.update({message[0]: message[1] for message in messages})
        assert answers[9][:2] == ["error", code]
        assert answers[10][1] == 1


async def test_requests_of_one_frame_share_an_entry(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster:
        server = await cluster.wait_leader()
        raw = await Raw.open(cluster, cluster.endpoints[0])
        before = server.status()["entries"]
        count = 300
        puts = [[n, "put", b"%d" % n, b"v", 0, False] for n in range(2, count + 2)]
        await raw.stream.send_all(encode(puts))
        revisions: list[int] = []
        while len(revisions) < count:
            revisions += [message[1][0] for message in await raw.receive()]
        assert revisions == list(range(2, count + 2))
        assert server.status()["entries"] - before <= 3


async def test_full_store_takes_deletes_only(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1, quota_bytes=10_000) as cluster, client_of(cluster) as kv:
        for number in range(12):
            try:
                await kv.put(b"%d" % number, bytes(1000))
            except NoSpace as error:
                refused = str(error)
        assert "quota" in refused
        revision = await kv.current_revision()
        assert await kv.delete(b"\0", b"\0") > 5
        await kv.compact(revision + 1)
        assert await kv.put(b"k", b"v") == revision + 2
