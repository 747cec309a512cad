"""Informers: a local copy of all objects of a kind, kept fresh by list and watch.

What a reader may rely on: the copy is a state the apiserver had (per object: a subsequence of
its states, never going back while one apiserver is asked); it lags by the watch; deletion and
re-creation may show as one update, so compare uids. Handlers are told every change they could
notice, in order, after the copy has it; they must not block and must not change the objects.
Lost watches resume from the last resourceVersion, or list again when that is too old.

Never writes. Errors of the apiserver are logged and retried for ever, with jittered back-off.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, resource_version
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.cache import Change, Index, ObjectCache
from k8slite.client.errors import ClientError
from raftkv.host import Host

__all__ = [
    "Handler",
    "Informer",
    "SharedInformers",
    "metadata_only",
    "open_informer",
    "open_informers",
]

log = logging.getLogger(__name__)

Trim = Callable[[Obj], Obj]
"""What the copy keeps of an object that came; it may change the object in place."""
OWNERSHIP_FIELDS = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "ownerReferences",
    "finalizers",
    "deletionTimestamp",
)
Handler = Callable[[Obj | None, Obj | None], None]
PAGE_ITEMS = 500
WATCH_SECONDS_MIN = 300
"""The server ends a watch after this to twice this, so that watches spread over apiservers."""
BACKOFF_SECONDS_MIN = 0.2
BACKOFF_SECONDS_MAX = 10.0
GONE = 410
NOT_FOUND = 404


class Informer:
    """The local copy of one kind (of one namespace, or of what the selectors choose)."""

    def __init__(
        self,
        api: Api,
        kind: Kind,
        host: Host,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Index] | None = None,
        trim: Trim | None = None,
    ) -> None:
        self.kind = kind
        self._api = api
        self._host = host
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._trim = trim or without_managed_fields
        self._cache = ObjectCache(indexes)
        self._handlers: list[Handler] = []
        self._synced = trio.Event()
        self._version = ""
        self._listed = False

    @property
    def synced(self) -> bool:
        return self._synced.is_set()

    @property
    def version(self) -> str:
        """The resourceVersion up to which the copy is complete; "" before the first list.

        Compare with `seen`: the resourceVersions of one kind grow with its writes.
        """
        return self._version

    def seen(self, resource_version: str) -> bool:
        """Whether a write that returned this resourceVersion is in the copy by now."""
        return bool(self._version) and int(resource_version) <= int(self._version)

    def __len__(self) -> int:
        return len(self._cache)

    def get(self, key: str) -> Obj | None:
        """The object with the key "namespace/name" (or "name"). Not to be changed."""
        return self._cache.get(key)

    def list(self) -> Sequence[Obj]:
        return self._cache.list()

    def by_index(self, index: str, value: str) -> Sequence[Obj]:
        return self._cache.by_index(index, value)

    def add_index(self, index: str, function: Index) -> None:
        self._cache.add_index(index, function)

    def add_handler(self, handler: Handler) -> None:
        """`handler(old, new)` for each change from now on, and (None, obj) for all that is here."""
        self._handlers.append(handler)
        for obj in self._cache.list():
            handler(None, obj)

    def keep_all(self) -> None:
        """Keep whole objects from now on; too late once trimmed ones are in the copy."""
        assert self._trim is without_managed_fields or not self.synced
        self._trim = without_managed_fields

    async def wait_synced(self) -> None:
        """Return once the first list is in the copy."""
        await self._synced.wait()

    async def run(self) -> None:
        """List and watch until cancelled."""
        backoff = BACKOFF_SECONDS_MIN
        while True:
            try:
                if not self._listed:
                    await self._list()
                    backoff = BACKOFF_SECONDS_MIN
                await self._watch()
                backoff = BACKOFF_SECONDS_MIN
                continue
            except ApiError as error:
                log.info("retry kind=%s error=%s", self.kind.resource, error)
                if error.code == GONE:
                    self._listed = False
                elif error.code == NOT_FOUND:  # not served (yet): there are none
                    self._tell(self._cache.replace(()))
                    self._listed = False
                    self._synced.set()
                    backoff = BACKOFF_SECONDS_MAX
            except ClientError as error:
                log.warning("retry kind=%s error=%s", self.kind.resource, error)
            await trio.sleep(backoff * (0.5 + self._host.rng.random()))
            backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)

    async def _list(self) -> None:
        items: list[Obj] = []
        continue_ = ""
        while True:
            page = await self._api.list(
                self.kind,
                self._namespace,
                labels=self._labels,
                fields=self._fields,
                limit=PAGE_ITEMS,
                continue_=continue_,
            )
            items += page.items
            continue_ = page.continue_
            if not continue_:
                break
        self._tell(self._cache.replace(map(self._trim, items)))
        self._version = page.resource_version
        self._listed = True
        self._synced.set()

    async def _watch(self) -> None:
        seconds = WATCH_SECONDS_MIN + int(self._host.rng.random() * WATCH_SECONDS_MIN)
        async with self._api.watch(
            self.kind,
            self._namespace,
            resource_version=self._version,
            labels=self._labels,
            fields=self._fields,
            bookmarks=True,
            timeout_seconds=seconds,
        ) as events:
            async for event_type, obj in events:
                if event_type != "BOOKMARK":
                    change = self._cache.apply(event_type, self._trim(obj))
                    if change is not None:
                        self._tell((change,))
                self._version = resource_version(obj)

    def _tell(self, changes: Sequence[Change]) -> None:
        for old, new in changes:
            for handler in self._handlers:
                handler(old, new)


class SharedInformers:
    """One informer per kind, however many controllers ask for it."""

    def __init__(self, api: Api, host: Host, nursery: trio.Nursery) -> None:
        self._api = api
        self._host = host
        self._nursery = nursery
        self._informers: dict[Kind, Informer] = {}

    def of(
        self, kind: Kind, indexes: Mapping[str, Index] | None = None, *, trim: Trim | None = None
    ) -> Informer:
        """The informer of the kind, started if it was not; indexes are added to it.

        `trim` counts only if nobody asks for the kind in full, before or after (but before its
        first list has come).
        """
        informer = self._informers.get(kind)
        if informer is not None and trim is None:
            informer.keep_all()
        if informer is None:
            informer = self._informers[kind] = Informer(self._api, kind, self._host, trim=trim)
            self._nursery.start_soon(informer.run, name=f"informer {kind.resource}")
        for index, function in (indexes or {}).items():
            informer.add_index(index, function)
        return informer

    async def wait_synced(self) -> None:
        for informer in [*self._informers.values()]:
            await informer.wait_synced()


@asynccontextmanager
async def open_informers(api: Api, host: Host) -> AsyncIterator[SharedInformers]:
    """A set of shared informers; all of them end on leaving."""
    async with open_background() as nursery:
        yield SharedInformers(api, host, nursery)


@asynccontextmanager
async def open_informer(
    api: Api,
    kind: Kind,
    host: Host,
    namespace: str | None = None,
    *,
    labels: str = "",
    fields: str = "",
    indexes: Mapping[str, Index] | None = None,
) -> AsyncIterator[Informer]:
    """A running informer; `wait_synced` before relying on what is absent from it."""
    informer = Informer(api, kind, host, namespace, labels=labels, fields=fields, indexes=indexes)
    async with open_background() as nursery:
        nursery.start_soon(informer.run, name=f"informer {kind.resource}")
        yield informer


def without_managed_fields(obj: Obj) -> Obj:
    """The object without what no component reads and what is often half of it."""
    obj["metadata"].pop("managedFields", None)
    return obj


def metadata_only(obj: Obj) -> Obj:
    """What the garbage collector needs of an object."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {k: v for k, v in obj["metadata"].items() if k in OWNERSHIP_FIELDS},
    }
