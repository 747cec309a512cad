"""LimitRanger: defaults for what containers ask for, and bounds on it.

`default_limits` fills in what a namespace's LimitRanges of type Container say; `within_limits`
refuses pods, containers and claims outside of min, max and the ratio of limit to request.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from k8slite.api import quantity
from k8slite.api.kinds import LIMIT_RANGES
from k8slite.api.meta import Obj
from k8slite.api.status import forbidden
from k8slite.apiserver.call import Call

__all__ = ["default_limits", "within_limits"]

NOTE = "kubernetes.io/limit-ranger"
_CONTAINERS = (("container", "containers"), ("init container", "initContainers"))


def _items(call: Call, type_: str) -> Iterator[Obj]:
    """The limits of one type that hold in the call's namespace."""
    for entry in call.core.mirror.cache(LIMIT_RANGES).select(f"{call.namespace}/"):
        for item in (entry.parsed().get("spec") or {}).get("limits") or ():
            if item.get("type") == type_:
                yield item


async def default_limits(call: Call, new: Obj, old: Obj | None) -> None:
    """Give containers the requests and limits that they leave out."""
    if old is not None:
        return
    notes: list[str] = []
    for item in _items(call, "Container"):
        for word, field in _CONTAINERS:
            for container in (new.get("spec") or {}).get(field) or ():
                resources = container.setdefault("resources", {})
                for part, source in (("requests", "defaultRequest"), ("limits", "default")):
                    given = _fill(resources, part, item.get(source) or {})
                    if given:
                        what = ", ".join(sorted(given))
                        notes.append(f"{what} {part[:-1]} for {word} {container.get('name')}")
    if notes:
        text = "LimitRanger plugin set: " + "; ".join(notes)
        new["metadata"].setdefault("annotations", {})[NOTE] = text


def _fill(resources: Obj, part: str, defaults: Obj) -> list[str]:
    """Names of the resources that were missing and got a default."""
    missing = [name for name in defaults if name not in (resources.get(part) or {})]
    for name in missing:
        resources.setdefault(part, {})[name] = defaults[name]
    return missing


async def within_limits(call: Call, new: Obj, old: Obj | None) -> None:
    """Raises ApiError 403 for what is outside of the bounds."""
    if old is not None and call.kind.plural == "pods":
        return
    problems: list[str] = []
    spec = new.get("spec") or {}
    if call.kind.plural == "persistentvolumeclaims":
        for item in _items(call, "PersistentVolumeClaim"):
            _check(item, spec.get("resources") or {}, problems, limits_too=False)
    else:
        for item in _items(call, "Container"):
            for _, field in _CONTAINERS:
                for container in spec.get(field) or ():
                    _check(item, container.get("resources") or {}, problems)
        for item in _items(call, "Pod"):
            _check(item, _pod_resources(spec), problems)
    if problems:
        message = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise forbidden(call.kind, new["metadata"].get("name", ""), message)


def _pod_resources(spec: Obj) -> Obj:
    """Sums over containers; an init container counts where it alone asks for more."""
    total: Obj = {"requests": {}, "limits": {}}
    for part, sums in total.items():
        for container in spec.get("containers") or ():
            for name, text in ((container.get("resources") or {}).get(part) or {}).items():
                sums[name] = quantity.add(sums[name], text) if name in sums else text
        for container in spec.get("initContainers") or ():
            for name, text in ((container.get("resources") or {}).get(part) or {}).items():
                if name not in sums or quantity.parse(text) > quantity.parse(sums[name]):
                    sums[name] = text
    return total


def _check(item: Obj, resources: Obj, problems: list[str], *, limits_too: bool = True) -> None:
    type_ = item["type"]
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, bound in (item.get("min") or {}).items():
        head = f"minimum {name} usage per {type_} is {bound}"
        if name not in requests:
            problems.append(f"{head}.  No request is specified")
        elif _less(requests[name], bound):
            problems.append(f"{head}, but request is {requests[name]}")
        elif name in limits and _less(limits[name], bound):
            problems.append(f"{head}, but limit is {limits[name]}")
    for name, bound in (item.get("max") or {}).items():
        head = f"maximum {name} usage per {type_} is {bound}"
        if limits_too and name not in limits:
            problems.append(f"{head}.  No limit is specified")
        elif name in limits and _less(bound, limits[name]):
            problems.append(f"{head}, but limit is {limits[name]}")
        elif name in requests and _less(bound, requests[name]):
            problems.append(f"{head}, but request is {requests[name]}")
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        problem = _ratio_problem(type_, name, ratio, requests, limits)
        if problem:
            problems.append(problem)


def _less(a: str, b: str) -> bool:
    return quantity.parse(a) < quantity.parse(b)


def _ratio_problem(type_: str, name: str, ratio: str, requests: Obj, limits: Obj) -> str:
    head = f"{name} max limit to request ratio per {type_} is {ratio}"
    request = quantity.parse(requests.get(name, "0"))
    limit = quantity.parse(limits.get(name, "0"))
    if request == 0:
        return f"{head}, but no request is specified or request is 0"
    if limit == 0:
        return f"{head}, but no limit is specified or limit is 0"
    observed: Decimal = limit / request
    if observed > quantity.parse(ratio):
        return f"{head}, but provided ratio is {observed:.6f}"
    return ""
