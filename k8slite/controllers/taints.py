"""Taints and tolerations (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8slite.api.meta import Obj

__all__ = ["NOT_READY", "UNREACHABLE", "replace_taints", "taint", "tolerates"]

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


def taint(key: str, effect: str, time_added: str | None = None) -> Obj:
    result: Obj = {"key": key, "effect": effect}
    if time_added:
        result["timeAdded"] = time_added
    return result


def tolerates(toleration: Obj, one: Obj) -> bool:
    """Whether the toleration accepts the taint, as the scheduler and the taint manager see it."""
    if toleration.get("effect") and toleration["effect"] != one["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != one["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if operator == "Equal":
        return bool(toleration.get("key")) and (
            (toleration.get("value") or "") == (one.get("value") or "")
        )
    return False


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
