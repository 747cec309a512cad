"""What an expression asks through `authorizer`: a question is gathered, then put. Pure.

Questions travel through the evaluator as JSON. Whoever evaluates says who answers (`using`); one
evaluation runs at a time, and never waits, so that one variable of this module is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

__all__ = ["ask", "question", "using", "with_part"]

_Authorize = Callable[[Mapping[str, Any]], tuple[bool, str]]
_current: list[_Authorize] = []


@contextmanager
def using(authorize: _Authorize | None) -> Iterator[None]:
    """Have `authorize` answer inside of the block."""
    if authorize is None:
        yield
        return
    _current.append(authorize)
    try:
        yield
    finally:
        _current.pop()


def question(text: str) -> dict[str, Any]:
    """What has been gathered so far."""
    found: dict[str, Any] = orjson.loads(text) if text else {}
    return found


def with_part(text: str, key: str, value: str) -> str:
    """The question with one more part."""
    return orjson.dumps({**question(text), key: value}).decode()


def ask(text: str, verb: str) -> str:
    """Put the question: a decision as JSON. Raises ValueError when nobody answers."""
    if not _current:
        raise ValueError("no authorizer is there to be asked")
    allowed, reason = _current[-1]({**question(text), "verb": verb})
    return orjson.dumps({"allowed": allowed, "reason": reason}).decode()
