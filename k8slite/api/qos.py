"""A pod's quality-of-service class, from the requests and limits of its containers."""

from __future__ import annotations

from k8slite.api import quantity
from k8slite.api.meta import Obj

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
_COUNTED = ("cpu", "memory")


def qos_class(pod: Obj) -> str:
    """Guaranteed: every container's cpu and memory limits equal its requests. BestEffort: none
    set.
    """
    spec = pod["spec"]
    level = spec.get("resources") or {}
    if any(n in (level.get(f) or {}) for n in _COUNTED for f in ("requests", "limits")):
        owners = [level]
    else:
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        owners = [c.get("resources") or {} for c in containers]
    any_set, guaranteed = False, True
    for resources in owners:
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in _COUNTED:
            request, limit = _positive(requests.get(name)), _positive(limits.get(name))
            any_set = any_set or request is not None or limit is not None
            if limit is None or (request is not None and request != limit):
                guaranteed = False
    if not any_set:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def _positive(text: str | None) -> object:
    if text is None:
        return None
    number = quantity.parse(text)
    return number if number > 0 else None
