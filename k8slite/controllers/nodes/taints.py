"""Keeping the taints that we manage on a node among those of others (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8slite.api.meta import Obj

__all__ = ["replace_taints", "taint"]


def taint(key: str, effect: str, time_added: str | None = None) -> Obj:
    result: Obj = {"key": key, "effect": effect}
    if time_added:
        result["timeAdded"] = time_added
    return result


def replace_taints(
    taints: Sequence[Obj], managed: Iterable[tuple[str, str]], wanted: Sequence[Obj]
) -> list[Obj]:
    """The taints with those (key, effect) that we manage made equal to the wanted ones.

    One that stays keeps the time at which it was added.
    """
    ours = list(managed)
    chosen = {(t["key"], t["effect"]): t for t in wanted}
    result = []
    for one in taints:
        identity = one["key"], one["effect"]
        if identity not in ours:
            result.append(one)
        elif identity in chosen:
            result.append(one)
            del chosen[identity]
    return [*result, *chosen.values()]
