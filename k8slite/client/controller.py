"""The loop of a controller: workers take keys, reconcile them, and retry those that failed.

Owns the retry policy. What a reconcile function may raise is REQUEST_ERRORS; these are logged
and the key comes again after its back-off. Anything else is a bug and ends the component.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from k8slite.api.status import ApiError
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.client.workqueue import K, WorkQueue

__all__ = ["run_workers"]

log = logging.getLogger(__name__)
CONFLICT = 409


async def run_workers(
    name: str, queue: WorkQueue[K], reconcile: Callable[[K], Awaitable[float | None]], workers: int
) -> None:
    """Handle keys with `workers` tasks until cancelled.

    `reconcile` makes one key right and returns after how many seconds to look at it again
    (None: when something changes).
    """
    async with trio.open_nursery() as nursery:
        for number in range(workers):
            nursery.start_soon(_work, name, queue, reconcile, name=f"{name} {number}")


async def _work(
    name: str, queue: WorkQueue[K], reconcile: Callable[[K], Awaitable[float | None]]
) -> None:
    while True:
        key = await queue.get()
        try:
            again = await reconcile(key)
        except REQUEST_ERRORS as error:
            expected = isinstance(error, ApiError) and error.code == CONFLICT
            level = logging.DEBUG if expected else logging.WARNING
            log.log(level, "retry controller=%s key=%s error=%s", name, key, error)
            queue.add_rate_limited(key)
        else:
            queue.forget(key)
            if again is not None:
                queue.add_after(key, again)
        queue.done(key)
