"""Which images to remove when their disk fills up. Pure.

As the kubelet's image garbage collector: above the high threshold, images that no container uses
go, those that were used longest ago first, until usage is at the low one. What is younger than
`min_age_seconds`, or pinned (loaded by hand: nobody could pull it again), stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import attrs

__all__ = ["Candidate", "Plan", "Policy", "make_plan"]

PERCENT: Final = 100


@attrs.frozen
class Policy:
    """Thresholds in percent of the file system."""

    high_percent: int = 85
    low_percent: int = 80
    min_age_seconds: float = 120.0


class Candidate(NamedTuple):
    """`here_since`: wall-clock seconds; images that are in use are no candidates."""

    id: str
    size_bytes: int
    here_since: float
    pinned: bool = False


class Plan(NamedTuple):
    """`remove` in order; `missing_bytes`: what is to be freed and cannot."""

    usage_percent: int
    wanted_bytes: int = 0
    remove: tuple[str, ...] = ()
    missing_bytes: int = 0


def make_plan(
    policy: Policy,
    *,
    capacity_bytes: int,
    available_bytes: int,
    candidates: Iterable[Candidate],
    last_used: Mapping[str, float],
    now: float,
) -> Plan:
    if capacity_bytes <= 0:
        return Plan(0)
    used = capacity_bytes - min(available_bytes, capacity_bytes)
    percent = PERCENT - available_bytes * PERCENT // capacity_bytes
    if percent < policy.high_percent:
        return Plan(percent)
    wanted = used - capacity_bytes * policy.low_percent // PERCENT
    freed, remove = 0, []
    by_age = sorted(candidates, key=lambda each: (last_used.get(each.id, 0.0), each.here_since))
    for each in by_age:
        if freed >= wanted:
            break
        if not each.pinned and now - each.here_since >= policy.min_age_seconds:
            remove.append(each.id)
            freed += each.size_bytes
    return Plan(percent, wanted, tuple(remove), max(0, wanted - freed))
