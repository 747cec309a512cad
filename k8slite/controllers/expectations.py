"""Reading one's own writes from a cache that lags behind them (pure).

A controller that creates a pod and then plans from a cache without that pod would create another
one. So it remembers what it created and deleted, and lays that over what the cache shows, until
the cache has caught up: it contains the object, or is newer than the object's creation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k8slite.api.meta import Obj, deleting, resource_version, uid

__all__ = ["Expectations"]


class Expectations:
    """Per key of the owner: objects created, and uids of objects deleted."""

    def __init__(self) -> None:
        self._created: dict[str, dict[str, Obj]] = {}
        self._deleted: dict[str, dict[str, None]] = {}

    def created(self, key: str, obj: Obj) -> None:
        self._created.setdefault(key, {})[uid(obj)] = obj

    def deleted(self, key: str, object_uid: str) -> None:
        self._deleted.setdefault(key, {})[object_uid] = None

    def forget(self, key: str) -> None:
        """The owner is gone."""
        self._created.pop(key, None)
        self._deleted.pop(key, None)

    def overlay(self, key: str, observed: Iterable[Obj], seen: Callable[[str], bool]) -> list[Obj]:
        """What the cache shows, plus our creations, with our deletions marked as terminating.

        `seen(resource_version)`: the cache is at least that new. What the cache shows by itself
        is remembered no longer; so `observed` must come from the cache and from nowhere else.
        """
        objects = {uid(obj): obj for obj in observed}
        created, deleted = self._created.get(key, {}), self._deleted.get(key, {})
        for object_uid, obj in [*created.items()]:
            if object_uid in objects or seen(resource_version(obj)):
                del created[object_uid]
        for object_uid in [*deleted]:
            shown = objects.get(object_uid)
            if object_uid not in created and (shown is None or deleting(shown)):
                del deleted[object_uid]
        for entries in (self._created, self._deleted):
            if key in entries and not entries[key]:
                del entries[key]
        return self.applied(key, objects.values())

    def applied(self, key: str, objects: Iterable[Obj]) -> list[Obj]:
        """These objects, from wherever, with our creations and deletions; nothing is forgotten."""
        result = {uid(obj): obj for obj in objects}
        for object_uid, obj in self._created.get(key, {}).items():
            result.setdefault(object_uid, obj)
        for object_uid in self._deleted.get(key, {}):
            shown = result.get(object_uid)
            if shown is not None and not deleting(shown):
                metadata = {**shown["metadata"], "deletionTimestamp": "1970-01-01T00:00:00Z"}
                result[object_uid] = {**shown, "metadata": metadata}
        return [*result.values()]
