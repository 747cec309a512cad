"""News are told in rounds: what gathers in the pause after one leaves together, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from raftkv.client import prefix_end
from raftkv.mvcc.machine import Machine
from raftkv.server.sessions import Session
from raftkv.server.watch_streams import RECEIVER_SECONDS, WatchStreams
from raftkv.streams import Flusher
from raftkv.wire.framing import unpack


class Bench:
    """A machine, its watch streams, and what their connections would send."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.streams = WatchStreams(self.machine)
        self._near, self._far = trio.testing.memory_stream_pair()

    def session(self, *watch_ids: int) -> Session:
        """A connection that watches the keys that begin with k."""
        session = Session(1, self._near, Flusher())
        for watch_id in watch_ids:
            self.watch(session, watch_id)
        return session

    def watch(self, session: Session, watch_id: int) -> None:
        self.streams.create(session, 1, [1, "watch", watch_id, b"k", prefix_end(b"k"), 0, 0])

    def put(self, *keys: bytes) -> None:
        for key in keys:
            self.streams.notify(self.machine.apply(["put", key, b"v", 0, False])[1])


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.streams.tell)
        yield bench
        nursery.cancel_scope.cancel()


def pushes(session: Session) -> list[tuple[Any, list[int]]]:
    """(watch ids, revisions) of each push that waits in the outbox."""
    packed = session.outbox._take()[4:]
    found = [message for message in unpack(packed) if message[0] == 0]
    return [(message[1], [event[1][3] for event in message[4]]) for message in found]


async def test_news_gather_in_the_pause_after_a_round(mock_clock: MockClock) -> None:
    async with open_bench() as bench:
        sessions = [bench.session(7) for _ in range(100)]
        bench.put(b"k1")
        await wait_all_tasks_blocked()
        bench.put(b"k2", b"k3")
        await wait_all_tasks_blocked()
        assert all(pushes(session) == [(7, [2])] for session in sessions)
        mock_clock.jump(100 * RECEIVER_SECONDS)
        await wait_all_tasks_blocked()
        assert all(pushes(session) == [(7, [3, 4])] for session in sessions)


async def test_watches_of_a_connection_share_a_push(mock_clock: MockClock) -> None:
    async with open_bench() as bench:
        session, other = bench.session(1, 2, 3), bench.session(1)
        bench.streams.cancel(session, 5, [5, "watch_cancel", 2])
        bench.put(b"k1", b"other")
        await wait_all_tasks_blocked()
        assert pushes(session) == [([1, 3], [2])]
        assert pushes(other) == [(1, [2])]


async def test_now_is_what_is_applied_not_what_was_told(mock_clock: MockClock) -> None:
    """A watch that is created while news wait sees none of them, and costs nobody any."""
    async with open_bench() as bench:
        early, late = bench.session(1), bench.session()
        bench.put(b"k1")
        bench.watch(late, 1)
        bench.put(b"k2")
        await wait_all_tasks_blocked()
        assert pushes(early) == [(1, [2]), (1, [3])]
        assert pushes(late) == [(1, [3])]
