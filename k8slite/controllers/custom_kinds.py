"""The kinds that definitions add, for controllers that look at objects of all kinds.

Of the versions of a kind one stands for all: the one that clients prefer. Objects are the same in
each of them as far as owners, finalizers and deletion go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k8slite.api.custom import custom_kinds
from k8slite.api.kinds import CUSTOM_RESOURCE_DEFINITIONS, Kind, by_gvk
from k8slite.api.meta import Obj
from k8slite.client.informer import Informer
from k8slite.controllers.context import Context

__all__ = ["CustomKinds"]

Added = Callable[[Kind], None]
Removed = Callable[[Kind, bool], None]
"""The kind, and whether its definition is gone, and so all of its objects."""


class CustomKinds:
    """Follows the definitions. The callbacks are told of all there are, and of each change."""

    def __init__(
        self, context: Context, added: Added | None = None, removed: Removed | None = None
    ) -> None:
        self.definitions: Informer = context.informer(CUSTOM_RESOURCE_DEFINITIONS)
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._added = added
        self._removed = removed
        self.definitions.add_handler(self._on_change)

    def all(self) -> Sequence[Kind]:
        return tuple(self._kinds.values())

    def find(self, api_version: str, kind: str) -> Kind | None:
        """A kind by what an object says of itself, built in or defined; in whatever version."""
        built_in = by_gvk(api_version, kind)
        if built_in is not None:
            return built_in
        group = api_version.rpartition("/")[0]
        return next((k for k in self._kinds.values() if k.group == group and k.kind == kind), None)

    def _on_change(self, old: Obj | None, new: Obj | None) -> None:
        definition = new or old
        assert definition is not None
        spec = definition["spec"]
        place = (spec["group"], spec["names"]["plural"])
        before = self._kinds.get(place)
        now = before if new is None else (_kind(new) or before)
        if new is not None and now == before:
            return
        if before is not None:
            del self._kinds[place]
            if self._removed:
                self._removed(before, new is None)
        if new is not None and now is not None:
            self._kinds[place] = now
            if self._added:
                self._added(now)


def _kind(definition: Obj) -> Kind | None:
    """None while its names are not accepted yet, and when no version is served."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        return None
    return next((custom.kind for custom in custom_kinds(definition)), None)
