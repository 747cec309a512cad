"""Everything the store holds under /registry, mirrored as bytes, and how fresh the mirror is.

One watch of the store serves all resources: it makes "the mirror has caught up with revision N"
a single number. (Upstream has a stream a resource, and needs progress requests for each.)

A read that must be the newest (`wait_fresh`) asks the store for its current revision, once for
all who ask in the same turn of the loop, and waits until the mirror is there. An apiserver cut
off from the quorum therefore refuses such reads; it never answers them from old data.
"""

from __future__ import annotations

import logging

import trio

from k8slite.api.kinds import Kind
from k8slite.api.status import ApiError, too_large_resource_version
from k8slite.apiserver.objects import ROOT, parse_key, storage_kind
from k8slite.apiserver.store.base import Batch, Store, Watch, prefix_end
from k8slite.apiserver.watch_cache import KindCache, Waker
from raftkv.errors import Compacted, KvError

__all__ = ["Mirror", "store_unavailable"]

log = logging.getLogger(__name__)

PAGE_ITEMS = 2_000
PROGRESS_SECONDS = 0.05  # how long to wait for an event before asking for progress
REVISION_WAIT_SECONDS = 3.0  # as kube-apiserver: then 504 "Too large resource version"
RETRY_SECONDS = 0.5
LAG_SECONDS = 2.0  # how far behind the store's answer the watch may be before it is opened anew


def store_unavailable(error: object) -> ApiError:
    """503 for a request that certainly changed nothing, because no quorum answered."""
    return ApiError(503, "ServiceUnavailable", f"the store is not available: {error}", None, 1)


class _Fresh:
    """One question for the current revision, shared by those who asked together."""

    __slots__ = ("done", "error", "revision")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: ApiError | None = None
        self.revision = 0


class Mirror:
    """Actor: its `run` task alone changes the caches."""

    def __init__(self, store: Store, *, history_events: int, store_seconds: float) -> None:
        self.revision = 0
        self.synced = trio.Event()
        self.waker = Waker()
        self._store = store
        self._history_events = history_events
        self._store_seconds = store_seconds
        self._caches: dict[tuple[str, str], KindCache] = {}
        self._open: _Fresh | None = None
        self._advanced = trio.Event()
        self._watch: Watch | None = None
        self._following = trio.CancelScope()
        self._floor = 0

    # --- the caches -----------------------------------------------------------------------------

    def cache(self, kind: Kind) -> KindCache:
        """The cache of a kind, whatever its version."""
        stored = storage_kind(kind)
        return self.raw_cache(stored.group, stored.plural)

    def raw_cache(self, group: str, plural: str) -> KindCache:
        """The cache of the keys under a group and a plural."""
        cache = self._caches.get((group, plural))
        if cache is None:
            cache = KindCache(group, plural, self._history_events)
            cache.floor = self._floor
            self._caches[group, plural] = cache
        return cache

    def caches(self) -> list[KindCache]:
        """All caches that have or had an object."""
        return list(self._caches.values())

    # --- following the store --------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the store for ever; list again whenever history was lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.waker.run)
            listed = False
            while True:
                try:
                    if not listed:
                        await self._list()
                        listed = True
                    await self._follow()
                except Compacted as error:
                    log.warning("mirror lost history, lists again at=%s: %s", self.revision, error)
                    listed = False
                except KvError as error:
                    log.warning("mirror lost the store, retrying: %s", error)
                    await trio.sleep(RETRY_SECONDS)

    async def _list(self) -> None:
        pages = []
        start, revision = ROOT, 0
        while True:
            page = await self._store.page(start, prefix_end(ROOT), PAGE_ITEMS, revision)
            pages.append(page)
            revision = page.revision
            if page.remaining <= 0:
                break
            start = page.items[-1].key + b"\0"
        self._floor = revision
        for cache in self._caches.values():
            cache.reset(revision)
        for page in pages:
            for item in page.items:
                group, plural, rest = parse_key(item.key)
                self.raw_cache(group, plural).load(rest, item.revision, item.value)
        self._advance(revision)
        self.synced.set()

    async def _follow(self) -> None:
        with trio.CancelScope() as self._following:
            async with self._store.watch(ROOT, self.revision + 1) as watch:
                self._watch = watch
                try:
                    async for batch in watch:
                        self._apply(batch)
                finally:
                    self._watch = None

    def _apply(self, batch: Batch) -> None:
        caches = self._caches
        for change in batch.changes:
            if change.revision <= self.revision:
                continue
            group, plural, rest = parse_key(change.key)
            cache = caches.get((group, plural)) or self.raw_cache(group, plural)
            cache.apply(rest, change.revision, change.value)
        if batch.revision > self.revision:
            self._advance(batch.revision)

    def _advance(self, revision: int) -> None:
        assert revision >= self.revision, (revision, self.revision)
        self.revision = revision
        advanced, self._advanced = self._advanced, trio.Event()
        advanced.set()

    # --- freshness ------------------------------------------------------------------------------

    async def wait_revision(self, revision: int) -> None:
        """Wait until everything up to `revision` is mirrored."""
        while self.revision < revision:
            advanced = self._advanced
            with trio.move_on_after(PROGRESS_SECONDS):
                await advanced.wait()
            if self.revision < revision and self._watch is not None:
                await self._watch.request_progress()

    async def wait_at_least(self, revision: int) -> None:
        """As a client asks with resourceVersion=N. Raises 504 when N stays in the future."""
        if self.revision >= revision:
            return
        with trio.move_on_after(REVISION_WAIT_SECONDS):
            await self.wait_revision(revision)
        if self.revision < revision:
            raise too_large_resource_version(revision, self.revision)

    async def wait_fresh(self) -> int:
        """Wait until the mirror has every commit acknowledged before this call; its revision.

        Raises ApiError 503 when the store gives no answer in time.
        """
        while True:
            fresh = self._open
            if fresh is None:
                fresh = self._open = _Fresh()
                try:
                    await self._ask(fresh)
                finally:
                    # Cancelled in the middle, the others must not wait for ever: one asks again.
                    if self._open is fresh:
                        self._open = None
                    fresh.done.set()
            else:
                await fresh.done.wait()
            if fresh.error is not None:
                raise ApiError(503, fresh.error.reason, fresh.error.message, None, 1)
            if fresh.revision:
                return fresh.revision

    async def _ask(self, fresh: _Fresh) -> None:
        """Ask for all who join before the next turn of the loop."""
        await trio.lowlevel.checkpoint()
        self._open = None  # whoever comes from now on needs a later answer
        try:
            with trio.fail_after(self._store_seconds):
                revision = await self._store.current_revision()
                with trio.move_on_after(LAG_SECONDS):
                    await self.wait_revision(revision)
                if self.revision < revision:
                    # The store answers, but our watch does not keep up: it may hang on a member
                    # that is cut off or stopped. Watch anew, from where we are.
                    log.warning("mirror lags at=%s store=%s", self.revision, revision)
                    self._following.cancel()
                    await self.wait_revision(revision)
                fresh.revision = revision
        except KvError as error:
            fresh.error = store_unavailable(error)
        except trio.TooSlowError:
            fresh.error = store_unavailable("no answer from a quorum in time")
