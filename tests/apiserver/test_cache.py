"""The watch cache against a dumb twin, and a mirror that loses its history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.selectors import ALL_FIELDS, parse_labels
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.options import Selection
from k8slite.apiserver.store.base import Batch, Item, Page, Watch, Write
from k8slite.apiserver.store.memory import MemoryStore
from k8slite.apiserver.watch_cache import ADDED, DELETED, Event, KindCache, Subscription, Waker
from raftkv.errors import Compacted

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["d/x", "d/y", "d-e/x", "f/z"]),
        st.sampled_from([None, "1", "2"]),
    ),
    max_size=30,
)


def value(name: str, label: str) -> bytes:
    return orjson.dumps({"metadata": {"name": name, "labels": {"l": label}}})


def replay(state: dict[str, str], events: Sequence[tuple[str, Event]]) -> None:
    """What a client makes of a watch: every event must fit what it knows."""
    for kind, event in events:
        key = event.entry.key
        if kind == DELETED:
            del state[key]
            continue
        assert (kind == ADDED) == (key not in state), (kind, key)
        state[key] = event.entry.parsed()["metadata"]["labels"]["l"]


@given(CHANGES, st.integers(0, 30), st.sampled_from(["", "d/"]), st.sampled_from(["", "l=1"]))
async def test_a_watcher_knows_what_a_list_says(
    changes: list[tuple[str, str, str | None]], join_at: int, prefix: str, labels: str
) -> None:
    cache = KindCache("", "things", 1000)
    twin: dict[str, str] = {}
    selection = Selection(parse_labels(labels), ALL_FIELDS) if labels else None
    seen: dict[str, str] = {}
    subscription: Subscription | None = None
    for revision, (_, key, label) in enumerate(changes, start=1):
        if revision == join_at:
            subscription = Subscription(Waker(), prefix, "", selection, 1000, bookmarks=False)
            cache.add(subscription)
            seen = {
                e.key: e.parsed()["metadata"]["labels"]["l"]
                for e in cache.select(prefix)
                if selection is None or selection.matches(e)
            }
        if label is None:
            twin.pop(key, None)
            cache.apply(key, revision, None)
        else:
            twin[key] = label
            cache.apply(key, revision, value(key, label))
    assert [e.key for e in cache.select("")] == sorted(twin)
    wanted = {k: v for k, v in twin.items() if k.startswith(prefix) and (not labels or v == "1")}
    assert [e.key for e in cache.select(prefix)] == [
        k for k in sorted(twin) if k.startswith(prefix)
    ]
    if subscription is not None and subscription.has_events:
        replay(seen, await subscription.take())
    if subscription is not None:
        assert seen == wanted


@given(CHANGES, st.integers(0, 30), st.integers(1, 10))
def test_history_is_whole_or_refused(
    changes: list[tuple[str, str, str | None]], since: int, kept: int
) -> None:
    cache = KindCache("", "things", kept)
    happened: list[int] = []
    for revision, (_, key, label) in enumerate(changes, start=1):
        before = cache.entries.get(key)
        cache.apply(key, revision, None if label is None else value(key, label))
        if label is not None or before is not None:
            happened.append(revision)
    history = cache.history(since)
    wanted = [revision for revision in happened if revision > since]
    if history is None:
        assert len(wanted) > kept
    else:
        assert [event.revision for event in history] == wanted


class ForgetfulStore:
    """Its first watch ends with Compacted; the second list has other objects."""

    def __init__(self) -> None:
        self.lists = 0
        self.lose = trio.Event()

    async def page(self, start: bytes, end: bytes, limit: int = 0, revision: int = 0) -> Page:
        self.lists += 1
        name = b"old" if self.lists == 1 else b"new"
        item = Item(b"/registry/configmaps/d/" + name, value("x", "1"), 5 * self.lists)
        return Page([item], 5 * self.lists, 0)

    @asynccontextmanager
    async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[ForgetfulStore]:
        yield self

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        await self.lose.wait()
        if self.lists > 1:
            await trio.sleep_forever()
        raise Compacted

    async def request_progress(self) -> None:
        pass

    async def current_revision(self) -> int:
        return 5 * self.lists

    async def get(self, key: bytes) -> Item | None:
        return None

    async def commit(self, writes: Sequence[Write]) -> int:
        return 0

    async def compact(self, revision: int) -> None:
        pass


async def test_lost_history_closes_watchers_and_lists_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = ForgetfulStore()
    mirror = Mirror(store, history_events=10, store_seconds=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await mirror.synced.wait()
        cache = mirror.raw_cache("", "configmaps")
        assert list(cache.entries) == ["d/old"]
        subscription = Subscription(mirror.waker, "", "", None, 10, bookmarks=False)
        cache.add(subscription)
        store.lose.set()
        assert await subscription.take() == []
        assert subscription.closed
        await mirror.wait_revision(10)
        assert list(cache.entries) == ["d/new"]
        assert cache.history(5) is None
        nursery.cancel_scope.cancel()


async def test_who_asks_together_shares_one_question(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And if the one who asks for all is cancelled, another takes over."""

    class CountingStore(ForgetfulStore):
        questions = 0

        async def current_revision(self) -> int:
            self.questions += 1
            await trio.sleep(1)
            return 5

    store = CountingStore()
    mirror = Mirror(store, history_events=10, store_seconds=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await mirror.synced.wait()
        async with trio.open_nursery() as askers:
            for _ in range(10):
                askers.start_soon(mirror.wait_fresh)
        assert store.questions == 1
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await mirror.wait_fresh())

        async with trio.open_nursery() as askers:
            with trio.move_on_after(0.5):
                askers.start_soon(ask)
                await mirror.wait_fresh()
        assert answers == [5]
        nursery.cancel_scope.cancel()


async def test_a_watch_that_hangs_is_opened_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class HangingStore(MemoryStore):
        """The first watch never tells anything."""

        watches = 0

        @asynccontextmanager
        async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[Watch]:
            self.watches += 1
            if self.watches == 1:
                yield ForgetfulStore()
                return
            async with super().watch(prefix, start_revision) as watch:
                yield watch

    store = HangingStore()
    mirror = Mirror(store, history_events=10, store_seconds=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await mirror.synced.wait()
        revision = await store.commit([Write(b"/registry/configmaps/d/a", value("a", "1"), 0)])
        assert await mirror.wait_fresh() == revision
        assert store.watches == 2
        assert list(mirror.raw_cache("", "configmaps").entries) == ["d/a"]
        nursery.cancel_scope.cancel()
