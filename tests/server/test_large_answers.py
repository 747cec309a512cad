"""Answers of many bytes: bounded each, and together for a client that does not read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from raftkv.client.types import get_op, put_op
from raftkv.errors import RequestTooLarge
from raftkv.mvcc import sizes
from raftkv.server import sessions
from raftkv.wire.framing import encode
from tests.server.support import client_of, open_cluster
from tests.server.test_sessions import Raw


@pytest.fixture(autouse=True)
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "ANSWER_BYTES_MAX", 10_000)


async def test_a_client_sees_a_large_range_whole(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        keys = [b"%03d" % number for number in range(25)]
        for key in keys:
            last = await kv.put(key, bytes(1000))
        raw = await Raw.open(cluster, cluster.endpoints[0])
        _, (kvs, count, more, revision) = await raw.ask([2, "range", b"0", b"\0", 0, 0, 0])
        assert (len(kvs), count, more, revision) == (9, 25, True, last)
        for serializable in (False, True):
            found = await kv.range(b"0", b"\0", serializable=serializable)
            assert [pair.key for pair in found.kvs] == keys
            assert (found.count, found.more, found.revision) == (25, False, last)
        found = await kv.range(b"0", b"\0", limit=20)
        assert [pair.key for pair in found.kvs] == keys[:20]
        assert (found.count, found.more) == (25, True)
        found = await kv.range(b"0", b"\0", limit=25)
        assert (len(found.kvs), found.more) == (25, False)
        assert (await kv.range(b"0", b"\0", count_only=True)).count == 25
        assert len((await kv.range(b"0", b"\0", keys_only=True)).kvs) == 25


async def test_all_of_it_is_of_one_revision(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        for number in range(40):
            await kv.put(b"%03d" % number, bytes(1000))
        async with trio.open_nursery() as nursery:

            async def overwrite() -> None:
                for number in reversed(range(40)):
                    await kv.txn([], [put_op(b"%03d" % number, b"new"), put_op(b"z", b"")])

            nursery.start_soon(overwrite)
            for _ in range(10):
                found = await kv.range(b"0", b"\0")
                assert max(pair.mod_revision for pair in found.kvs) <= found.revision
                assert len(found.kvs) == found.count


async def test_a_transaction_says_that_its_answer_is_too_large(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        for number in range(25):
            last = await kv.put(b"%03d" % number, bytes(1000))
        with pytest.raises(RequestTooLarge, match="nothing was done"):
            await kv.txn([], [put_op(b"x", b"1"), get_op(b"0", b"1")])
        assert await kv.current_revision() == last


@pytest.mark.parametrize("options", [0, 4])
async def test_who_does_not_read_gets_no_more(
    tmp_path: Path, options: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "UNSENT_BYTES_MAX", 1_000_000)
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        for number in range(9):
            await kv.put(b"%03d" % number, bytes(1000))
        raw = await Raw.open(cluster, cluster.endpoints[0])
        requests = [[10 + i, "range", b"0", b"\0", 0, 0, options] for i in range(2000)]
        await raw.stream.send_all(encode(requests))
        answers: dict[int, Any] = {}
        while len(answers) < len(requests):
            answers.update((number, result) for number, result in await raw.receive())
        refused = [result for result in answers.values() if result[0] == "error"]
        assert {result[1] for result in refused} == {"TooManyRequests"}
        assert 100 <= len(requests) - len(refused) < 1000
        assert (await raw.ask([5, "range", b"0", b"\0", 0, 0, options]))[1][1] == 9
