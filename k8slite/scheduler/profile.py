"""A profile (pure): the plugins of one scheduler name, sorted by extension point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from attrs import field, frozen

from k8slite.scheduler.events import Wakes
from k8slite.scheduler.framework import (
    Bind,
    Filter,
    Permit,
    Plugin,
    PostBind,
    PostFilter,
    PreBind,
    PreEnqueue,
    PreFilter,
    PreScore,
    QueueSort,
    Reserve,
    Score,
    wakes_of,
)

__all__ = ["FilterEntry", "Profile", "ScoreEntry", "make_profile"]


class FilterEntry(NamedTuple):
    """One plugin of PreFilter, Filter or both."""

    name: str
    plugin: Any
    prepares: bool
    filters: bool
    local: bool


class ScoreEntry(NamedTuple):
    """One plugin of Score."""

    name: str
    plugin: Any
    weight: int
    prepares: bool
    normalizes: bool
    absolute: bool


@frozen(eq=False, kw_only=True)
class Profile:
    """In each tuple, plugins are in the order in which they are asked. `percentage` of the nodes
    that must pass before the search ends; 0: as many as kube-scheduler thinks right."""

    scheduler_name: str = "default-scheduler"
    percentage: int = 0
    sort: QueueSort
    pre_enqueue: tuple[PreEnqueue, ...] = ()
    filters: tuple[FilterEntry, ...] = ()
    post_filters: tuple[PostFilter, ...] = ()
    scores: tuple[ScoreEntry, ...] = ()
    reserves: tuple[Reserve, ...] = ()
    permits: tuple[Permit, ...] = ()
    pre_binds: tuple[PreBind, ...] = ()
    binds: tuple[Bind, ...] = ()
    post_binds: tuple[PostBind, ...] = ()
    wakes: Mapping[str, tuple[Wakes, ...] | None] = field(factory=dict)
    """By plugin; None: whatever happens."""


def make_profile(
    points: Mapping[str, Iterable[Plugin]],
    *,
    scheduler_name: str = "default-scheduler",
    weights: Mapping[str, int] | None = None,
    percentage: int = 0,
) -> Profile:
    """A profile of the plugins at each extension point. Raises ValueError if there is not exactly
    one to sort the queue, or none that binds."""
    weights = weights or {}
    at = {point: tuple(plugins) for point, plugins in points.items()}

    def those(point: str, kind: Any) -> tuple[Any, ...]:
        found = at.get(point, ())
        for plugin in found:
            if not isinstance(plugin, kind):
                raise ValueError(f"plugin {plugin.name!r} does not extend {point}")
        return found

    sorts = those("queueSort", QueueSort)
    if len(sorts) != 1:
        names = ", ".join(plugin.name for plugin in sorts)
        raise ValueError(f"profile {scheduler_name!r}: one queue sort plugin required, not {names}")
    binds = those("bind", Bind)
    if not binds:
        raise ValueError(f"profile {scheduler_name!r}: at least one bind plugin is needed")
    preparing, filtering = those("preFilter", PreFilter), those("filter", Filter)
    scoring, pre_scoring = those("score", Score), those("preScore", PreScore)
    all_plugins = {plugin.name: plugin for plugins in at.values() for plugin in plugins}
    return Profile(
        scheduler_name=scheduler_name,
        percentage=percentage,
        sort=sorts[0],
        pre_enqueue=those("preEnqueue", PreEnqueue),
        filters=tuple(
            FilterEntry(
                plugin.name,
                plugin,
                plugin in preparing,
                plugin in filtering,
                bool(getattr(plugin, "local", False)),
            )
            for plugin in dict.fromkeys((*filtering, *preparing))
        ),
        post_filters=those("postFilter", PostFilter),
        scores=tuple(
            ScoreEntry(
                plugin.name,
                plugin,
                weights.get(plugin.name, 0) or 1,
                plugin in pre_scoring,
                hasattr(plugin, "normalize"),
                bool(getattr(plugin, "absolute", False)),
            )
            for plugin in scoring
        ),
        reserves=those("reserve", Reserve),
        permits=those("permit", Permit),
        pre_binds=those("preBind", PreBind),
        binds=binds,
        post_binds=those("postBind", PostBind),
        wakes={own: wakes_of(plugin) for own, plugin in all_plugins.items()},
    )
