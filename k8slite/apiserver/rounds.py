"""Work that is done whenever certain objects have changed: level-triggered, all of it each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from k8slite.api.kinds import Kind
from k8slite.apiserver.core import Core
from k8slite.apiserver.watch_cache import Subscription

__all__ = ["run_rounds"]

RETRY_SECONDS = 0.5
QUEUE_EVENTS_MAX = 1_000


async def run_rounds(
    core: Core,
    kinds: Sequence[Kind],
    work: Callable[[], Awaitable[bool]],
    *,
    every_seconds: float = float("inf"),
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """For ever: do a round of work at once, after each change of an object of these kinds, and so
    often in any case. A round that answers False comes again after `retry_seconds`.
    """
    news = trio.Event()

    async def listen(kind: Kind) -> None:
        cache = core.mirror.cache(kind)
        while True:
            subscription = Subscription(
                core.mirror.waker, "", "", None, QUEUE_EVENTS_MAX, bookmarks=False
            )
            number = cache.add(subscription)
            try:
                news.set()
                while not subscription.closed:
                    await subscription.take()
                    news.set()
            finally:
                cache.remove(number)

    async with trio.open_nursery() as nursery:
        for kind in kinds:
            nursery.start_soon(listen, kind)
        while True:
            news = trio.Event()
            seconds = every_seconds if await work() else retry_seconds
            with trio.move_on_after(seconds):
                await news.wait()
