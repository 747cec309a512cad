"""Functions of strings: those of CEL's strings extension, regular expressions, format. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]  # not in the stubs
from re import _parser as sre_parser  # type: ignore[attr-defined]  # not in the stubs
from typing import Any

__all__ = ["FUNCTIONS", "STRING_MAX"]

STRING_MAX = 4 * 1024 * 1024
"""Longer strings are not made."""
SEARCHED_MAX = 16 * 1024
"""Longer strings are not searched by find and findAll, whose engine can take its time."""


def _bounded(text: str) -> str:
    if len(text) > STRING_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return text


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise ValueError(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(text: str, wanted: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text.find(wanted, start)


def _last_index_of(text: str, wanted: str, start: int | None = None) -> int:
    if start is None:
        return text.rfind(wanted)
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text.rfind(wanted, 0, start + len(wanted))


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    if not 0 <= stop <= len(text):
        raise ValueError(f"index out of range: {stop}")
    if stop < start:
        raise ValueError(f"invalid substring range. start: {start}, end: {stop}")
    return text[start:stop]


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    times = text.count(old) if count < 0 else min(count, text.count(old))
    if len(text) + times * (len(new) - len(old)) > STRING_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if not separator:
        parts = list(text) if count < 0 else [*text[: count - 1], text[count - 1 :]]
        return [part for part in parts if part]
    return text.split(separator, -1 if count < 0 else count - 1)


def _join(parts: list[str], separator: str = "") -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("no such overload: join")
    return _bounded(separator.join(parts))


def _lower(text: str) -> str:
    return "".join(c.lower() if "A" <= c <= "Z" else c for c in text)


def _upper(text: str) -> str:
    return "".join(c.upper() if "a" <= c <= "z" else c for c in text)


def _quote(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


# --- format -------------------------------------------------------------------------------------

_VERB = re.compile(r"%(%|(?:\.(\d+))?([sdfebxXo]))")


def _format(template: str, arguments: list[Any]) -> str:
    used = 0

    def one(match: re.Match[str]) -> str:
        nonlocal used
        if match[1] == "%":
            return "%"
        if used >= len(arguments):
            raise ValueError(f"index {used} out of range")
        value = arguments[used]
        used += 1
        return _shown(value, match[3], int(match[2] or 6))

    if template.count("%") != sum(len(m[0].replace("%%", "%")) and m[0].count("%")
                                  for m in _VERB.finditer(template)):  # fmt: skip
        raise ValueError("could not parse formatting clause")
    return _bounded(_VERB.sub(one, template))


def _shown(value: Any, verb: str, precision: int) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match verb:
        case "s":
            return as_text(value)
        case "d" if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        case "f" if number:
            return f"{value:.{min(precision, 100)}f}"
        case "e" if number:
            return f"{value:.{min(precision, 100)}e}"
        case "b" if isinstance(value, int):
            return f"{int(value):b}"
        case "o" if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:o}"
        case "x" | "X":
            if isinstance(value, (str, bytes)):
                raw = value.encode() if isinstance(value, str) else value
                return raw.hex() if verb == "x" else raw.hex().upper()
            if isinstance(value, int) and not isinstance(value, bool):
                return format(value, verb)
    raise ValueError(f"error during formatting: %{verb} cannot show this type")


def as_text(value: Any) -> str:
    """As `%s` shows it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return "[" + ", ".join(as_text(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_text(k)}: {as_text(value[k])}" for k in sorted(value)) + "}"
    return str(value)


# --- regular expressions ------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _tame(pattern: str) -> re.Pattern[str]:
    """A pattern that cannot run away: without repetitions inside repetitions. Raises ValueError."""
    try:
        tree = sre_parser.parse(pattern, re.ASCII)
        compiled = re.compile(pattern, re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"error parsing regexp: {error}") from None
    if _nested(tree, inside=False):
        raise ValueError("find and findAll take no repetitions inside repetitions")
    return compiled


def _nested(tree: Any, *, inside: bool) -> bool:
    for operation, argument in tree:
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            _, most, body = argument
            endless = most is sre.MAXREPEAT or most > 32
            if (endless and inside) or _nested(body, inside=inside or endless):
                return True
        elif operation is sre.SUBPATTERN:
            if _nested(argument[-1], inside=inside):
                return True
        elif operation is sre.BRANCH:
            if any(_nested(branch, inside=inside) for branch in argument[1]):
                return True
        elif operation in (sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF, sre.ATOMIC_GROUP):
            return True  # not RE2's
    return False


def _searched(text: str) -> str:
    if len(text) > SEARCHED_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return text


def _find(text: str, pattern: str) -> str:
    found = _tame(pattern).search(_searched(text))
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = (match[0] for match in _tame(pattern).finditer(_searched(text)))
    return list(found) if limit < 0 else [f for f, _ in zip(found, range(limit), strict=False)]


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    (".charAt", "si", "s", _char_at),
    (".indexOf", "ss", "i", _index_of),
    (".indexOf", "ssi", "i", _index_of),
    (".lastIndexOf", "ss", "i", _last_index_of),
    (".lastIndexOf", "ssi", "i", _last_index_of),
    (".lowerAscii", "s", "s", _lower),
    (".upperAscii", "s", "s", _upper),
    (".replace", "sss", "s", _replace),
    (".replace", "sssi", "s", _replace),
    (".split", "ss", "S", _split),
    (".split", "ssi", "S", _split),
    (".substring", "si", "s", _substring),
    (".substring", "sii", "s", _substring),
    (".trim", "s", "s", str.strip),
    (".join", "S", "s", _join),
    (".join", "Ss", "s", _join),
    (".format", "sL", "s", _format),
    ("strings.quote", "s", "s", _quote),
    (".find", "ss", "s", _find),
    (".findAll", "ss", "S", _find_all),
    (".findAll", "ssi", "S", _find_all),
)
