"""Quantities such as 1.5Gi, compared and added by value. Pure."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from k8slite.api import quantity

__all__ = ["FUNCTIONS"]

INT_MAX = 2**63 - 1


def _number(text: str) -> Decimal:
    return Decimal(text)


def _canonical(text: str) -> str:
    """The number itself: equal quantities have equal texts."""
    return _text(quantity.parse(text))


def _text(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _as_integer(text: str) -> int:
    if not _is_integer(text):
        raise ValueError("cannot convert value to integer")
    return int(_number(text))


def _is_integer(text: str) -> bool:
    number = _number(text)
    return number == number.to_integral_value() and abs(number) <= INT_MAX


def _compare(left: str, right: str) -> int:
    a, b = _number(left), _number(right)
    return (a > b) - (a < b)


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("quantity", "s", "Q", _canonical),
    ("isQuantity", "s", "b", _is_quantity),
    (".sign", "Q", "i", lambda text: _compare(text, "0")),
    (".isInteger", "Q", "b", _is_integer),
    (".asInteger", "Q", "i", _as_integer),
    (".asApproximateFloat", "Q", "d", lambda text: float(_number(text))),
    (".add", "QQ", "Q", lambda a, b: _text(_number(a) + _number(b))),
    (".add", "Qi", "Q", lambda a, b: _text(_number(a) + b)),
    (".sub", "QQ", "Q", lambda a, b: _text(_number(a) - _number(b))),
    (".sub", "Qi", "Q", lambda a, b: _text(_number(a) - b)),
    (".isLessThan", "QQ", "b", lambda a, b: _compare(a, b) < 0),
    (".isGreaterThan", "QQ", "b", lambda a, b: _compare(a, b) > 0),
    (".compareTo", "QQ", "i", _compare),
)
