"""How fast an autoscaler follows its recommendations (pure): windows, policies, bounds.

Owns the memory of one autoscaler: what was recommended, and what was changed, and when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from attrs import define, field

from k8slite.api.meta import Obj

__all__ = ["Limited", "Memory", "limit"]

UP_LIMIT_FACTOR = 2
UP_LIMIT_MIN = 4
UP_POLICIES: tuple[Obj, ...] = (
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
)
DOWN_POLICIES: tuple[Obj, ...] = ({"type": "Percent", "value": 100, "periodSeconds": 15},)


class Limited(NamedTuple):
    """What may be done now, and why it is not what was recommended (reason "" if it is)."""

    replicas: int
    stabilized: str
    reason: str
    message: str


@define
class Memory:
    """Times are wall-clock seconds."""

    recommendations: list[tuple[float, int]] = field(factory=list)
    changes: list[tuple[float, int]] = field(factory=list)
    """Replicas added (or, negative, removed)."""

    def note_change(self, now: float, change: int) -> None:
        self.changes.append((now, change))

    def within(self, now: float, seconds: float, sign: int) -> int:
        """How many replicas were added (sign 1) or removed (-1) in the last seconds."""
        return sum(
            abs(change)
            for time, change in self.changes
            if time > now - seconds and change * sign > 0
        )

    def forget_before(self, time: float) -> None:
        self.recommendations = [each for each in self.recommendations if each[0] >= time]
        self.changes = [each for each in self.changes if each[0] >= time]


def limit(
    spec: Obj, memory: Memory, current: int, wanted: int, now: float, downscale_window: float
) -> Limited:
    """Bound a recommendation; it is remembered."""
    low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
    behavior = spec.get("behavior")
    up, down = (behavior or {}).get("scaleUp") or {}, (behavior or {}).get("scaleDown") or {}
    up_window = float(up.get("stabilizationWindowSeconds") or 0)
    given = down.get("stabilizationWindowSeconds")
    down_window = float(downscale_window if given is None else given)
    memory.forget_before(now - max(up_window, down_window, 3600.0))
    steady = _stabilized(memory, current, wanted, now, up_window, down_window)
    memory.recommendations.append((now, wanted))
    stabilized = ""
    if steady != wanted:
        stabilized = "ScaleDownStabilized" if wanted < steady else "ScaleUpStabilized"
    if behavior is None:
        fastest = max(UP_LIMIT_FACTOR * current, UP_LIMIT_MIN)
        slowest = 0
    else:
        fastest = _fastest(up, memory, current, now)
        slowest = _slowest(down, memory, current, now)
    return _bounded(steady, stabilized, low, high, fastest, slowest)


def _bounded(
    wanted: int, stabilized: str, low: int, high: int, fastest: int, slowest: int
) -> Limited:
    top, bottom = min(high, fastest), max(low, slowest)
    if wanted > top:
        if fastest < high:
            text = "the desired replica count is increasing faster than the maximum scale rate"
            return Limited(top, stabilized, "ScaleUpLimit", text)
        text = "the desired replica count is more than the maximum replica count"
        return Limited(top, stabilized, "TooManyReplicas", text)
    if wanted < bottom:
        if slowest > low:
            text = "the desired replica count is decreasing faster than the maximum scale rate"
            return Limited(bottom, stabilized, "ScaleDownLimit", text)
        text = "the desired replica count is less than the minimum replica count"
        return Limited(bottom, stabilized, "TooFewReplicas", text)
    return Limited(wanted, stabilized, "", "the desired count is within the acceptable range")


def _stabilized(
    memory: Memory, current: int, wanted: int, now: float, up_window: float, down_window: float
) -> int:
    """The most careful of the recommendations within each window."""
    least = most = wanted
    for time, replicas in memory.recommendations:
        if time > now - up_window:
            least = min(least, replicas)
        if time > now - down_window:
            most = max(most, replicas)
    return min(max(current, least), most)


def _fastest(rules: Obj, memory: Memory, current: int, now: float) -> int:
    """The largest count the policies allow now."""
    select = rules.get("selectPolicy", "Max")
    if select == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or UP_POLICIES:
        start = _start(memory, current, now, policy["periodSeconds"])
        if policy["type"] == "Pods":
            limits.append(start + policy["value"])
        else:
            limits.append(math.ceil(start * (1 + policy["value"] / 100)))
    return max(current, _select(limits, most=select == "Max"))


def _slowest(rules: Obj, memory: Memory, current: int, now: float) -> int:
    """The smallest count the policies allow now."""
    select = rules.get("selectPolicy", "Max")
    if select == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or DOWN_POLICIES:
        start = _start(memory, current, now, policy["periodSeconds"])
        if policy["type"] == "Pods":
            limits.append(start - policy["value"])
        else:
            limits.append(int(start * (1 - policy["value"] / 100)))
    return min(current, _select(limits, most=select != "Max"))


def _start(memory: Memory, current: int, now: float, period: float) -> int:
    """How many replicas there were at the beginning of the period."""
    added, removed = memory.within(now, period, 1), memory.within(now, period, -1)
    return current - added + removed


def _select(limits: Sequence[int], *, most: bool) -> int:
    return max(limits) if most else min(limits)
