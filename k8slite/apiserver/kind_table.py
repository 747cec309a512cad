"""Every kind that is served now: the built-in ones, those of resource metrics, and those of
established definitions.

Owns: the table of custom kinds, rebuilt when a definition changed, and `memo`, where others keep
what they made of the table until then.
"""

from __future__ import annotations

from typing import Any

from k8slite.api.custom import CustomKind, custom_kinds
from k8slite.api.kinds import CUSTOM_RESOURCE_DEFINITIONS, KIND, KINDS, Kind, by_path
from k8slite.api.meta import Obj, condition_is
from k8slite.api.resource_metrics import RESOURCE_METRICS, SCHEMAS
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.watch_cache import Entry

__all__ = ["KindTable", "is_custom"]


_METRICS = {(kind.group, kind.version, kind.plural): kind for kind in RESOURCE_METRICS}


def is_custom(kind: Kind) -> bool:
    """Is the kind one of a definition?"""
    return kind.resource not in KIND and kind not in RESOURCE_METRICS


class KindTable:
    """See the module."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._cache = mirror.cache(CUSTOM_RESOURCE_DEFINITIONS)
        self._built_at = (-1, -1)
        self._custom: dict[tuple[str, str, str], CustomKind] = {}
        self._group_versions: set[tuple[str, str]] = set()
        self._memo: dict[tuple[str, ...], Any] = {}
        self._made: dict[str, tuple[int, tuple[CustomKind, ...]]] = {}
        """Of each definition: its revision, and what was made of it then."""

    @property
    def memo(self) -> dict[tuple[str, ...], Any]:
        """What was made of the table; emptied when it changes."""
        self._refresh()
        return self._memo

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at a path."""
        found = by_path(group, version, plural) or _METRICS.get((group, version, plural))
        if found is not None:
            return found
        self._refresh()
        custom = self._custom.get((group, version, plural))
        return None if custom is None else custom.kind

    def serves(self, group: str, version: str) -> bool:
        """Is there anything in this group and version?"""
        self._refresh()
        return (group, version) in self._group_versions

    def custom(self, kind: Kind) -> CustomKind | None:
        """The definition's version behind a kind; None for built-in kinds."""
        self._refresh()
        return self._custom.get((kind.group, kind.version, kind.plural))

    def printer_columns(self, kind: Kind) -> tuple[Obj, ...]:
        """The columns of a custom kind's table."""
        custom = self.custom(kind) if is_custom(kind) else None
        return custom.printer_columns if custom is not None else ()

    def all(self) -> list[Kind]:
        """All kinds, in the order of discovery."""
        self._refresh()
        return [*KINDS, *RESOURCE_METRICS, *(custom.kind for custom in self._custom.values())]

    def schemas(self, group: str, version: str) -> dict[str, Obj]:
        """Kind to schema, of the kinds of a group and version that are not built in."""
        if group == RESOURCE_METRICS[0].group and version == RESOURCE_METRICS[0].version:
            return dict(SCHEMAS)
        self._refresh()
        return {
            custom.kind.kind: custom.schema
            for custom in self._custom.values()
            if (custom.kind.group, custom.kind.version) == (group, version)
        }

    def _refresh(self) -> None:
        at = (self._cache.floor, self._cache.changed_at)
        if at == self._built_at:
            return
        self._built_at = at
        before, self._custom = self._custom, {}
        for entry in self._cache.entries.values():
            definition = entry.parsed()
            if condition_is(definition, "Established"):
                for custom in self._kinds_of(entry):
                    kind = custom.kind
                    self._custom[kind.group, kind.version, kind.plural] = custom
        always = (*KINDS, *RESOURCE_METRICS)
        self._group_versions = {(kind.group, kind.version) for kind in always}
        self._group_versions |= {(group, version) for group, version, _ in self._custom}
        self._memo = {}
        self._made = {
            name: made for name, made in self._made.items() if name in self._cache.entries
        }
        for path, custom in before.items():
            if path not in self._custom:
                self._mirror.cache(custom.kind).close_all()

    def _kinds_of(self, definition: Entry) -> tuple[CustomKind, ...]:
        """The same ones as long as the definition stays as it is."""
        made = self._made.get(definition.key)
        if made is None or made[0] != definition.revision:
            made = definition.revision, tuple(custom_kinds(definition.parsed()))
            self._made[definition.key] = made
        return made[1]
