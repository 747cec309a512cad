"""The objects an informer knows (pure): by key, and by the indexes asked for.

Owns what changed: each mutation returns the (old, new) pairs that handlers are told. Objects in
here are shared by everybody and never mutated; who wants to change one copies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from k8slite.api.meta import Obj, key, resource_version

__all__ = ["Change", "Index", "ObjectCache"]

Change = tuple[Obj | None, Obj | None]
"""(None, new): added; (old, new): updated; (old, None): deleted."""
Index = Callable[[Obj], Sequence[str]]
"""The values under which an object is found, as the node name of a pod."""


class ObjectCache:
    """Objects of one kind. Order of iteration is that of arrival: no set, one trace a seed."""

    def __init__(self, indexes: Mapping[str, Index] | None = None) -> None:
        self._objects: dict[str, Obj] = {}
        self._index_functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[str, None]]] = {
            index: {} for index in self._index_functions
        }

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: str) -> Obj | None:
        return self._objects.get(key)

    def list(self) -> list[Obj]:
        return [*self._objects.values()]

    def by_index(self, index: str, value: str) -> Sequence[Obj]:
        """The objects with that value; KeyError for an index that does not exist."""
        keys = self._indexes[index].get(value, ())
        return [self._objects[k] for k in keys]

    def add_index(self, index: str, function: Index) -> None:
        """Index what is here and what will come; the same index twice is no error."""
        if index in self._index_functions:
            return
        self._index_functions[index] = function
        self._indexes[index] = {}
        for object_key, obj in self._objects.items():
            for value in function(obj):
                self._indexes[index].setdefault(value, {})[object_key] = None

    def apply(self, event_type: str, obj: Obj) -> Change | None:
        """One watch event. None if it tells nothing new (a replay after a reconnect)."""
        object_key = key(obj)
        old = self._objects.get(object_key)
        if event_type == "DELETED":
            if old is None:
                return None
            self._remove(object_key, old)
            return old, None
        if old is not None and resource_version(old) == resource_version(obj):
            return None
        self._put(object_key, old, obj)
        return old, obj

    def replace(self, objects: Iterable[Obj]) -> Sequence[Change]:
        """A fresh list: what vanished is deleted, what differs is updated."""
        changes: list[Change] = []
        fresh = {key(obj): obj for obj in objects}
        for object_key, old in [*self._objects.items()]:
            if object_key not in fresh:
                self._remove(object_key, old)
                changes.append((old, None))
        for obj in fresh.values():
            change = self.apply("ADDED", obj)
            if change is not None:
                changes.append(change)
        assert len(self._objects) == len(fresh)
        return changes

    def _put(self, object_key: str, old: Obj | None, new: Obj) -> None:
        if old is not None:
            self._unindex(object_key, old)
        self._objects[object_key] = new
        for index, function in self._index_functions.items():
            for value in function(new):
                self._indexes[index].setdefault(value, {})[object_key] = None

    def _remove(self, object_key: str, old: Obj) -> None:
        self._unindex(object_key, old)
        del self._objects[object_key]

    def _unindex(self, object_key: str, old: Obj) -> None:
        for index, function in self._index_functions.items():
            values = self._indexes[index]
            for value in function(old):
                keys = values[value]
                keys.pop(object_key, None)
                if not keys:
                    del values[value]
