"""Work queues: stingy, fair, exclusive; delays; back-off."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.client.workqueue import DelayedKeys, DirtyQueue, RateLimiter, WorkQueue


def test_a_key_added_often_is_handled_once() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    for _ in range(3):
        queue.add("a")
    assert queue.get() == "a"
    with pytest.raises(IndexError):
        queue.get()


def test_a_key_added_while_in_hand_comes_again_after_done() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.add("a")
    queue.get()
    assert not queue.add("a")
    assert len(queue) == 0
    assert queue.done("a")
    assert queue.get() == "a"
    assert not queue.done("a")
    assert queue.idle


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.integers(0, 3))))
def test_no_key_is_lost_or_in_two_hands(steps: list[tuple[str, int]]) -> None:
    """The twin: a set of keys that must still be handled, and a set of those in hand."""
    queue: DirtyQueue[int] = DirtyQueue()
    needed: set[int] = set()
    hands: set[int] = set()
    for step, key in steps:
        if step == "add":
            queue.add(key)
            needed.add(key)
        elif step == "get" and len(queue):
            got = queue.get()
            assert got in needed
            assert got not in hands
            needed.remove(got)
            hands.add(got)
        elif step == "done" and key in hands:
            queue.done(key)
            hands.remove(key)
        assert len(queue) == len(needed - hands)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20))), st.integers(0, 20))
def test_delayed_keys_come_at_their_earliest_time(adds: list[tuple[int, int]], now: int) -> None:
    delayed: DelayedKeys[int] = DelayedKeys()
    earliest: dict[int, int] = {}
    for key, due in adds:
        delayed.add(key, due)
        earliest[key] = min(due, earliest.get(key, due))
    assert delayed.next_due() == min(earliest.values(), default=float("inf"))
    taken = delayed.take_due(now)
    assert sorted(taken) == sorted(k for k, due in earliest.items() if due <= now)
    assert [earliest[k] for k in taken] == sorted(earliest[k] for k in taken)


def test_back_off_doubles_to_its_bound_and_is_forgotten() -> None:
    limiter: RateLimiter[str] = RateLimiter(1, 10)
    assert [limiter.when("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    limiter.forget("a")
    assert limiter.when("a") == 1


async def test_waiting_workers_get_keys_as_they_come_due(
    autojump_clock: trio.testing.MockClock,
) -> None:
    queue: WorkQueue[str] = WorkQueue()
    got = []

    async def work() -> None:
        while True:
            key = await queue.get()
            got.append((key, trio.current_time()))
            await trio.sleep(0.5 if key != "long" else 100)
            queue.done(key)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        queue.add_after("later", 5)
        await trio.testing.wait_all_tasks_blocked()
        queue.add("long")  # the worker that watched over "later" may be the one to take this
        queue.add_after("sooner", 2)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(k, t - start) for k, t in got] == [("long", 0), ("sooner", 2), ("later", 5)]


async def test_a_burst_of_events_costs_few_passes_and_the_first_none_of_the_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=1.0)
    times = []

    async def work() -> None:
        while True:
            key = await queue.get()
            times.append(trio.current_time())
            queue.done(key)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        start = trio.current_time()
        for _ in range(25):
            queue.add("a")
            await trio.sleep(0.1)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [round(t - start, 3) for t in times] == [0, 1, 2, 3]
