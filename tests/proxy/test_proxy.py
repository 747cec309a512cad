"""The loop: gathers changes, tries again, never dies of a writer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from k8slite.api.kinds import ENDPOINT_SLICES, SERVICES
from k8slite.client.client import ClientConfig
from k8slite.client.informer import open_informers
from k8slite.proxy.proxy import Proxy, ProxyConfig, open_proxy_over
from k8slite.proxy.table import Table
from k8slite.proxy.writer import WriteFailed
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost
from tests.proxy.objects import endpoint, endpoint_slice, service

CONFIG = ProxyConfig(client=ClientConfig(endpoints=()), node_name="node-1")


class RecordingWriter:
    def __init__(self) -> None:
        self.tables: list[Table] = []
        self.times: list[float] = []
        self.answers: list[Any] = []
        self.looks = 0

    async def sync(self, table: Table) -> list[str]:
        self.times.append(trio.current_time())
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        self.tables.append(table)
        return list(answer)

    async def look(self) -> None:
        self.looks += 1

    async def cleanup(self) -> None:
        self.tables.clear()


@asynccontextmanager
async def open_over(api: FakeApi, writer: RecordingWriter) -> AsyncIterator[Proxy]:
    async with (
        open_informers(api, MemoryHost()) as informers,
        open_proxy_over(informers, CONFIG, writer) as proxy,
    ):
        yield proxy


async def test_changes_are_gathered(autojump_clock: trio.testing.MockClock) -> None:
    api, writer = FakeApi(), RecordingWriter()
    api.add(SERVICES, service())
    async with open_over(api, writer) as proxy:
        await proxy.wait_synced()
        assert [len(entry.endpoints) for entry in writer.tables[-1].values()] == [0]
        for number in range(50):
            api.add(
                ENDPOINT_SLICES,
                endpoint_slice(endpoint(f"10.244.1.{number}"), suffix=str(number)),
            )
        await trio.sleep(5)
        assert [len(entry.endpoints) for entry in writer.tables[-1].values()] == [50]
        assert len(writer.tables) == 2
        assert proxy.ports == 1
        await trio.sleep(100)
        assert writer.looks == 3
        assert len(writer.tables) == 2 + 3, "only shown again after each look"


async def test_failures_are_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    api, writer = FakeApi(), RecordingWriter()
    api.add(SERVICES, service())
    writer.answers = [WriteFailed("no iptables"), WriteFailed("no iptables"), ["port 80 is taken"]]
    async with open_over(api, writer) as proxy:
        await trio.sleep(7)
        assert proxy.problems == ["no iptables"]
        assert proxy.syncs == 0
        await proxy.wait_synced()
        assert proxy.problems == ["port 80 is taken"]
        await trio.sleep(8)
        assert proxy.problems == []
    assert writer.times[1] - writer.times[0] >= CONFIG.retry_seconds
    assert len(writer.times) == 4


async def test_lost_watches_cost_time_only(autojump_clock: trio.testing.MockClock) -> None:
    api, writer = FakeApi(), RecordingWriter()
    api.add(SERVICES, service())
    async with open_over(api, writer) as proxy:
        await proxy.wait_synced()
        api.break_watches(compact=True)
        api.add(SERVICES, service("other", "10.96.0.11"))
        await trio.sleep(60)
        assert len(writer.tables[-1]) == 2


async def test_followers_come_after_the_rules(autojump_clock: trio.testing.MockClock) -> None:
    class Follows:
        def __init__(self) -> None:
            self.seen: list[int] = []

        async def sync(self, table: Table) -> list[str]:
            self.seen.append(len(writer.tables))
            return ["no"] if len(self.seen) == 1 else []

    api, writer, follows = FakeApi(), RecordingWriter(), Follows()
    api.add(SERVICES, service())
    writer.answers = [WriteFailed("later")]
    async with (
        open_informers(api, MemoryHost()) as informers,
        open_proxy_over(informers, CONFIG, writer, [follows]) as proxy,
    ):
        await proxy.wait_synced()
        await trio.sleep(1)
        assert proxy.problems == ["no"]
        await trio.sleep(20)
        assert proxy.problems == []
    assert follows.seen[:2] == [1, 2]
