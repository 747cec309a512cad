"""Functions of lists: Kubernetes' own, and CEL's sets extension. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from itertools import pairwise
from typing import Any

__all__ = ["FUNCTIONS"]


def _same(left: Any, right: Any) -> bool:
    """CEL's equality: numbers compare by value, and a boolean is no number."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _is_sorted(values: list[Any]) -> bool:
    try:
        return all(a <= b for a, b in pairwise(values))
    except TypeError:
        raise ValueError("no such overload: isSorted") from None


def _sum(values: list[Any]) -> Any:
    if not values:
        return 0
    try:
        total = values[0]
        for value in values[1:]:
            total = total + value
    except TypeError:
        raise ValueError("no such overload: sum") from None
    if not isinstance(total, (int, float, datetime.timedelta)):
        raise ValueError("no such overload: sum")
    return total


def _extreme(choose: Callable[[list[Any]], Any], name: str) -> Callable[[list[Any]], Any]:
    def call(values: list[Any]) -> Any:
        if not values:
            raise ValueError(f"{name} called on empty list")
        try:
            return choose(values)
        except TypeError:
            raise ValueError(f"no such overload: {name}") from None

    return call


def _index(values: list[Any], wanted: Any) -> int:
    return next((i for i, value in enumerate(values) if _same(value, wanted)), -1)


def _last_index(values: list[Any], wanted: Any) -> int:
    return next((i for i in range(len(values) - 1, -1, -1) if _same(values[i], wanted)), -1)


COMPARISONS_MAX = 1_000_000


def _contains(whole: list[Any], part: list[Any]) -> bool:
    if len(whole) * len(part) > COMPARISONS_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return all(_index(whole, value) >= 0 for value in part)


def _intersects(left: list[Any], right: list[Any]) -> bool:
    if len(left) * len(right) > COMPARISONS_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return any(_index(right, value) >= 0 for value in left)


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    (".isSorted", "L", "b", _is_sorted),
    (".sum", "L", "*", _sum),
    (".min", "L", "*", _extreme(min, "min")),
    (".max", "L", "*", _extreme(max, "max")),
    (".indexOf", "L?", "i", _index),
    (".lastIndexOf", "L?", "i", _last_index),
    ("sets.contains", "LL", "b", _contains),
    ("sets.equivalent", "LL", "b", lambda a, b: _contains(a, b) and _contains(b, a)),
    ("sets.intersects", "LL", "b", _intersects),
)
