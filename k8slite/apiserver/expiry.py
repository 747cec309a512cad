"""Events are news: an hour after they were last seen they are deleted.

Upstream has the store's leases do this. Here each server looks now and then; deletions are
guarded by revision, so that an event which was seen again meanwhile stays.
"""

from __future__ import annotations

import logging

import trio

from k8slite.api.kinds import EVENTS
from k8slite.api.meta import Obj, parse_time
from k8slite.apiserver.core import Core
from k8slite.apiserver.objects import storage_key
from k8slite.apiserver.store.base import Changed, Write
from raftkv.errors import KvError

__all__ = ["expire_events", "last_seen"]

log = logging.getLogger(__name__)

CHECKS_PER_LIFE = 20
COMMIT_WRITES = 50


def last_seen(event: Obj) -> float:
    """When an event was last heard of, in seconds since 1970; 0 if it does not say."""
    metadata, series = event["metadata"], event.get("series") or {}
    times = (
        metadata.get("creationTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        series.get("lastObservedTime"),
    )
    return max((parse_time(text) for text in times if text), default=0.0)


async def expire_events(core: Core) -> None:
    """For ever."""
    life = core.config.event_seconds
    while True:
        await trio.sleep(life / CHECKS_PER_LIFE)
        cache, before = core.mirror.cache(EVENTS), core.now() - life
        old = [
            Write(storage_key(EVENTS, entry.namespace, entry.name), None, entry.revision)
            for entry in cache.entries.values()
            if last_seen(entry.parsed()) < before
        ]
        for start in range(0, len(old), COMMIT_WRITES):
            try:
                with trio.move_on_after(core.config.store_seconds):
                    await core.store.commit(old[start : start + COMMIT_WRITES])
            except Changed:
                log.debug("events changed while they expired")
            except KvError as error:
                log.warning("events could not expire: %s", error)
                break
