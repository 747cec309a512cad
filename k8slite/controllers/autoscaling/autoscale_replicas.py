"""How many replicas a metric asks for (pure): kube-controller-manager's replica calculator.

Amounts are in thousandths of the metric's unit. Pods that are not ready yet, or tell no metric,
count as if they dampened the change: at nothing when there shall be more pods, at their whole
request when there shall be fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from k8slite.api import quantity
from k8slite.api.meta import Obj, deleting, get_condition, name, parse_time
from k8slite.controllers.workloads.pods import is_ready, phase

__all__ = [
    "MetricsMissing",
    "Reading",
    "Tolerance",
    "average_replicas",
    "ready_count",
    "utilization_replicas",
    "value_replicas",
]

CPU_INITIALIZATION = 300.0
"""For so long after its start a pod's processor time counts only if it was taken while ready."""
INITIAL_READINESS = 30.0
NO_METRICS = "did not receive metrics for targeted pods (pods might be unready)"


class MetricsMissing(Exception):
    """There is nothing to calculate with; the text is for the condition."""


@frozen
class Reading:
    """A pod's metric: in thousandths, as of `time`, over the `window` seconds before."""

    milli: int
    time: float = 0.0
    window: float = 60.0


@frozen
class Tolerance:
    """By how much usage may be above or below what is wanted before something is done."""

    up: float = 0.1
    down: float = 0.1

    def allows(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


_Ratio = Callable[[Mapping[str, int]], float]
Readings = Mapping[str, Reading]
"""By pod name."""


@frozen
class Groups:
    """Pods by what their readings are worth."""

    ready: tuple[str, ...]
    unready: tuple[str, ...]
    missing: tuple[str, ...]


def group_pods(pods: Sequence[Obj], readings: Readings, resource: str, now: float) -> Groups:
    ready: list[str] = []
    unready: list[str] = []
    missing: list[str] = []
    for pod in pods:
        if deleting(pod) or phase(pod) == "Failed":
            continue
        if phase(pod) == "Pending":
            unready.append(name(pod))
        elif name(pod) not in readings:
            missing.append(name(pod))
        elif resource == "cpu" and _cpu_says_nothing(pod, readings[name(pod)], now):
            unready.append(name(pod))
        else:
            ready.append(name(pod))
    return Groups(tuple(ready), tuple(unready), tuple(missing))


def _cpu_says_nothing(pod: Obj, reading: Reading, now: float) -> bool:
    condition = get_condition(pod, "Ready")
    started = (pod.get("status") or {}).get("startTime")
    if condition is None or not started:
        return True
    start, changed = parse_time(started), parse_time(condition["lastTransitionTime"])
    if start + CPU_INITIALIZATION > now:
        return not is_ready(pod) or reading.time < changed + reading.window
    return not is_ready(pod) and start + INITIAL_READINESS > changed


def ready_count(pods: Sequence[Obj]) -> int:
    return sum(phase(pod) == "Running" and is_ready(pod) for pod in pods)


def pod_request(pod: Obj, resource: str, container: str = "") -> int:
    """In thousandths; of one container if that is named. Raises MetricsMissing."""
    total = 0
    whole = ((pod["spec"].get("resources") or {}).get("requests") or {}).get(resource)
    if whole and not container:
        return quantity.milli_value(whole)
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for each in [*spec["containers"], *sidecars]:
        if container and each["name"] != container:
            continue
        asked = ((each.get("resources") or {}).get("requests") or {}).get(resource)
        if asked is None:
            raise MetricsMissing(
                f"missing request for {resource} in container {each['name']} of Pod {name(pod)}"
            )
        total += quantity.milli_value(asked)
    return total


def utilization_replicas(
    current: int,
    target: int,
    pods: Sequence[Obj],
    readings: Readings,
    resource: str,
    container: str,
    tolerance: Tolerance,
    now: float,
) -> tuple[int, int, int]:
    """(replicas, utilization in percent, average in thousandths). Raises MetricsMissing."""
    groups = group_pods(pods, readings, resource, now)
    requests = {name(pod): pod_request(pod, resource, container) for pod in pods}
    usage = {own: readings[own].milli for own in groups.ready}
    if not usage:
        raise MetricsMissing(NO_METRICS)

    def ratio(metrics: Mapping[str, int]) -> float:
        wanted = sum(requests[own] for own in metrics)
        if not wanted:
            raise MetricsMissing("no metrics returned matched known pods")
        return sum(metrics.values()) * 100 // wanted / target

    fill = {own: requests[own] * max(100, target) // 100 for own in groups.missing}
    replicas = _replicas(current, usage, fill, groups, ratio, tolerance)
    wanted = sum(requests[own] for own in usage)
    percent = sum(usage.values()) * 100 // wanted
    return replicas, percent, sum(usage.values()) // len(usage)


def average_replicas(
    current: int,
    target: int,
    pods: Sequence[Obj],
    readings: Readings,
    resource: str,
    tolerance: Tolerance,
    now: float,
) -> tuple[int, int]:
    """For a target per pod, in thousandths: (replicas, average). Raises MetricsMissing."""
    groups = group_pods(pods, readings, resource, now)
    usage = {own: readings[own].milli for own in groups.ready}
    if not usage:
        raise MetricsMissing(NO_METRICS)

    def ratio(metrics: Mapping[str, int]) -> float:
        return sum(metrics.values()) / len(metrics) / target

    fill = dict.fromkeys(groups.missing, target)
    replicas = _replicas(current, usage, fill, groups, ratio, tolerance)
    return replicas, sum(usage.values()) // len(usage)


def _replicas(
    current: int,
    usage: dict[str, int],
    fill: Mapping[str, int],
    groups: Groups,
    ratio: _Ratio,
    tolerance: Tolerance,
) -> int:
    first = ratio(usage)
    unready_matter = bool(groups.unready) and first > 1.0
    if not unready_matter and not groups.missing:
        return current if tolerance.allows(first) else math.ceil(first * len(usage))
    assumed = dict(usage)
    if groups.missing and first < 1.0:
        assumed |= fill
    elif groups.missing and first > 1.0:
        assumed |= dict.fromkeys(groups.missing, 0)
    if unready_matter:
        assumed |= dict.fromkeys(groups.unready, 0)
    second = ratio(assumed)
    if (
        tolerance.allows(second)
        or (first < 1.0) != (second < 1.0)
        or (first > 1.0) != (second > 1.0)
    ):
        return current
    replicas = math.ceil(second * len(assumed))
    if (second < 1.0 and replicas > current) or (second > 1.0 and replicas < current):
        return current
    return replicas


def value_replicas(
    current: int, usage: int, target: int, ready: int, tolerance: Tolerance, *, average: bool
) -> int:
    """For a metric of something else than pods: a target in all, or (`average`) per pod."""
    ratio = usage / (target * max(1, current)) if average else usage / target
    if tolerance.allows(ratio) and current:
        return current
    return math.ceil(usage / target) if average else math.ceil(ratio * ready)
