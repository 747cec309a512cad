"""Semantic versions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["FUNCTIONS"]

_NUMBER = r"(0|[1-9]\d{0,18})"
_PART = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


def _parse(text: str) -> tuple[int, int, int, list[str]]:
    found = _VERSION.fullmatch(text) if len(text) <= 256 else None
    if found is None:
        raise ValueError(f'semver parse error during conversion from string: "{text}"')
    return int(found[1]), int(found[2]), int(found[3]), found[4].split(".") if found[4] else []


def _order(text: str) -> tuple[Any, ...]:
    """Sort key: a version comes after its own pre-releases."""
    major, minor, patch, before = _parse(text)
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in before)
    return major, minor, patch, not before, parts


def _compare(left: str, right: str) -> int:
    a, b = _order(left), _order(right)
    return (a > b) - (a < b)


def _is_version(text: str) -> bool:
    return len(text) <= 256 and _VERSION.fullmatch(text) is not None


def _version(text: str) -> str:
    _parse(text)
    return text.partition("+")[0]


def _lenient(text: str, normalise: bool) -> str:
    if not normalise:
        return _version(text)
    text = text.removeprefix("v")
    core, dash, rest = text.partition("-")
    numbers = [n.lstrip("0") or "0" for n in core.split(".")]
    return _version(".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + dash + rest)


def _is_lenient(text: str, normalise: bool) -> bool:
    try:
        _lenient(text, normalise)
    except ValueError:
        return False
    return True


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("semver", "s", "V", _version),
    ("semver", "sb", "V", _lenient),
    ("isSemver", "s", "b", _is_version),
    ("isSemver", "sb", "b", _is_lenient),
    (".major", "V", "i", lambda text: _parse(text)[0]),
    (".minor", "V", "i", lambda text: _parse(text)[1]),
    (".patch", "V", "i", lambda text: _parse(text)[2]),
    (".isLessThan", "VV", "b", lambda a, b: _compare(a, b) < 0),
    (".isGreaterThan", "VV", "b", lambda a, b: _compare(a, b) > 0),
    (".compareTo", "VV", "i", _compare),
)
